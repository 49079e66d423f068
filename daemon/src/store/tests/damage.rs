//! Damage to the journal and the index together, through the door.

use super::*;
use scenemesh_protocol::codec;

fn newest_snapshot(index: &Path) -> PathBuf {
    let names = std::fs::read_dir(index).unwrap().map(|entry| entry.unwrap().path());
    let snapshots = names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap."));
    snapshots.max().unwrap_or_else(|| index.join("snap.0000000000000001"))
}

/// What is known to make sled fail, hang or panic: none of it costs a record, and the index has all rows again.
#[tokio::test]
async fn any_damage_to_the_index_costs_a_rebuild_and_nothing_else() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 7] = [
        ("gone", |index| std::fs::remove_dir_all(index).unwrap()),
        ("database zeroed", |index| {
            let len = std::fs::metadata(index.join("db")).unwrap().len();
            std::fs::write(index.join("db"), vec![0; len as usize]).unwrap();
        }),
        ("database cut", |index| {
            let bytes = std::fs::read(index.join("db")).unwrap();
            std::fs::write(index.join("db"), &bytes[..bytes.len() / 3]).unwrap();
        }),
        ("half a snapshot being made", |index| {
            std::fs::write(index.join("snap.00000000000000FF.generating"), b"half").unwrap();
        }),
        ("an empty snapshot", |index| std::fs::write(newest_snapshot(index), b"").unwrap()),
        ("garbage for a snapshot", |index| std::fs::write(newest_snapshot(index), [0x5a; 700]).unwrap()),
        ("a file in its place", |index| {
            std::fs::remove_dir_all(index).unwrap();
            std::fs::write(index, b"not a directory").unwrap();
        }),
    ];
    for (name, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::open(dir.path()).await.unwrap();
        run.catch_up().await;
        for i in 0..40 {
            run.commit_note(&format!("{}{i}", char::from(b'a' + i % 26))).await;
        }
        let (rows, notes) = (run.indexed(), 40);
        run.stop().await;
        damage(&dir.path().join("index"));
        let run = Run::open(dir.path()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        run.catch_up().await;
        assert_eq!((run.notes().len(), run.indexed() == rows), (notes, true), "{name}");
        assert!(!run.store.findings.iter().any(Finding::is_loss), "{name}: {:?}", run.store.findings);
        run.stop().await;
    }
}

/// A journal that was put back from a backup, with the index of today.
#[tokio::test]
async fn an_older_journal_under_a_newer_index_is_noticed() {
    let (dir, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = Run::open(dir.path()).await.unwrap();
    run.commit_note("old").await;
    copy(dir.path(), backup.path());
    run.commit_note("new").await;
    run.stop().await;
    std::fs::remove_dir_all(dir.path().join("journal")).unwrap();
    std::fs::rename(backup.path().join("journal"), dir.path().join("journal")).unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    assert!(matches!(run.store.findings[..], [Finding::LostEnd { .. }]), "{:?}", run.store.findings);
    run.catch_up().await;
    let rows = run.indexed();
    assert_eq!(
        (run.notes(), rows.len()),
        (vec!["old".to_owned()], 1),
        "the index says nothing that is not so"
    );
    run.commit_note("again").await;
    run.stop().await;
    let run = Run::open(dir.path()).await.unwrap();
    assert_eq!((run.notes().len(), &*run.store.findings), (2, &[][..]));
    run.stop().await;
}

#[tokio::test]
async fn the_index_is_rebuilt_while_the_node_runs() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    run.catch_up().await;
    for text in ["apple", "pear", "plum"] {
        run.commit_note(text).await;
    }
    let rows = run.indexed();
    // A hint is not in the journal: a rebuild forgets it.
    run.store.index.tree("hints").put(b"x", b"y").unwrap();
    assert_eq!(run.store.journal.rebuild_index().await.unwrap(), 3);
    assert_eq!((run.indexed(), run.store.index.tree("hints").get(b"x").unwrap()), (rows.clone(), None));
    run.store.index.break_off("for a test");
    assert!(run.store.index.trouble().is_some());
    // The next commit notices, and it follows again.
    run.commit_note("quince").await;
    run.store.journal.close_segment().await.unwrap();
    assert_eq!(run.indexed().len(), rows.len() + 1);
    assert!(run.store.index.trouble().is_none());
    run.stop().await;
    let run = Run::open(dir.path()).await.unwrap();
    assert!(!run.replay.index_is_behind());
    run.stop().await;
}

#[tokio::test]
async fn a_record_lost_in_the_middle_is_named_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    for text in ["apple", "pear", "plum"] {
        run.commit_note(text).await;
    }
    run.stop().await;
    let path = dir.path().join("journal").join(format!("{:020}.log", 0));
    let mut bytes = std::fs::read(&path).unwrap();
    let body = codec::encode_body(&Note("pear".into()));
    let hit = bytes.windows(body.len()).position(|window| window == body).unwrap();
    bytes[hit + body.len() - 1] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    let [Finding::LostRecords { kinds, kept, .. }] = &run.store.findings[..] else {
        panic!("{:?}", run.store.findings)
    };
    assert_eq!((&kinds[..], std::fs::read(kept).unwrap()), (&[Note::KIND][..], bytes));
    assert_eq!(run.notes(), ["apple", "plum"]);
    run.stop().await;
}
