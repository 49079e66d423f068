//! Real file systems that are full or read-only: what was acknowledged stays, what cannot be written is refused, and
//! the store goes on as soon as there is room.

use scenemesh_protocol::ids::ContentHash;
use scenemesh_protocol::sealed::Manifest;

use super::*;
use crate::platform;

const MIB: usize = 1 << 20;

/// Takes all room that is left, down to the last byte.
fn fill(dir: &Path, name: &str) -> PathBuf {
    use std::io::Write;
    let path = dir.join(name);
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [MIB, 4096, 1] {
        let chunk = vec![1; size];
        while file.write_all(&chunk).is_ok() {}
    }
    path
}

#[tokio::test]
async fn a_full_disk_is_said_at_every_write_and_forgotten_when_there_is_room() {
    let test = "store::tests::full_disk::a_full_disk_is_said_at_every_write_and_forgotten_when_there_is_room";
    let Some(disk) = on_a_small_disk(test, "16m") else { return };
    let from = tempfile::tempdir().unwrap();
    let sender = Run::open(from.path()).await.unwrap();
    let mut sealer = sender.store.blobs.seal();
    sealer.write(&vec![3; 2 * MIB]).await.unwrap();
    let wanted = sealer.finish().await.unwrap();
    let manifest: Manifest = (*sender.store.blobs.manifest(wanted.root).await.unwrap()).clone();
    let segment = async |index| sender.store.blobs.segment(wanted.root, index).await.unwrap();

    let config = Config { dir: disk.join("data"), quota: u64::MAX, reserve: 0 };
    let run = Run::open_with(&config, 4096).await.unwrap();
    run.catch_up().await;
    for i in 0..20 {
        run.commit_note(&format!("{}-before", char::from(b'a' + i))).await;
    }
    let line = run.store.journal.close_segment().await.unwrap();
    // A transfer and a sealing that were begun while there was room.
    let incoming = run.store.blobs.receive(manifest.clone()).await.unwrap();
    incoming.write_segment(0, segment(0).await).await.unwrap();
    let mut sealer = run.store.blobs.seal();
    sealer.write(&vec![5; MIB + 5]).await.unwrap();
    let ballast = fill(&disk, "ballast");

    let full = |error: JournalError| assert!(matches!(error, JournalError::NoSpace { .. }), "{error}");
    let note = |i: usize| vec![Entry::new(&Note(format!("z{i}{}", "~".repeat(900))))];
    let mut accepted = 0;
    let refused = loop {
        match run.store.journal.commit(note(accepted)).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 100, "a page at most was left");
    };
    full(refused);
    assert!(run.store.journal.trouble().is_some(), "doctor can say so");
    let no_room = |error: &BlobError| assert!(matches!(error, BlobError::NoSpace { .. }), "{error}");
    no_room(&incoming.write_segment(1, segment(1).await).await.unwrap_err());
    no_room(&sealer.finish().await.unwrap_err());
    let mut another = run.store.blobs.seal();
    another.write(&vec![5; MIB]).await.unwrap();
    no_room(&another.finish().await.unwrap_err());
    let other = Manifest::new(MIB as u64 + 16, vec![ContentHash::of(b"x"); 1]).unwrap();
    no_room(&run.store.blobs.receive(other).await.err().unwrap());
    let judge = Judge::default()
        .on::<Note>(|note| if note.0.starts_with('a') { Verdict::Drop } else { Verdict::Keep });
    // What the sealings gave back is taken again.
    let more = fill(&disk, "more ballast");
    let compacted = run.store.journal.compact(line, judge).await;
    assert!(matches!(compacted, Err(CompactError::NoSpace { .. })), "{compacted:?}");
    // Small files of other rooms (api.json, keys) are replaced the same way: the old content stays.
    let small = disk.join("data/api.json");
    assert!(platform::replace_file(&small, &[b' '; 8192]).is_err());
    assert!(!small.exists() && !disk.join("data/api.new").exists());

    std::fs::remove_file(&ballast).unwrap();
    std::fs::remove_file(&more).unwrap();
    run.commit_note("after").await;
    assert!(run.store.journal.trouble().is_none());
    for index in [1, 2] {
        if incoming.missing().iter().any(|range| range.contains(&index)) {
            incoming.write_segment(index, segment(index).await).await.unwrap();
        }
    }
    incoming.finish().await.unwrap();
    drop(incoming);
    run.store.journal.rebuild_index().await.unwrap();
    let rows = run.indexed().len();
    run.stop().await;
    let run = Run::open_with(&config, 4096).await.unwrap();
    assert_eq!(run.notes().len(), 20 + accepted + 1, "{:?}", run.store.findings);
    assert!(!run.store.findings.iter().any(Finding::is_loss), "{:?}", run.store.findings);
    assert!(run.store.blobs.holds(wanted.root));
    run.catch_up().await;
    assert_eq!(run.indexed().len(), rows);
    run.stop().await;
    sender.stop().await;
}

/// The index writes when it likes: a full disk then breaks it, which costs a rebuild and no commit.
#[tokio::test]
async fn an_index_without_room_does_not_take_the_journal_along() {
    let test = "store::tests::full_disk::an_index_without_room_does_not_take_the_journal_along";
    let Some(disk) = on_a_small_disk(test, "16m") else { return };
    let config = Config { dir: disk.join("data"), quota: u64::MAX, reserve: 0 };
    let run = Run::open_with(&config, 1 << 20).await.unwrap();
    run.catch_up().await;
    let mut acknowledged = 0;
    // Both grow until nothing fits any more.
    loop {
        let entries = (0..200).map(|i| {
            Entry::new(&Note(format!("{}{i}{}", char::from(b'a' + (i % 26) as u8), "~".repeat(900))))
        });
        match run.store.journal.commit(entries.collect()).await {
            Ok(_) => acknowledged += 200,
            Err(error) => {
                assert!(matches!(error, JournalError::NoSpace { .. }), "{error}");
                break;
            }
        }
    }
    run.stop().await;
    std::fs::remove_dir_all(disk.join("data/index")).ok();
    let run = Run::open_with(&config, 1 << 20).await.unwrap();
    assert_eq!(run.notes().len(), acknowledged);
    run.stop().await;
}

#[tokio::test]
async fn a_start_on_a_full_disk_has_everything_but_room() {
    let test = "store::tests::full_disk::a_start_on_a_full_disk_has_everything_but_room";
    let Some(disk) = on_a_small_disk(test, "16m") else { return };
    let config = Config { dir: disk.join("data"), quota: u64::MAX, reserve: 0 };
    let run = Run::open_with(&config, 1 << 20).await.unwrap();
    run.catch_up().await;
    for i in 0..10 {
        run.commit_note(&format!("{i}-before")).await;
    }
    run.stop().await;
    // The worst of it: the index is damaged as well, and there is no room for another.
    std::fs::write(disk.join("data/index/db"), [0; 4096]).unwrap();
    let ballast = fill(&disk, "ballast");
    let run = Run::open_with(&config, 1 << 20).await.unwrap();
    assert_eq!(run.notes().len(), 10);
    assert!(!run.store.findings.iter().any(Finding::is_loss), "{:?}", run.store.findings);
    run.catch_up().await;
    let mut refused = None;
    for _ in 0..20 {
        let note = vec![Entry::new(&Note(format!("z{}", "~".repeat(900))))];
        refused = refused.or(run.store.journal.commit(note).await.err());
    }
    assert!(matches!(refused, Some(JournalError::NoSpace { .. })), "{refused:?}");
    std::fs::remove_file(&ballast).unwrap();
    run.commit_note("after").await;
    run.store.journal.rebuild_index().await.unwrap();
    assert!(run.store.index.trouble().is_none());
    assert!(run.indexed().iter().any(|(key, _)| key == b"a"));
    run.stop().await;
}

#[tokio::test]
async fn a_disk_that_turns_read_only_is_said() {
    let test = "store::tests::full_disk::a_disk_that_turns_read_only_is_said";
    let Some(disk) = on_a_small_disk(test, "16m") else { return };
    let config = Config { dir: disk.join("data"), quota: u64::MAX, reserve: 0 };
    let run = Run::open_with(&config, 4096).await.unwrap();
    run.commit_note("safe").await;
    run.stop().await;
    let remount = |how: &str| {
        let done = std::process::Command::new("mount").args(["-o", how]).arg(&disk).status().unwrap();
        assert!(done.success(), "mount -o {how}");
    };
    remount("remount,ro");
    let refused = Run::open_with(&config, 4096).await.err().unwrap();
    assert!(matches!(refused, OpenError::Dir { .. }), "{refused}");
    assert!(refused.to_string().contains("Read-only"), "{refused}");
    remount("remount,rw");
    let run = Run::open_with(&config, 4096).await.unwrap();
    assert_eq!(run.notes(), ["safe"]);
    run.stop().await;
}
