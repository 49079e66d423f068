//! What a bad disk or a careless hand does to the files: the journal opens, says what it found, and holds the rest.

use super::*;

/// What was lost, and which kinds.
fn losses(findings: &[Finding]) -> Vec<u16> {
    let lost = findings.iter().filter_map(|finding| match finding {
        Finding::LostRecords { kinds, .. } => Some(kinds.clone()),
        _ => None,
    });
    lost.flatten().collect()
}

#[test]
fn a_flipped_bit_costs_what_it_hit_and_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, ..) = open(dir.path()).unwrap();
    let all = ["a", "b", "c", "d", "e"];
    append(&mut writer, &[&["a"], &["b", "c"]]).unwrap();
    append(&mut writer, &[&["d"]]).unwrap();
    let last_batch = usize::try_from(fs::metadata(segment(dir.path())).unwrap().len()).unwrap();
    append(&mut writer, &[&["e"]]).unwrap();
    let unclosed = fs::read(segment(dir.path())).unwrap();
    writer.close().unwrap();
    let closed = fs::read(segment(dir.path())).unwrap();
    for (file, sure) in [(&unclosed, last_batch), (&closed, unclosed.len())] {
        for at in 0..file.len() {
            let damaged = tempfile::tempdir().unwrap();
            let mut bytes = file.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(segment(damaged.path()), &bytes).unwrap();
            let (mut writer, loaded, findings) = open(damaged.path()).unwrap();
            let kept = texts(&loaded);
            let mut gone: Vec<&str> = all.to_vec();
            gone.retain(|text| !kept.iter().any(|kept| kept == text));
            assert!(kept.is_sorted(), "flip at {at}: nothing is invented or moved: {kept:?}");
            if at >= sure {
                assert!(matches!(findings[..], [Finding::TornJournal { .. }]), "flip at {at}: {findings:?}");
                assert!(gone.iter().all(|text| *text == "e"));
            } else {
                assert!(!findings.is_empty(), "flip at {at}");
                let lost = findings.iter().any(Finding::is_loss);
                assert_eq!(lost, !gone.is_empty(), "flip at {at}: {gone:?} {findings:?}");
                // A length that cannot be trusted takes the rest of its batch along, anything else only itself.
                assert!(gone.len() <= 3, "flip at {at}: {gone:?}");
                let aside = fs::read_dir(damaged.path().join("damaged")).unwrap().next().unwrap().unwrap();
                assert_eq!(fs::read(aside.path()).unwrap(), bytes, "kept as it was");
            }
            append(&mut writer, &[&["f"]]).unwrap();
            let (_, loaded, findings) = open(damaged.path()).unwrap();
            assert_eq!(findings, [], "flip at {at}: said once, mended once");
            assert_eq!(texts(&loaded).last().unwrap(), "f");
            assert_eq!(texts(&loaded)[..kept.len()], kept);
        }
    }
}

#[test]
fn a_lost_record_is_named_by_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, ..) = open(dir.path()).unwrap();
    for text in ["first", "second", "third"] {
        append(&mut writer, &[&[text]]).unwrap();
    }
    let mut bytes = fs::read(segment(dir.path())).unwrap();
    let hit = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[hit] ^= 0x20;
    fs::write(segment(dir.path()), bytes).unwrap();
    let (_, loaded, findings) = open(dir.path()).unwrap();
    assert_eq!((texts(&loaded), losses(&findings)), (vec!["first".into(), "third".into()], vec![Note::KIND]));
}

/// A peer chooses what some records hold: bytes that look like an entry must not become one.
#[test]
fn a_record_inside_a_record_never_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, ..) = open(dir.path()).unwrap();
    let mut forged = Vec::new();
    push_entry(&mut forged, Note::KIND, Follow::End, &codec::encode_body(&Note("forged".into())));
    push_mark(&mut forged, b"not the journals", 500);
    let outer =
        Entry { kind: 9, limit: 4096, body: [&b"outer"[..], &forged].concat(), index: |_, _, _| Ok(()) };
    writer.append(&[&[outer]]).unwrap();
    append(&mut writer, &[&["behind"]]).unwrap();
    let whole = fs::read(segment(dir.path())).unwrap();
    for at in HEADER_LEN..whole.len() {
        let damaged = tempfile::tempdir().unwrap();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(segment(damaged.path()), bytes).unwrap();
        let (_, loaded, _) = open(damaged.path()).unwrap();
        let notes = loaded.segments.iter().flat_map(|s| s.entries.iter().filter(|e| e.kind == Note::KIND));
        assert!(notes.count() <= 1, "flip at {at}");
    }
}

#[test]
fn a_lost_end_that_the_index_knows_of_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, ..) = open(dir.path()).unwrap();
    append(&mut writer, &[&["a"]]).unwrap();
    let indexed = append(&mut writer, &[&["b"]]).unwrap();
    let whole = fs::read(segment(dir.path())).unwrap();
    fs::write(segment(dir.path()), &whole[..whole.len() - 1]).unwrap();
    let (_, loaded, findings) = open_with(dir.path(), SEGMENT_BYTES, Some(indexed)).unwrap();
    assert_eq!(texts(&loaded), ["a"]);
    assert!(
        matches!(findings[..], [Finding::TornJournal { .. }, Finding::LostEnd { bytes }] if bytes > 0),
        "{findings:?}"
    );
    let foreign = Watermark { journal: [0; 16], ..indexed };
    assert_eq!(open_with(dir.path(), SEGMENT_BYTES, Some(foreign)).unwrap().2, []);
    fs::remove_file(segment(dir.path())).unwrap();
    let (.., findings) = open_with(dir.path(), SEGMENT_BYTES, Some(indexed)).unwrap();
    assert_eq!(findings, [Finding::LostJournal]);
}

#[test]
fn damaged_and_missing_segments_cost_what_they_held() {
    type Damage = fn(&[PathBuf]);
    let cases: [(&str, Damage, &[&str], bool); 7] = [
        ("a middle one cut short", |paths| cut(&paths[1], 1), &["first segment", "third segment"], true),
        (
            "a middle one missing",
            |paths| fs::remove_file(&paths[1]).unwrap(),
            &["first segment", "third segment"],
            true,
        ),
        (
            "the first one missing",
            |paths| fs::remove_file(&paths[0]).unwrap(),
            &["second segment", "third segment"],
            true,
        ),
        ("a middle one zeroed", |paths| zero(&paths[1]), &["first segment", "third segment"], true),
        ("garbage behind a middle one", |paths| grow(&paths[1], b"garbage"), &super::rolled_notes(), false),
        ("zeros behind the newest", |paths| grow(&paths[2], &[0; 4096]), &super::rolled_notes(), false),
        ("a middle one's header zeroed", |paths| zero_header(&paths[1]), &super::rolled_notes(), false),
    ];
    for (name, damage, left, loss) in cases {
        let dir = tempfile::tempdir().unwrap();
        rolled(dir.path());
        damage(&segments(dir.path()));
        let (mut writer, loaded, findings) = open_with(dir.path(), 64, None).unwrap();
        assert_eq!(texts(&loaded), left, "{name}");
        assert_eq!(findings.iter().any(Finding::is_loss), loss, "{name}: {findings:?}");
        assert!(!findings.is_empty(), "{name}");
        append(&mut writer, &[&["more"]]).unwrap();
        let (_, loaded, findings) = open_with(dir.path(), 64, None).unwrap();
        assert_eq!(texts(&loaded).last().unwrap(), "more", "{name}");
        assert_eq!((texts(&loaded).len(), findings), (left.len() + 1, vec![]), "{name}");
    }
}

fn cut(path: &Path, bytes: usize) {
    let whole = fs::read(path).unwrap();
    fs::write(path, &whole[..whole.len() - bytes]).unwrap();
}

fn zero(path: &Path) {
    fs::write(path, vec![0; fs::read(path).unwrap().len()]).unwrap();
}

fn zero_header(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[..HEADER_LEN].fill(0);
    fs::write(path, bytes).unwrap();
}

fn grow(path: &Path, tail: &[u8]) {
    fs::write(path, [&fs::read(path).unwrap(), tail].concat()).unwrap();
}

/// What a hostile or rotten disk may hold: everything has the right checksum but the garbage.
#[derive(Clone, Debug)]
enum Part {
    Entry(u16, Follow, usize),
    /// At the right place, or anywhere.
    Mark(Option<u64>),
    /// So far ahead, or anywhere.
    Jump(Result<u64, u64>, u16),
    Garbage(Vec<u8>),
}

fn anywhere() -> impl Strategy<Value = u64> {
    prop_oneof![0..2_000_u64, Just(1 << 62), (1_u64 << 62) - 500..(1 << 62) + 500, any::<u64>()]
}

fn part() -> impl Strategy<Value = Part> {
    let follow = any::<bool>().prop_map(|more| if more { Follow::More } else { Follow::End });
    prop_oneof![
        3 => (1..6_u16, follow, 0..40_usize).prop_map(|(kind, follow, len)| Part::Entry(kind, follow, len)),
        3 => Just(Part::Mark(None)),
        1 => anywhere().prop_map(|at| Part::Mark(Some(at))),
        1 => (1..500_u64, Just(0)).prop_map(|(by, flag)| Part::Jump(Ok(by), flag)),
        1 => (anywhere(), prop_oneof![Just(0), Just(0x8000)]).prop_map(|(to, flag)| Part::Jump(Err(to), flag)),
        1 => proptest::collection::vec(any::<u8>(), 1..30).prop_map(Part::Garbage),
    ]
}

proptest! {
    #[test]
    fn whatever_marks_and_jumps_say_positions_only_grow(
        start in anywhere(),
        parts in proptest::collection::vec(part(), 0..16),
    ) {
        let (mut bytes, mut at) = (Vec::new(), start);
        for part in parts {
            let before = bytes.len();
            match part {
                Part::Entry(kind, follow, len) => push_entry(&mut bytes, kind, follow, &vec![5; len]),
                Part::Mark(place) => push_mark(&mut bytes, &[7; 16], place.unwrap_or(at)),
                Part::Jump(to, flag) => {
                    let to = to.map_or_else(|to| to, |by| at.saturating_add(by));
                    push_entry(&mut bytes, 0x7fff | flag, Follow::End, &to.to_le_bytes());
                    at = to;
                    continue;
                }
                Part::Garbage(garbage) => bytes.extend(garbage),
            }
            at = at.saturating_add((bytes.len() - before) as u64);
        }
        crate::store::fuzzing::journal(&[&start.to_le_bytes()[..], &bytes].concat());
    }
}
