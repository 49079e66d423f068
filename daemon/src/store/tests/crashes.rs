//! Power cuts at every change that the store makes to its disk: what was acknowledged is there, and the store opens.

use std::collections::BTreeSet;

use scenemesh_protocol::sealed::Manifest;

use super::*;
use crate::store::disk::tape::{Change, Cut, Tape, after_power_cut, lay_out};

/// Cuts by chance for every point, beside the certain ones.
const CHANCES: u64 = 12;

fn cuts(point: usize, seed: u64) -> impl Iterator<Item = Cut> {
    let chances = (0..CHANCES).map(move |n| Cut::Chance(seed ^ (point as u64 * CHANCES + n)));
    Cut::CERTAIN.into_iter().chain(chances)
}

fn told(changes: &[Change]) -> (Vec<String>, BTreeSet<String>) {
    let mut acknowledged = Vec::new();
    let mut begun = BTreeSet::new();
    for change in changes {
        match change {
            Change::Acknowledged(what) => acknowledged.push(what.clone()),
            Change::Begun(what) => drop(begun.insert(what.clone())),
            _ => {}
        }
    }
    (acknowledged, begun)
}

/// Two records in one commit, so that half a commit would be seen.
async fn commit_pair(run: &Run, tape: &Tape, name: &str) {
    tape.note(Change::Begun(name.into()));
    let pair = [format!("{name}-first"), format!("{name}-second")];
    let entries = pair.iter().map(|text| Entry::new(&Note(format!("{text}{}", "~".repeat(300))))).collect();
    run.store.journal.commit(entries).await.unwrap();
    tape.note(Change::Acknowledged(name.into()));
}

#[tokio::test]
async fn a_power_cut_at_any_write_loses_nothing_that_was_acknowledged() {
    let seed = 0x5ce3_e3e5;
    let dir = tempfile::tempdir().unwrap();
    let tape = Tape::default();
    let config = Config { quota: 1 << 30, reserve: 0, ..Config::at(dir.path()) };
    let run = Run::open_on(&config, 1500, Arc::new(tape.clone())).await.unwrap();
    for i in 0..7 {
        commit_pair(&run, &tape, &format!("x{i}")).await;
        commit_pair(&run, &tape, &format!("k{i}")).await;
    }
    // A compaction too: what begins with x may go.
    let line = run.store.journal.close_segment().await.unwrap();
    let judge = Judge::default().on::<Note>(|note| match note.0.as_bytes()[0] {
        b'x' => Verdict::Drop,
        _ => Verdict::Keep,
    });
    tape.note(Change::Begun("compaction".into()));
    assert_eq!(run.store.journal.compact(line, judge).await.unwrap().records, 14);
    commit_pair(&run, &tape, "k-last").await;
    run.stop().await;
    let changes = tape.changes();
    let mut images = 0;
    let mut seen = BTreeSet::new();
    for point in 0..=changes.len() {
        let (acknowledged, begun) = told(&changes[..point]);
        for cut in cuts(point, seed) {
            let files = after_power_cut(&changes[..point], cut);
            let mut journal = files.clone();
            journal.retain(|path, _| path.starts_with(dir.path().join("journal")));
            let new = seen.insert((acknowledged.len(), begun.len(), journal.clone()));
            if !new {
                continue;
            }
            images += 1;
            let after = tempfile::tempdir().unwrap();
            lay_out(&journal, dir.path(), after.path());
            let mut findings = Vec::new();
            let opening = Opening {
                dir: &after.path().join("journal"),
                aside: &after.path().join("damaged"),
                segment_bytes: 1500,
                disk: Arc::new(RealDisk),
                findings: &mut findings,
            };
            let case = format!("seed {seed:#x}, change {point} of {}, {cut:?}", changes.len());
            let (_, loaded) = opening.open(None).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(!findings.iter().any(Finding::is_loss), "{case}: {findings:?}");
            let bodies =
                loaded.segments.iter().flat_map(|s| s.entries.iter().map(|e| &s.file[e.body.clone()]));
            let notes: Vec<String> = bodies
                .map(|body| scenemesh_protocol::codec::decode_body::<Note>(body, Note::LIMIT).unwrap().0)
                .map(|text| text.trim_end_matches('~').to_owned())
                .collect();
            let compacting = begun.contains("compaction");
            for name in acknowledged.iter().filter(|name| !(compacting && name.starts_with('x'))) {
                assert!(notes.contains(&format!("{name}-first")), "{case}: {name} is lost");
            }
            for note in &notes {
                let (name, half) = note.rsplit_once('-').unwrap();
                let other = if half == "first" { "second" } else { "first" };
                assert!(begun.contains(name), "{case}: {note} comes from nowhere");
                assert!(notes.contains(&format!("{name}-{other}")), "{case}: half of {name}");
            }
        }
    }
    assert!(images > 100, "{images} images of {} changes", changes.len());
}

#[tokio::test]
async fn a_power_cut_at_any_write_leaves_blobs_whole_or_resumable() {
    let seed = 0xb10b;
    let (dir, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tape = Tape::default();
    let config = Config { quota: 1 << 30, reserve: 0, ..Config::at(dir.path()) };
    let run = Run::open_on(&config, 1 << 20, Arc::new(tape.clone())).await.unwrap();
    let sender = Run::open(from.path()).await.unwrap();
    let plain = vec![7; (2 << 20) + 77];
    // One that is sealed here.
    let mut sealer = run.store.blobs.seal();
    sealer.write(&plain).await.unwrap();
    let sealed = sealer.finish().await.unwrap();
    tape.note(Change::Acknowledged(sealed.root.to_string()));
    // One that arrives, with a break.
    let mut sealer = sender.store.blobs.seal();
    sealer.write(&plain).await.unwrap();
    let wanted = sealer.finish().await.unwrap();
    let manifest: Manifest = (*sender.store.blobs.manifest(wanted.root).await.unwrap()).clone();
    for indexes in [&[2, 0][..], &[1]] {
        let incoming = run.store.blobs.receive(manifest.clone()).await.unwrap();
        for index in indexes {
            let segment = sender.store.blobs.segment(wanted.root, *index).await.unwrap();
            incoming.write_segment(*index, segment).await.unwrap();
        }
        if incoming.missing().is_empty() {
            incoming.finish().await.unwrap();
            tape.note(Change::Acknowledged(wanted.root.to_string()));
        }
    }
    run.stop().await;
    let changes = tape.changes();
    let mut resumed = 0;
    for point in 0..=changes.len() {
        let (acknowledged, _) = told(&changes[..point]);
        for cut in [Cut::NothingKept, Cut::OnlyNames, Cut::Chance(seed + point as u64)] {
            let files = after_power_cut(&changes[..point], cut);
            let after = tempfile::tempdir().unwrap();
            lay_out(&files, dir.path(), after.path());
            let case = format!("seed {seed:#x}, change {point} of {}, {cut:?}", changes.len());
            let run = Run::open(after.path()).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            let blobs = &run.store.blobs;
            for blob in [&sealed, &wanted] {
                let held = blobs.holds(blob.root);
                assert!(held || !acknowledged.contains(&blob.root.to_string()), "{case}: a blob is lost");
                if held {
                    assert_eq!(read_back(blobs, blob).await, plain, "{case}");
                }
            }
            if !blobs.holds(wanted.root) {
                let incoming = blobs.receive(manifest.clone()).await.unwrap();
                let missing: Vec<u32> = incoming.missing().into_iter().flatten().collect();
                resumed += usize::from(missing.len() < 3);
                for index in missing {
                    let segment = sender.store.blobs.segment(wanted.root, index).await.unwrap();
                    incoming.write_segment(index, segment).await.unwrap();
                }
                incoming.finish().await.unwrap();
                drop(incoming);
                assert_eq!(read_back(blobs, &wanted).await, plain, "{case}: resumed over what was not safe");
            }
            run.stop().await;
        }
    }
    assert!(resumed > 3, "resumed {resumed} times");
    sender.stop().await;
}

async fn read_back(blobs: &Blobs, sealed: &Sealed) -> Vec<u8> {
    let mut opener = blobs.open(sealed.root, &sealed.key).await.unwrap();
    let mut plain = Vec::new();
    while let Some(piece) = opener.next().await.unwrap() {
        plain.extend_from_slice(&piece);
    }
    plain
}
