use super::*;

fn open(dir: &Path) -> (Index, Option<Watermark>, Vec<Finding>) {
    let lock =
        platform::private_file().write(true).create(true).truncate(false).open(dir.join("lock")).unwrap();
    let mut findings = Vec::new();
    let (index, watermark) = Index::open(&dir.join("index"), Arc::new(lock), &mut findings).unwrap();
    (index, watermark, findings)
}

fn watermark(end: u64) -> Watermark {
    Watermark { journal: *b"0123456789abcdef", end, crc: 0x0403_0201 }
}

fn fill(index: &Index, rows: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
    for chunk in (0..rows).collect::<Vec<_>>().chunks(500) {
        let mut batch = IndexBatch::default();
        for row in chunk {
            batch.put("rows", &row.to_be_bytes(), vec![7; 100]);
        }
        index.apply(batch, watermark(u64::from(*chunk.last().unwrap())));
    }
    index.tree("rows").scan_prefix(b"").map(Result::unwrap).collect()
}

#[test]
fn trees_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (index, none, _) = open(dir.path());
    assert_eq!(none, None);
    let mut batch = IndexBatch::default();
    for (tree, key) in [("a", "bc"), ("ab", "c"), ("a", "b"), ("a", "d")] {
        batch.put(tree, key.as_bytes(), format!("{tree}/{key}"));
    }
    batch.remove("a", b"d");
    index.apply(batch, watermark(9));
    let rows = |tree, prefix: &str| -> Vec<String> {
        let rows = index.tree(tree).scan_prefix(prefix.as_bytes()).map(Result::unwrap);
        rows.map(|(key, value)| format!("{}={}", key.escape_ascii(), value.escape_ascii())).collect()
    };
    assert_eq!(rows("a", ""), ["b=a/b", "bc=a/bc"]);
    assert_eq!(rows("a", "bc"), ["bc=a/bc"]);
    assert_eq!(rows("ab", ""), ["c=ab/c"]);
    assert_eq!(index.tree("a").get(b"b").unwrap(), Some(b"a/b".to_vec()));
    assert_eq!(index.tree("a").get(b"c").unwrap(), None);
    index.tree("hints").put(b"address", b"here").unwrap();
    drop(index);
    let (index, mark, findings) = open(dir.path());
    assert_eq!(findings, []);
    assert_eq!(
        (mark, index.tree("hints").get(b"address").unwrap()),
        (Some(watermark(9)), Some(b"here".to_vec()))
    );
}

#[test]
fn golden_bytes_of_the_watermark() {
    let bytes = watermark(258).encode();
    assert_eq!(
        data_encoding::HEXLOWER.encode(&bytes),
        "30313233343536373839616263646566020100000000000001020304"
    );
    assert_eq!(Watermark::decode(&bytes), Some(watermark(258)));
    assert_eq!(Watermark::decode(&bytes[1..]), None);
}

/// What is known to make sled's open fail, panic or hang: whatever it does here, the store opens.
#[test]
fn any_damage_opens_with_the_old_rows_or_with_none_and_a_finding() {
    for damage in ["page", "cut", "snapshot", "garbage"] {
        let dir = tempfile::tempdir().unwrap();
        let (index, ..) = open(dir.path());
        let rows = fill(&index, 5_000);
        drop(index);
        let database = dir.path().join("index/db");
        let mut bytes = fs::read(&database).unwrap();
        match damage {
            "page" => bytes[8192..12_288].fill(0),
            "cut" => bytes.truncate(bytes.len() / 3),
            "snapshot" => {
                for entry in fs::read_dir(dir.path().join("index")).unwrap() {
                    let path = entry.unwrap().path();
                    if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap.")) {
                        let half = fs::read(&path).unwrap();
                        fs::write(&path, &half[..half.len() / 2]).unwrap();
                    }
                }
            }
            _ => bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x55),
        }
        fs::write(&database, bytes).unwrap();
        let (index, mark, findings) = open(dir.path());
        let found: Vec<_> = index.tree("rows").scan_prefix(b"").collect::<Result<_, _>>().unwrap();
        let moved = matches!(findings[..], [Finding::DamagedIndex { ref moved_to, .. }] if moved_to.exists());
        assert!(
            moved && found.is_empty() && mark.is_none() || findings.is_empty() && found.len() <= rows.len(),
            "{damage}"
        );
        if mark == Some(watermark(4_999)) {
            assert!(found == rows, "{damage}: rows are missing below the watermark");
        }
    }
}

#[test]
fn an_open_that_hangs_or_panics_is_given_up() {
    let (release, held) = mpsc::channel::<()>();
    let hangs = watched(Duration::from_millis(20), move || {
        held.recv().ok();
        Ok(())
    });
    assert_eq!(hangs, Err("it did not open within 0 s".into()));
    drop(release);
    let panics = watched(OPEN_LIMIT, || -> sled::Result<()> { panic!("bug") });
    assert_eq!(panics, Err("sled panicked".into()));
}

#[test]
fn damaged_indexes_are_kept_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    for n in 1..=5 {
        fs::create_dir(&index).unwrap();
        fs::write(index.join("n"), [n]).unwrap();
        assert!(move_aside(&index).unwrap().ends_with(format!("index.corrupt-{n}")));
    }
    let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["index.corrupt-4", "index.corrupt-5"]);
}

/// sled lets go of its file some time after it was dropped; on a busy machine the next open came too early.
#[test]
fn an_index_can_be_opened_again_at_once() {
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..30 {
                    let dir = tempfile::tempdir().unwrap();
                    let (index, ..) = open(dir.path());
                    index.apply(IndexBatch::default(), watermark(9));
                    drop(index);
                    let (_, mark, findings) = open(dir.path());
                    assert_eq!((mark, findings), (Some(watermark(9)), vec![]));
                }
            });
        }
    });
}
