use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::format::{Follow, HEADER_LEN, Header, push_entry, push_jump, push_mark};
use super::open::{JournalOpenError, Loaded, Opening};
use super::writer::SEGMENT_BYTES;
use super::*;
use crate::store::Finding;
use crate::store::disk::RealDisk;
use crate::store::index::Watermark;
use crate::store::tests::{Note, Run, on_a_small_disk};

type Opened = Result<(Writer, Loaded, Vec<Finding>), JournalOpenError>;

fn open_with(dir: &Path, segment_bytes: u64, indexed: Option<Watermark>) -> Opened {
    let mut findings = Vec::new();
    let aside = dir.join("damaged");
    let disk = Arc::new(RealDisk);
    let opening = Opening { dir, aside: &aside, segment_bytes, disk, findings: &mut findings };
    let (writer, loaded) = opening.open(indexed)?;
    Ok((writer, loaded, findings))
}

fn open(dir: &Path) -> Opened {
    open_with(dir, SEGMENT_BYTES, None)
}

fn append(writer: &mut Writer, commits: &[&[&str]]) -> Result<Watermark, JournalError> {
    let commits: Vec<Vec<Entry>> = commits
        .iter()
        .map(|commit| commit.iter().map(|text| Entry::new(&Note((*text).into()))).collect())
        .collect();
    let commits: Vec<&[Entry]> = commits.iter().map(|commit| &commit[..]).collect();
    writer.append(&commits).map(|written| written.watermark.unwrap())
}

fn texts(loaded: &Loaded) -> Vec<String> {
    let bodies = loaded.segments.iter().flat_map(|s| s.entries.iter().map(|e| &s.file[e.body.clone()]));
    bodies.map(|body| codec::decode_body::<Note>(body, Note::LIMIT).unwrap().0).collect()
}

/// The journal's only segment.
fn segment(dir: &Path) -> PathBuf {
    dir.join(format!("{:020}.log", 0))
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    paths
}

#[test]
fn golden_bytes_of_a_segment() {
    let journal = *b"0123456789abcdef";
    let mut bytes = Header { start: 258, journal, jumps: false }.encode().to_vec();
    push_mark(&mut bytes, &journal, 258);
    push_entry(&mut bytes, 7, Follow::More, b"a");
    push_entry(&mut bytes, 8, Follow::End, b"");
    let expected = [
        // Magic, version 1, zero, start, journal id, CRC.
        "534d4a4c01000000020100000000000030313233343536373839616263646566dc6a81e5",
        // Mark: length 26, CRC, kind 0, journal id, position.
        "1a000000dba95ac10000303132333435363738396162636465660201000000000000",
        // Length 3, CRC, kind 7 that goes on, body; length 2, CRC, kind 8.
        "03000000120638fb078061",
        "02000000f79800890800",
    ];
    assert_eq!(data_encoding::HEXLOWER.encode(&bytes), expected.concat());
    let mut bytes = Header { start: 258, journal, jumps: true }.encode().to_vec();
    push_jump(&mut bytes, 515);
    let expected = [
        // Version 2; length 10, CRC, kind 0x7fff, position.
        "534d4a4c02000000020100000000000030313233343536373839616263646566fb6d5fe7",
        "0a000000aca5c734ff7f0302000000000000",
    ];
    assert_eq!(data_encoding::HEXLOWER.encode(&bytes), expected.concat());
}

#[test]
fn a_cut_anywhere_keeps_every_whole_commit_before_it_and_no_half_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, ..) = open(dir.path()).unwrap();
    let mut ends = Vec::new();
    for commit in [&["a"][..], &["b", "c"], &["d", "e", "f"]] {
        append(&mut writer, &[commit]).unwrap();
        ends.push((fs::metadata(segment(dir.path())).unwrap().len(), commit));
    }
    let whole = fs::read(segment(dir.path())).unwrap();
    for cut in 0..=whole.len() {
        let torn = tempfile::tempdir().unwrap();
        fs::write(segment(torn.path()), &whole[..cut]).unwrap();
        let (mut writer, loaded, findings) = open(torn.path()).unwrap();
        let kept = ends.iter().filter(|(end, _)| *end <= cut as u64);
        let mut expected: Vec<&str> = kept.flat_map(|(_, commit)| commit.iter().copied()).collect();
        assert_eq!(texts(&loaded), expected, "cut at {cut}");
        // A mark of 34 bytes is whole by itself.
        let starts = [HEADER_LEN as u64].into_iter().chain(ends.iter().map(|(end, _)| *end));
        let clean = starts.into_iter().any(|start| [start, start + 34].contains(&(cut as u64)));
        assert_eq!(findings.is_empty(), clean, "cut at {cut}: {findings:?}");
        append(&mut writer, &[&["again"]]).unwrap();
        let (_, loaded, findings) = open(torn.path()).unwrap();
        expected.push("again");
        assert_eq!((texts(&loaded), findings), (expected.into_iter().map(Into::into).collect(), vec![]));
    }
}

fn rolled_notes() -> [&'static str; 3] {
    ["first segment", "second segment", "third segment"]
}

/// Three segments of one note each, and the notes.
fn rolled(dir: &Path) -> [&'static str; 3] {
    let (mut writer, ..) = open_with(dir, 64, None).unwrap();
    let notes = rolled_notes();
    for note in notes {
        append(&mut writer, &[&[note]]).unwrap();
    }
    assert_eq!(segments(dir).len(), 3);
    notes
}

#[test]
fn a_segment_that_was_only_just_begun_is_begun_again() {
    for begun in [0, 1, HEADER_LEN - 1, HEADER_LEN] {
        let dir = tempfile::tempdir().unwrap();
        let notes = rolled(dir.path());
        let third = &segments(dir.path())[2];
        let bytes = fs::read(third).unwrap();
        fs::write(third, &bytes[..begun]).unwrap();
        let (mut writer, loaded, findings) = open_with(dir.path(), 64, None).unwrap();
        assert_eq!(texts(&loaded), notes[..2]);
        assert_eq!(findings.is_empty(), begun == HEADER_LEN, "{findings:?}");
        append(&mut writer, &[&["third again"]]).unwrap();
        assert_eq!(texts(&open(dir.path()).unwrap().1), [notes[0], notes[1], "third again"]);
    }
}

#[test]
fn a_segment_that_begins_beyond_all_journals_is_damaged() {
    let header = |start| Header { start, journal: [7; 16], jumps: false }.encode();
    assert!(Header::decode(&header(1 << 40)).is_ok());
    assert_eq!(Header::decode(&header(u64::MAX)), Err(super::format::BadHeader::Damaged));
}

#[test]
fn a_segment_of_a_newer_release_or_another_journal_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = segment(dir.path());
    let mut newer = Header { start: 0, journal: [1; 16], jumps: false }.encode();
    newer[4] = 3;
    let crc = crc32fast::hash(&newer[..32]);
    newer[32..].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, newer).unwrap();
    let error = open(dir.path()).err().unwrap();
    assert!(error.to_string().contains("newer release"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), newer);

    fs::remove_file(&path).unwrap();
    rolled(dir.path());
    let third = &segments(dir.path())[2];
    let mut bytes = fs::read(third).unwrap();
    let start = Header::decode(&bytes).unwrap().start;
    bytes[..HEADER_LEN].copy_from_slice(&Header { start, journal: [9; 16], jumps: false }.encode());
    fs::write(third, bytes).unwrap();
    let error = open(dir.path()).err().unwrap();
    assert!(error.to_string().contains("another journal"), "{error}");
}

#[test]
fn a_journal_that_cannot_take_back_half_a_write_refuses_more() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, ..) = open(dir.path()).unwrap();
    append(&mut writer, &[&["a"]]).unwrap();
    writer.break_file(fs::File::open(segment(dir.path())).unwrap());
    for _ in 0..2 {
        let error = append(&mut writer, &[&["b"]]).unwrap_err();
        assert!(matches!(error, JournalError::Refusing { .. }), "{error}");
    }
    assert_eq!(texts(&open(dir.path()).unwrap().1), ["a"]);
}

mod compaction;
mod damage;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A kill in the middle of a write leaves a part of it, zeros, or stale bytes behind what was acknowledged.
    #[test]
    fn whatever_follows_the_last_sync_acknowledged_records_are_replayed(
        batches in proptest::collection::vec(proptest::collection::vec(0usize..4, 1..4), 0..6),
        torn in proptest::collection::vec(any::<u8>(), 0..200),
        zeros in any::<bool>(),
        segment_bytes in 100u64..600,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, ..) = open_with(dir.path(), segment_bytes, None).unwrap();
        let mut expected = Vec::new();
        for (i, batch) in batches.iter().enumerate() {
            let texts: Vec<String> = batch.iter().map(|len| format!("{i}{}", "x".repeat(*len * 20))).collect();
            let commits: Vec<Vec<&str>> = texts.iter().map(|text| vec![&text[..], "end"]).collect();
            let commits: Vec<&[&str]> = commits.iter().map(|commit| &commit[..]).collect();
            append(&mut writer, &commits).unwrap();
            expected.extend(texts.into_iter().flat_map(|text| [text, "end".into()]));
        }
        drop(writer);
        let newest = segments(dir.path()).pop().unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        bytes.extend(torn.iter().map(|byte| if zeros { 0 } else { *byte }));
        fs::write(&newest, bytes).unwrap();
        let (_, loaded, findings) = open(dir.path()).unwrap();
        prop_assert_eq!(texts(&loaded), expected);
        prop_assert_eq!(findings.len(), usize::from(!torn.is_empty()));
    }
}

#[tokio::test]
async fn callers_that_wait_together_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let run =
        Run::open_with(&crate::store::Config { reserve: 0, ..crate::store::Config::at(dir.path()) }, 1 << 20)
            .await
            .unwrap();
    let commits = (0..100).map(|i| run.store.journal.commit(vec![Entry::new(&Note(i.to_string()))]));
    let mut positions = futures::future::try_join_all(commits).await.unwrap();
    positions.dedup();
    assert_eq!(positions.len(), 100);
    assert!(positions.is_sorted());
    let path = segment(&dir.path().join("journal"));
    let bytes = fs::read(path).unwrap();
    let id = Header::decode(&bytes).unwrap().journal;
    let batches = bytes.windows(16).filter(|window| *window == id).count() - 1;
    assert!(batches < 10, "{batches} syncs for 100 commits");
    run.stop().await;
}

#[tokio::test]
async fn a_record_over_its_limit_is_refused_and_so_is_all_after_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    let long = Entry::new(&Note("x".repeat(Note::LIMIT)));
    let error = run.store.journal.commit(vec![Entry::new(&Note("short".into())), long]).await.unwrap_err();
    assert!(matches!(error, JournalError::TooLong { kind: 7, limit: 1024, .. }), "{error}");
    let journal = run.store.journal.clone();
    let journal_of_a_slow_actor = journal.clone();
    run.stop().await;
    let error = journal_of_a_slow_actor.commit(vec![Entry::new(&Note("late".into()))]).await.unwrap_err();
    assert!(matches!(error, JournalError::Stopping), "{error}");
    drop(journal);
    let run = Run::open(dir.path()).await.unwrap();
    assert_eq!(run.replay.records::<Note>().count(), 0);
    run.stop().await;
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_fails_the_commit_and_nothing_else() {
    let test = "store::journal::tests::a_full_disk_fails_the_commit_and_nothing_else";
    let Some(dir) = on_a_small_disk(test, "256k") else { return };
    let dir = dir.join("journal");
    let (mut writer, ..) = open(&dir).unwrap();
    let note = "x".repeat(900);
    let mut acknowledged = 0;
    let refused = loop {
        match append(&mut writer, &[&[&note[..]; 20]]) {
            Ok(_) => acknowledged += 20,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, JournalError::NoSpace { .. }), "{refused}");
    assert_eq!(open(&dir).unwrap().2, [], "nothing half written is left");
    while append(&mut writer, &[&["small"]]).is_ok() {
        acknowledged += 1;
    }
    let (mut writer, loaded, _) = open(&dir).unwrap();
    assert_eq!(texts(&loaded).len(), acknowledged);
    assert!(acknowledged > 200);
    assert!(append(&mut writer, &[&["still full"]]).is_err());
}
