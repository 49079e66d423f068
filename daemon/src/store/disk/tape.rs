//! A disk that remembers every change made to it, and what a power cut may leave of them.
//!
//! A file's bytes are sure after a sync of the file, its name after a sync of its directory. Everything since may be
//! there, be missing, be cut at any sector, or have overtaken what came before it.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps in vain, its tools too")]

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{Disk, Existing, RealDisk};

const SECTOR: u64 = 512;

#[derive(Clone, Debug)]
pub(in crate::store) enum Change {
    Create {
        path: PathBuf,
        file: usize,
        emptied: bool,
    },
    Write {
        file: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        file: usize,
        len: u64,
    },
    Sync {
        file: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    SyncDir {
        dir: PathBuf,
    },
    /// Somebody was told that this is safe, or began to want it.
    Acknowledged(String),
    Begun(String),
}

/// Records what happens on the real disk.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Tape {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    changes: Vec<Change>,
    /// Files by inode; a number is used again after its file is gone.
    files: HashMap<u64, usize>,
    count: usize,
}

impl Tape {
    pub(in crate::store) fn note(&self, change: Change) {
        self.inner.lock().unwrap().changes.push(change);
    }

    pub(in crate::store) fn changes(&self) -> Vec<Change> {
        self.inner.lock().unwrap().changes.clone()
    }

    fn file(&self, file: &File) -> usize {
        let inode = file.metadata().unwrap().ino();
        self.inner.lock().unwrap().files[&inode]
    }
}

impl Disk for Tape {
    fn create(&self, path: &Path, existing: Existing) -> io::Result<File> {
        let fresh = !path.exists();
        let file = RealDisk.create(path, existing)?;
        let inode = file.metadata()?.ino();
        let mut inner = self.inner.lock().unwrap();
        if fresh {
            inner.count += 1;
            let count = inner.count;
            inner.files.insert(inode, count);
        }
        let number = inner.files[&inode];
        let emptied = !fresh && existing == Existing::Empty;
        inner.changes.push(Change::Create { path: path.into(), file: number, emptied });
        Ok(file)
    }

    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        RealDisk.write_all_at(file, bytes, offset)?;
        self.note(Change::Write { file: self.file(file), offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        RealDisk.set_len(file, len)?;
        self.note(Change::SetLen { file: self.file(file), len });
        Ok(())
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.sync_all(file)
    }

    /// The real sync would only cost time: whether one was asked for is what matters.
    fn sync_all(&self, file: &File) -> io::Result<()> {
        self.note(Change::Sync { file: self.file(file) });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)?;
        self.note(Change::Rename { from: from.into(), to: to.into() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)?;
        self.note(Change::Remove { path: path.into() });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.note(Change::SyncDir { dir: dir.into() });
        Ok(())
    }
}

/// How a power cut goes about what is not sure yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Cut {
    NothingKept,
    AllKept,
    OnlyNames,
    OnlyBytes,
    Chance(u64),
}

impl Cut {
    pub(in crate::store) const CERTAIN: [Self; 4] =
        [Self::NothingKept, Self::AllKept, Self::OnlyNames, Self::OnlyBytes];
}

/// A die that falls alike for one seed.
#[derive(Debug)]
pub(in crate::store) struct Dice(pub(in crate::store) u64);

impl Dice {
    pub(in crate::store) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }
}

#[derive(Debug, Default)]
struct Content {
    sure: Vec<u8>,
    pending: Vec<Change>,
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes, .. } => {
            let (from, to) = (*offset as usize, *offset as usize + bytes.len());
            if content.len() < to {
                content.resize(to, 0);
            }
            content[from..to].copy_from_slice(bytes);
        }
        Change::SetLen { len, .. } => content.resize(*len as usize, 0),
        _ => {}
    }
}

/// Any of a write's sectors, or all, or none.
fn tear(change: &Change, dice: &mut Dice) -> Vec<Change> {
    let Change::Write { file, offset, bytes } = change else {
        return if dice.roll(2) == 0 { vec![change.clone()] } else { Vec::new() };
    };
    match dice.roll(4) {
        0 => return Vec::new(),
        1 => return vec![change.clone()],
        _ => {}
    }
    let (mut at, end) = (*offset, offset + bytes.len() as u64);
    let (mut kept, prefix) = (Vec::new(), dice.roll(2) == 0);
    while at < end {
        let next = ((at / SECTOR + 1) * SECTOR).min(end);
        if dice.roll(2) == 0 {
            let piece = bytes[(at - offset) as usize..(next - offset) as usize].to_vec();
            kept.push(Change::Write { file: *file, offset: at, bytes: piece });
        } else if prefix {
            break;
        }
        at = next;
    }
    kept
}

/// The files that a power cut after these changes may leave.
pub(in crate::store) fn after_power_cut(changes: &[Change], cut: Cut) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut dice = Dice(if let Cut::Chance(seed) = cut { seed } else { 0 });
    let mut files: HashMap<usize, Content> = HashMap::new();
    let mut names: BTreeMap<PathBuf, usize> = BTreeMap::new();
    // What happened to names since their directory was last synced.
    let mut pending: Vec<Change> = Vec::new();
    for change in changes {
        match change {
            Change::Create { file, emptied, .. } => {
                let content = files.entry(*file).or_default();
                if *emptied {
                    content.pending.push(Change::SetLen { file: *file, len: 0 });
                }
                pending.push(change.clone());
            }
            Change::Write { file, .. } | Change::SetLen { file, .. } => {
                files.entry(*file).or_default().pending.push(change.clone());
            }
            Change::Sync { file } => {
                let content = files.entry(*file).or_default();
                for change in std::mem::take(&mut content.pending) {
                    apply(&mut content.sure, &change);
                }
            }
            Change::Rename { .. } | Change::Remove { .. } => pending.push(change.clone()),
            Change::SyncDir { dir } => {
                let (due, later) = pending.into_iter().partition(|change| dir_of(change) == Some(&**dir));
                pending = later;
                let due: Vec<Change> = due;
                due.iter().for_each(|change| rename(&mut names, change));
            }
            Change::Acknowledged(_) | Change::Begun(_) => {}
        }
    }
    for change in &pending {
        let kept = match cut {
            Cut::NothingKept | Cut::OnlyBytes => false,
            Cut::AllKept | Cut::OnlyNames => true,
            Cut::Chance(_) => dice.roll(2) == 0,
        };
        if kept {
            rename(&mut names, change);
        }
    }
    let mut numbers: Vec<_> = files.keys().copied().collect();
    numbers.sort_unstable();
    for number in numbers {
        let Some(Content { sure, pending }) = files.get_mut(&number) else { continue };
        for change in pending.iter() {
            match cut {
                Cut::NothingKept | Cut::OnlyNames => {}
                Cut::AllKept | Cut::OnlyBytes => apply(sure, change),
                Cut::Chance(_) => tear(change, &mut dice).iter().for_each(|change| apply(sure, change)),
            }
        }
    }
    names.into_iter().map(|(path, file)| (path, files.remove(&file).unwrap_or_default().sure)).collect()
}

fn dir_of(change: &Change) -> Option<&Path> {
    match change {
        Change::Create { path, .. } | Change::Remove { path } | Change::Rename { to: path, .. } => {
            path.parent()
        }
        _ => None,
    }
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, change: &Change) {
    match change {
        Change::Create { path, file, .. } => {
            names.insert(path.clone(), *file);
        }
        Change::Rename { from, to } => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Change::Remove { path } => {
            names.remove(path);
        }
        _ => {}
    }
}

/// Writes the files of `root` as they are after a power cut into another directory.
pub(in crate::store) fn lay_out(files: &BTreeMap<PathBuf, Vec<u8>>, root: &Path, into: &Path) {
    for (path, content) in files {
        let path = into.join(path.strip_prefix(root).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}
