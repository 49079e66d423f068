use std::time::Duration;

use scenemesh_protocol::codec::{Decode, Encode};

use super::*;
use crate::supervisor::Supervisor;

#[cfg(unix)]
mod crashes;
mod damage;
#[cfg(target_os = "linux")]
mod full_disk;
mod moving;

/// One run of a node's store; `stop` waits until nothing of it is left.
pub(super) struct Run {
    supervisor: Supervisor,
    pub(super) store: Store,
    pub(super) replay: Replay,
}

impl Run {
    pub(super) async fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(&Config { quota: 1 << 30, reserve: 0, ..Config::at(dir) }, 4096).await
    }

    pub(super) async fn open_with(config: &Config, segment_bytes: u64) -> Result<Self, OpenError> {
        Self::open_on(config, segment_bytes, Arc::new(RealDisk)).await
    }

    pub(super) async fn open_on(
        config: &Config,
        segment_bytes: u64,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, OpenError> {
        let supervisor = Supervisor::new(Duration::from_secs(20));
        let (store, replay) = super::open_with(config, &supervisor.tasks(), segment_bytes, disk).await?;
        Ok(Self { supervisor, store, replay })
    }

    pub(super) async fn stop(self) {
        let Self { supervisor, store, replay } = self;
        drop((store, replay));
        supervisor.run_until(async {}).await.unwrap();
    }

    fn notes(&self) -> Vec<String> {
        self.replay.records::<Note>().map(|record| record.unwrap().1.0).collect()
    }

    pub(super) async fn commit_note(&self, text: &str) -> Position {
        self.store.journal.commit(vec![Entry::new(&Note(text.into()))]).await.unwrap()
    }

    async fn catch_up(&self) -> u64 {
        self.replay.index().apply::<Note>().apply::<Forget>().finish().await.unwrap()
    }

    fn indexed(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.store.index.tree("notes").scan_prefix(b"").map(Result::unwrap).collect()
    }
}

/// Indexes its text by its first letter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Note(pub(super) String);

impl Record for Note {
    const KIND: u16 = 7;
    const LIMIT: usize = 1024;

    fn index(&self, at: Position, batch: &mut IndexBatch) {
        batch.put("notes", &self.0.as_bytes()[..1], format!("{} at {at}", self.0));
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Forget(char);

impl Record for Forget {
    const KIND: u16 = 8;
    const LIMIT: usize = 16;

    fn index(&self, _at: Position, batch: &mut IndexBatch) {
        batch.remove("notes", self.0.to_string().as_bytes());
    }
}

#[tokio::test]
async fn what_was_committed_is_replayed_and_indexed() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    assert!(run.notes().is_empty());
    run.commit_note("apple").await;
    run.commit_note("pear").await;
    run.store.journal.commit(vec![Entry::new(&Forget('p')), Entry::new(&Note("plum".into()))]).await.unwrap();
    let before = run.indexed();
    assert_eq!(before.len(), 2);
    run.stop().await;
    let run = Run::open(dir.path()).await.unwrap();
    assert_eq!(run.notes(), ["apple", "pear", "plum"]);
    assert_eq!(run.replay.records::<Forget>().count(), 1);
    assert_eq!((run.indexed(), run.replay.findings()), (before, &[][..]));
    run.stop().await;
}

#[tokio::test]
async fn a_data_directory_has_one_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    let second = Run::open(dir.path()).await.err().unwrap();
    assert!(matches!(second, OpenError::Locked { .. }), "{second}");
    run.stop().await;
    Run::open(dir.path()).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_lost_or_damaged_index_is_rebuilt_from_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let mut expected = Vec::new();
    for damage in ["nothing", "deleted", "zeroed"] {
        match damage {
            "deleted" => std::fs::remove_dir_all(&index).unwrap(),
            "zeroed" => {
                for file in ["db", "conf"] {
                    let path = index.join(file);
                    let len = std::fs::metadata(&path).unwrap().len();
                    std::fs::write(&path, vec![0; usize::try_from(len).unwrap()]).unwrap();
                }
            }
            _ => {}
        }
        let run = Run::open(dir.path()).await.unwrap();
        if run.replay.index_is_behind() {
            assert!(matches!(run.store.index.tree("notes").get(b"a"), Err(IndexError::Behind)), "{damage}");
        }
        let moved = run.replay.findings().iter().any(|f| matches!(f, Finding::DamagedIndex { .. }));
        assert_eq!(moved, damage == "zeroed");
        // Committed before the rebuild, indexed after it.
        run.store.journal.commit(vec![Entry::new(&Forget('x'))]).await.unwrap();
        run.catch_up().await;
        assert_eq!(run.indexed(), expected, "{damage}");
        run.commit_note("apple").await;
        run.commit_note(&format!("{}z", damage.chars().next().unwrap())).await;
        run.store.journal.commit(vec![Entry::new(&Forget('d'))]).await.unwrap();
        expected = run.indexed();
        run.stop().await;
    }
}

#[tokio::test]
async fn an_index_of_another_journal_is_forgotten() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (dir, text) in [(&ours, "ours"), (&theirs, "theirs")] {
        let run = Run::open(dir.path()).await.unwrap();
        run.commit_note(text).await;
        run.stop().await;
    }
    std::fs::remove_dir_all(ours.path().join("index")).unwrap();
    std::fs::rename(theirs.path().join("index"), ours.path().join("index")).unwrap();
    let run = Run::open(ours.path()).await.unwrap();
    assert_eq!(run.catch_up().await, 1);
    assert_eq!(run.indexed(), [(b"o".to_vec(), b"ours at 34".to_vec())]);
    run.stop().await;
}

#[tokio::test]
async fn an_index_that_nobody_rebuilds_gives_no_old_answers() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    run.commit_note("apple").await;
    run.stop().await;
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let Run { supervisor, store, replay } = Run::open(dir.path()).await.unwrap();
    drop(replay);
    assert!(matches!(store.index.tree("notes").get(b"a"), Err(IndexError::Broken(_))));
    drop(store);
    supervisor.run_until(async {}).await.unwrap();
}

/// A kill leaves the journal ahead of the index, which is flushed now and then only.
#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_at_any_time() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::open(dir.path()).await.unwrap();
    let mut noted = Vec::new();
    for round in 0..8 {
        for i in 0..5 {
            let text = format!("{}{i}", char::from(b'a' + round));
            run.commit_note(&text).await;
            noted.push(text);
        }
        let killed = tempfile::tempdir().unwrap();
        copy(dir.path(), killed.path());
        let after = Run::open(killed.path()).await.unwrap();
        assert_eq!(after.notes(), noted);
        after.catch_up().await;
        assert_eq!(after.indexed(), run.indexed());
        after.stop().await;
    }
    run.stop().await;
}

/// The index first: it must never be younger than the journal, nor is it after a kill.
fn copy(from: &Path, to: &Path) {
    for dir in ["index", "journal", "blobs"] {
        std::fs::create_dir(to.join(dir)).unwrap();
        for entry in std::fs::read_dir(from.join(dir)).unwrap() {
            let entry = entry.unwrap();
            if entry.metadata().unwrap().is_file() {
                std::fs::copy(entry.path(), to.join(dir).join(entry.file_name())).unwrap();
            }
        }
    }
}

/// Runs this test again in a mount namespace of its own and gives the directory of a small file system there; `None` in the
/// first run, when the second has passed or cannot be had.
#[cfg(target_os = "linux")]
pub(crate) fn on_a_small_disk(test: &str, size: &str) -> Option<PathBuf> {
    const DIR: &str = "SCENEMESH_TEST_SMALL_DISK";
    if let Some(dir) = std::env::var_os(DIR) {
        return Some(dir.into());
    }
    let mount = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size={size} tmpfs \"$0\" || exit 42; exec \"$@\"");
    let child = std::process::Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .arg(mount.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR, mount.path())
        .output();
    match child {
        Ok(child) if matches!(child.status.code(), Some(0 | 101)) => {
            let said = String::from_utf8_lossy(&[child.stdout, child.stderr].concat()).into_owned();
            assert!(said.contains("1 passed"), "{said}");
        }
        _ => {
            let why = "unshare cannot mount a small file system here";
            assert!(std::env::var_os("SCENEMESH_REQUIRE").is_none(), "{why}, and SCENEMESH_REQUIRE is set");
            tracing::warn!("skipped: {why}");
        }
    }
    None
}
