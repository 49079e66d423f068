//! Forgetting: what stays keeps its position, and a crash at any step leaves a journal that opens.

use super::*;
use crate::store::journal::compact::{Judge, Verdict, compact};

/// Drops notes that begin with `x`, shortens those that begin with `s`.
fn judge() -> Judge {
    Judge::default().on::<Note>(|note| match note.0.as_bytes()[0] {
        b'x' => Verdict::Drop,
        b's' => Verdict::Shorten(Note("s".into())),
        _ => Verdict::Keep,
    })
}

fn positions(loaded: &Loaded) -> Vec<(String, u64)> {
    let entries = loaded.segments.iter().flat_map(|s| s.entries.iter().map(|entry| entry.at.0));
    texts(loaded).into_iter().zip(entries).collect()
}

fn squeeze(dir: &Path, segment_bytes: u64) -> compact::Compacted {
    let line = segments(dir).len();
    let line = segments(dir)[line - 1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    compact(dir, &RealDisk, line, segment_bytes, &judge()).unwrap()
}

#[test]
fn what_stays_keeps_its_position() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, ..) = open(dir.path()).unwrap();
    for i in 0..30 {
        let (drop, keep, short) = (format!("x{i}"), format!("k{i}"), format!("s{} {i}", "long ".repeat(9)));
        append(&mut writer, &[&[&drop, &keep], &[&drop], &[&short, &drop]]).unwrap();
        if i % 10 == 9 {
            writer.close_segment().unwrap();
        }
    }
    append(&mut writer, &[&["x: not behind the line"]]).unwrap();
    writer.close().unwrap();
    drop(writer);
    let before = positions(&open(dir.path()).unwrap().1);
    let done = squeeze(dir.path(), SEGMENT_BYTES);
    assert_eq!(done.records, 30 * 4);
    assert!(done.after < done.before * 3 / 4, "{done:?}");
    assert_eq!(segments(dir.path()).len(), 2, "three became one");
    let (mut writer, loaded, findings) = open(dir.path()).unwrap();
    assert_eq!(findings, []);
    let expected: Vec<_> = before
        .into_iter()
        .filter(|(text, _)| !text.starts_with('x') || text.contains("line"))
        .map(|(text, at)| (if text.starts_with('s') { "s".into() } else { text }, at))
        .collect();
    assert_eq!(positions(&loaded), expected);
    append(&mut writer, &[&["more"]]).unwrap();
    writer.close_segment().unwrap();
    drop(writer);
    let again = squeeze(dir.path(), SEGMENT_BYTES);
    assert_eq!(again.records, 1, "what was behind the line goes the next time: {again:?}");
    assert_eq!(texts(&open(dir.path()).unwrap().1).len(), 61);
    assert_eq!(open(dir.path()).unwrap().2, []);
}

#[test]
fn a_compacted_segment_survives_damage_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, ..) = open(dir.path()).unwrap();
    for text in ["a", "x", "b", "x", "c", "d"] {
        append(&mut writer, &[&[text]]).unwrap();
    }
    writer.close_segment().unwrap();
    append(&mut writer, &[&["e"]]).unwrap();
    drop(writer);
    squeeze(dir.path(), SEGMENT_BYTES);
    let whole = fs::read(segment(dir.path())).unwrap();
    let newest = segments(dir.path()).pop().unwrap();
    for at in 0..whole.len() {
        let damaged = tempfile::tempdir().unwrap();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x04;
        fs::write(segment(damaged.path()), bytes).unwrap();
        fs::copy(&newest, damaged.path().join(newest.file_name().unwrap())).unwrap();
        let (_, loaded, findings) = open(damaged.path()).unwrap();
        let kept = texts(&loaded);
        assert!(
            kept.len() >= 4 && kept.is_sorted() && !findings.is_empty(),
            "flip at {at}: {kept:?} {findings:?}"
        );
        assert_eq!(kept.last().unwrap(), "e", "flip at {at}");
        let (_, again, findings) = open(damaged.path()).unwrap();
        assert_eq!((positions(&again), findings), (positions(&loaded), vec![]), "flip at {at}");
    }
}

#[test]
fn small_segments_grow_together_up_to_their_limit() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, ..) = open(dir.path()).unwrap();
    let note = "k".repeat(500);
    for _ in 0..20 {
        append(&mut writer, &[&[&note]]).unwrap();
        writer.close_segment().unwrap();
    }
    drop(writer);
    assert_eq!(segments(dir.path()).len(), 21);
    squeeze(dir.path(), 3000);
    let left = segments(dir.path());
    assert!(left.len() < 8 && left.iter().all(|path| fs::metadata(path).unwrap().len() <= 3000), "{left:?}");
    let (_, loaded, findings) = open(dir.path()).unwrap();
    assert_eq!((texts(&loaded).len(), findings), (20, vec![]));
}

/// What ended something that a damaged segment holds must not go before it does.
#[test]
fn nothing_behind_a_damaged_segment_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, ..) = open(dir.path()).unwrap();
    for text in ["a", "b", "c"] {
        append(&mut writer, &[&[text], &["x"]]).unwrap();
        append(&mut writer, &[&["k"]]).unwrap();
        writer.close_segment().unwrap();
    }
    drop(writer);
    let [first, damaged, behind, _] = &segments(dir.path())[..] else { panic!("three and the newest") };
    let mut bytes = fs::read(damaged).unwrap();
    bytes[HEADER_LEN + 50] ^= 1;
    fs::write(damaged, &bytes).unwrap();
    let kept = fs::read(behind).unwrap();
    assert_eq!(squeeze(dir.path(), SEGMENT_BYTES).records, 1, "the first segment's");
    assert!(fs::read(first).unwrap().len() < kept.len());
    assert_eq!((fs::read(damaged).unwrap(), fs::read(behind).unwrap()), (bytes, kept));
    let (_, loaded, findings) = open(dir.path()).unwrap();
    assert!(findings.iter().any(Finding::is_loss), "{findings:?}");
    assert_eq!(texts(&loaded).iter().filter(|text| *text == "x").count(), 2, "{:?}", texts(&loaded));
    assert_eq!(open(dir.path()).unwrap().2, []);
    squeeze(dir.path(), SEGMENT_BYTES);
    assert!(!texts(&open(dir.path()).unwrap().1).contains(&"x".to_owned()), "mended, all is compacted");
}
