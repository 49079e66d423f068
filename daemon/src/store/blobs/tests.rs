use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::tests::{Run, on_a_small_disk};
use super::*;
use crate::store::Config;
use crate::store::disk::{Disk, Existing, RealDisk};

const MIB: usize = 1 << 20;

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_derive_key("scenemesh test noise").finalize_xof().fill(&mut bytes);
    bytes
}

async fn seal(blobs: &Blobs, plain: &[u8]) -> Sealed {
    let mut sealer = blobs.seal();
    for piece in plain.chunks(300_000) {
        sealer.write(piece).await.unwrap();
    }
    sealer.finish().await.unwrap()
}

async fn read(blobs: &Blobs, sealed: &Sealed) -> Result<Vec<u8>, BlobError> {
    let mut opener = blobs.open(sealed.root, &sealed.key).await?;
    let mut plain = Vec::new();
    while let Some(piece) = opener.next().await? {
        plain.extend_from_slice(&piece);
    }
    Ok(plain)
}

fn names(dir: &Path) -> Vec<String> {
    let listed = std::fs::read_dir(dir.join("blobs")).unwrap();
    let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn sealed_files_read_back_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    let mut all = Vec::new();
    for len in [0, 1, MIB - 1, MIB, MIB + 1, 7 * MIB + 12_345] {
        let plain = noise(len);
        let sealed = seal(&run.store.blobs, &plain).await;
        assert_eq!(sealed.bytes, len as u64);
        let manifest = run.store.blobs.manifest(sealed.root).await.unwrap();
        assert_eq!((manifest.plain_bytes(), manifest.sealed_bytes()), (sealed.bytes, sealed.sealed_bytes));
        all.push((plain, sealed));
    }
    let used = run.store.blobs.used_bytes();
    run.stop().await;
    let run = Run::open(dir.path()).await.unwrap();
    assert_eq!((run.store.blobs.used_bytes(), run.replay.findings()), (used, &[][..]));
    for (plain, sealed) in &all {
        assert!(read(&run.store.blobs, sealed).await.unwrap() == *plain);
    }
    run.stop().await;
}

#[tokio::test]
async fn a_transfer_resumes_where_it_stopped_even_after_a_restart() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sender = Run::open(from.path()).await.unwrap();
    let plain = noise(5 * MIB + 77);
    let sealed = seal(&sender.store.blobs, &plain).await;
    let manifest = (*sender.store.blobs.manifest(sealed.root).await.unwrap()).clone();
    let fetch = async |incoming: &Incoming, index| {
        incoming.write_segment(index, sender.store.blobs.segment(sealed.root, index).await.unwrap()).await
    };
    let receiver = Run::open(to.path()).await.unwrap();
    let incoming = receiver.store.blobs.receive(manifest.clone()).await.unwrap();
    for index in [4, 1, 1] {
        fetch(&incoming, index).await.unwrap();
    }
    let wrong = incoming.write_segment(0, Bytes::from_static(b"no segment")).await.unwrap_err();
    assert!(matches!(wrong, BlobError::Segment { .. }), "{wrong}");
    drop(incoming);
    let incoming = receiver.store.blobs.receive(manifest.clone()).await.unwrap();
    assert_eq!(incoming.missing(), [0..1, 2..4, 5..6]);
    fetch(&incoming, 0).await.unwrap();
    drop(incoming);
    receiver.stop().await;

    let receiver = Run::open(to.path()).await.unwrap();
    assert_eq!(receiver.store.blobs.used_bytes(), sealed.sealed_bytes);
    let incoming = receiver.store.blobs.receive(manifest.clone()).await.unwrap();
    assert_eq!(incoming.missing(), [2..4, 5..6]);
    let early = incoming.finish().await.unwrap_err();
    assert!(matches!(early, BlobError::Incomplete { missing: 3, .. }), "{early}");
    for index in [2, 3, 5] {
        fetch(&incoming, index).await.unwrap();
    }
    assert!(!receiver.store.blobs.holds(sealed.root));
    incoming.finish().await.unwrap();
    incoming.finish().await.unwrap();
    drop(incoming);
    assert!(read(&receiver.store.blobs, &sealed).await.unwrap() == plain);
    let again = receiver.store.blobs.receive(manifest).await.unwrap();
    assert!(again.missing().is_empty());
    again.finish().await.unwrap();
    assert_eq!(names(to.path()), [format!("{}.blob", sealed.root), format!("{}.manifest", sealed.root)]);
    drop(again);
    receiver.stop().await;
    sender.stop().await;
}

#[tokio::test]
async fn damage_on_disk_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    let sealed = seal(&run.store.blobs, &noise(2 * MIB)).await;
    let path = dir.path().join("blobs").join(format!("{}.blob", sealed.root));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[MIB + 100] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = read(&run.store.blobs, &sealed).await.unwrap_err();
    assert!(error.to_string().ends_with("segment 1 does not match the hash in its manifest"), "{error}");
    std::fs::write(&path, &bytes[..MIB]).unwrap();
    assert!(matches!(read(&run.store.blobs, &sealed).await, Err(BlobError::Segment { .. })));
    let other = Sealed { key: BlobKey::generate(), ..seal(&run.store.blobs, b"x").await };
    let error = read(&run.store.blobs, &other).await.unwrap_err();
    assert!(error.to_string().contains("does not open"), "{error}");
    run.stop().await;
}

#[tokio::test]
async fn quota_and_reserve_refuse_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { dir: dir.path().into(), quota: 2 * MIB as u64, reserve: 0 };
    let run = Run::open_with(&config, 4096).await.unwrap();
    let small = seal(&run.store.blobs, &noise(MIB / 2)).await;
    let mut sealer = run.store.blobs.seal();
    let mut refused = None;
    for piece in noise(3 * MIB).chunks(MIB) {
        refused = refused.or(sealer.write(piece).await.err());
    }
    let refused = match refused {
        Some(error) => error,
        None => sealer.finish().await.unwrap_err(),
    };
    assert!(matches!(refused, BlobError::Quota { .. } | BlobError::Abandoned), "{refused}");
    let big = Manifest::new(3 * (MIB as u64 + 16), vec![small.root; 3]).unwrap();
    let refused = run.store.blobs.receive(big).await.err().unwrap();
    assert!(matches!(refused, BlobError::Quota { quota: 2_097_152, .. }), "{refused}");
    run.stop().await;

    let run = Run::open_with(&Config { reserve: u64::MAX / 2, ..config }, 4096).await.unwrap();
    let mut sealer = run.store.blobs.seal();
    sealer.write(b"x").await.unwrap();
    let refused = sealer.finish().await.unwrap_err();
    assert!(matches!(refused, BlobError::NoSpace { .. }), "{refused}");
    run.stop().await;
    assert_eq!(names(dir.path()).len(), 2, "the small one and its manifest");
}

#[tokio::test]
async fn removing_and_sweeping_give_the_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    let blobs = &run.store.blobs;
    let [kept, gone, swept] =
        [seal(blobs, b"kept").await, seal(blobs, b"gone").await, seal(blobs, b"swept").await];
    blobs.remove(gone.root).await.unwrap();
    blobs.remove(gone.root).await.unwrap();
    assert!(matches!(read(blobs, &gone).await, Err(BlobError::Unknown { .. })));
    let keep = HashSet::from([kept.root]);
    assert_eq!(blobs.sweep(keep.clone()).await.unwrap(), Swept::default(), "too fresh to be swept");
    run.stop().await;
    let run = Run::open(dir.path()).await.unwrap();
    let blobs = &run.store.blobs;
    assert_eq!(blobs.sweep(keep).await.unwrap(), Swept { blobs: 1, bytes: swept.sealed_bytes });
    assert_eq!(blobs.used_bytes(), kept.sealed_bytes);
    assert!(blobs.holds(kept.root) && !blobs.holds(swept.root));
    run.stop().await;
}

#[tokio::test]
async fn what_a_kill_leaves_behind_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    let sealed = seal(&run.store.blobs, b"whole").await;
    let mut dropped = run.store.blobs.seal();
    dropped.write(&noise(2 * MIB)).await.unwrap();
    drop(dropped);
    run.stop().await;
    assert_eq!(names(dir.path()).len(), 2, "a dropped sealing leaves nothing");
    let root = ContentHash::of(b"x");
    for name in ["abc.sealing".into(), format!("{root}.part"), format!("{root}.have"), format!("{root}.blob")]
    {
        std::fs::write(dir.path().join("blobs").join(name), b"12345").unwrap();
    }
    let run = Run::open(dir.path()).await.unwrap();
    assert_eq!(run.replay.findings(), [Finding::BlobLeftovers { files: 4, bytes: 20 }]);
    assert_eq!(run.store.blobs.used_bytes(), sealed.sealed_bytes);
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_read_and_write_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    let blobs = &run.store.blobs;
    let plain = noise(2 * MIB + 3);
    let sealed = futures::future::join_all((0..4).map(|_| seal(blobs, &plain))).await;
    let roots: HashSet<_> = sealed.iter().map(|sealed| sealed.root).collect();
    assert_eq!(roots.len(), 4, "every sealing has a key of its own");
    let reads = sealed.iter().chain(&sealed).map(|sealed| read(blobs, sealed));
    for read in futures::future::join_all(reads).await {
        assert!(read.unwrap() == plain);
    }
    assert_eq!(blobs.used_bytes(), sealed.iter().map(|sealed| sealed.sealed_bytes).sum::<u64>());
    run.stop().await;
}

#[tokio::test]
async fn two_transfers_of_one_blob_take_turns() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (sender, receiver) = (Run::open(from.path()).await.unwrap(), Run::open(to.path()).await.unwrap());
    let sealed = seal(&sender.store.blobs, b"wanted twice").await;
    let manifest = (*sender.store.blobs.manifest(sealed.root).await.unwrap()).clone();
    let first = receiver.store.blobs.receive(manifest.clone()).await.unwrap();
    let mut second = Box::pin(receiver.store.blobs.receive(manifest));
    assert!(futures::poll!(&mut second).is_pending());
    receiver.store.blobs.remove(sealed.root).await.unwrap();
    assert_eq!(receiver.store.blobs.sweep(HashSet::new()).await.unwrap(), Swept::default());
    first.write_segment(0, sender.store.blobs.segment(sealed.root, 0).await.unwrap()).await.unwrap();
    first.finish().await.unwrap();
    drop(first);
    let second = second.await.unwrap();
    assert!(second.missing().is_empty());
    drop(second);
    receiver.stop().await;
    sender.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_refuses_blobs_and_keeps_room_for_the_journal() {
    let test = "store::blobs::tests::a_full_disk_refuses_blobs_and_keeps_room_for_the_journal";
    let Some(dir) = on_a_small_disk(test, "16m") else { return };
    for reserve in [2 * MIB as u64, 0] {
        let config = Config { dir: dir.join("data"), quota: u64::MAX, reserve };
        let run = Run::open_with(&config, 1 << 20).await.unwrap();
        let blobs = &run.store.blobs;
        let mut sealer = blobs.seal();
        let mut written = Ok(());
        for piece in noise(32 * MIB).chunks(MIB) {
            written = sealer.write(piece).await;
            if written.is_err() {
                break;
            }
        }
        let refused = written.unwrap_err();
        assert!(matches!(refused, BlobError::NoSpace { .. }), "{refused}");
        let big = Manifest::new(20 * (MIB as u64 + 16), vec![ContentHash::of(b"x"); 20]).unwrap();
        let refused = blobs.receive(big).await.err().unwrap();
        assert!(matches!(refused, BlobError::NoSpace { .. }), "{refused}");
        if reserve > 0 {
            run.commit_note("still recorded").await;
        }
        drop(sealer);
        run.stop().await;
        assert!(names(&config.dir).is_empty(), "{:?}", names(&config.dir));
        let run = Run::open_with(&config, 1 << 20).await.unwrap();
        assert_eq!(run.store.blobs.used_bytes(), 0);
        let small = seal(&run.store.blobs, b"fits again").await;
        run.store.blobs.remove(small.root).await.unwrap();
        run.stop().await;
    }
}

#[tokio::test]
async fn what_is_kept_stays_until_it_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    let sealed = seal(&run.store.blobs, b"uploaded").await;
    run.stop().await;
    let run = Run::open(dir.path()).await.unwrap();
    let blobs = &run.store.blobs;
    blobs.keep(sealed.root);
    blobs.remove(sealed.root).await.unwrap();
    assert_eq!(blobs.sweep(HashSet::new()).await.unwrap(), Swept::default());
    assert_eq!(read(blobs, &sealed).await.unwrap(), b"uploaded");
    blobs.release(sealed.root);
    blobs.remove(sealed.root).await.unwrap();
    assert!(!blobs.holds(sealed.root));
    run.stop().await;
}

#[tokio::test]
async fn reading_begins_where_it_is_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    let plain: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let sealed = seal(&run.store.blobs, &plain).await;
    for from in [0, 1, 1 << 20, (1 << 20) + 7, 2_999_999] {
        let mut opener = run.store.blobs.open(sealed.root, &sealed.key).await.unwrap();
        let skip = opener.seek(from as u64);
        let mut got = Vec::new();
        while let Some(chunk) = opener.next().await.unwrap() {
            got.extend_from_slice(&chunk);
        }
        assert!(got[skip..] == plain[from..], "from {from}");
    }
    run.stop().await;
}

/// The system tells of a write that failed once, at the next sync, and of no other.
#[derive(Debug, Default)]
struct FailsOneSync {
    failed: AtomicBool,
}

impl Disk for FailsOneSync {
    fn create(&self, path: &Path, existing: Existing) -> io::Result<File> {
        RealDisk.create(path, existing)
    }

    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        RealDisk.write_all_at(file, bytes, offset)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        RealDisk.set_len(file, len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        let long = file.metadata()?.len() > 8 * MIB as u64;
        if long && !self.failed.swap(true, Ordering::Relaxed) {
            return Err(io::Error::other("the disk dropped a write"));
        }
        RealDisk.sync_data(file)
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        RealDisk.sync_all(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

#[tokio::test]
async fn a_sync_that_fails_in_the_middle_of_a_sealing_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { quota: 1 << 30, reserve: 0, ..Config::at(dir.path()) };
    let disk = Arc::new(FailsOneSync::default());
    let run = Run::open_on(&config, 1 << 20, disk.clone()).await.unwrap();
    let plain = noise(MIB);
    let seal_long = async || {
        let mut sealer = run.store.blobs.seal();
        for _ in 0..70 {
            sealer.write(&plain).await?;
        }
        // Whenever the sync in the background ends: this one would be told that all is well.
        sealer.finish().await
    };
    let refused = seal_long().await.unwrap_err();
    assert!(disk.failed.load(Ordering::Relaxed), "nothing was synced before the end");
    assert!(matches!(refused, BlobError::Io { .. }), "{refused}");
    let sealed = seal_long().await.unwrap();
    assert_eq!(sealed.bytes, 70 * MIB as u64);
    run.stop().await;
}
