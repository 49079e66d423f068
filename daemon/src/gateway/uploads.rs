//! Files that clients uploaded: sealed in the store, named here, each scope its own.
//!
//! As ComfyUI does, a second file of one name is renamed unless it is the same, or is to take the first one's place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scenemesh_protocol::codec;
use scenemesh_protocol::ids::ContentHash;
use scenemesh_protocol::task::InputFile;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::desk::Scope;
use super::files::Files;
use crate::clock;
use crate::platform;
use crate::store::{Blobs, Sealed};
use crate::supervisor::Tasks;

/// Uploads of one scope; beyond them the oldest goes. The bytes are bounded by the store's quota.
const MOST: usize = 4096;
/// Bytes of a folder that is used as a cache, and for how long what was used stays in any case.
const CACHED: u64 = 256 << 20;
const CACHED_MS: u64 = 600_000;
const VERSION: u8 = 1;
/// Bytes of an encoded reference to a blob.
const REFERENCE: usize = 4096;

/// Which of ComfyUI's three folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Folder {
    Input,
    Temp,
    Output,
}

impl Folder {
    pub(super) fn of(word: &str) -> Option<Self> {
        match word {
            "input" => Some(Self::Input),
            "temp" => Some(Self::Temp),
            "output" => Some(Self::Output),
            _ => None,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Temp => "temp",
            Self::Output => "output",
        }
    }
}

/// Where a file is: a name in a subfolder of a folder. Both are checked when they are read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) folder: Folder,
    pub(super) subfolder: String,
    pub(super) name: String,
}

/// Why a name leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadPlace {
    /// It is no name.
    Name,
    /// It leads out of the folder.
    Escapes,
}

impl Place {
    /// Reads a place; `filename` may be a path, of which the last part counts.
    pub(super) fn read(folder: Folder, subfolder: &str, filename: &str) -> Result<Self, BadPlace> {
        let subfolder = subfolder.replace('\\', "/");
        let parts: Vec<&str> = subfolder.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if subfolder.starts_with('/') || parts.contains(&"..") || subfolder.contains(['\0', ':']) {
            return Err(BadPlace::Escapes);
        }
        let name = filename.rsplit(['/', '\\']).next().unwrap_or_default();
        let long = name.len() > 255 || subfolder.len() > 1024;
        if matches!(name, "" | "." | "..") || long || name.chars().any(char::is_control) {
            return Err(BadPlace::Name);
        }
        Ok(Self { folder, subfolder: parts.join("/"), name: name.to_owned() })
    }

    /// Reads a file that a graph names: `SUBFOLDER/NAME [FOLDER]`.
    pub(super) fn named(literal: &str) -> Result<Self, BadPlace> {
        let marks = [(" [input]", Folder::Input), (" [output]", Folder::Output), (" [temp]", Folder::Temp)];
        let marked = marks.iter().find_map(|(mark, folder)| Some((literal.strip_suffix(mark)?, *folder)));
        let (path, folder) = marked.unwrap_or((literal, Folder::Input));
        let path = path.replace('\\', "/");
        let (subfolder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if path.starts_with('/') {
            return Err(BadPlace::Escapes);
        }
        Self::read(folder, subfolder, name)
    }
}

/// An uploaded file.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    /// Root and key; its name is another in every graph.
    pub(super) file: InputFile,
    hash: blake3::Hash,
    at_ms: u64,
}

/// A sealed file that is to be kept.
pub(super) struct Coming {
    pub(super) place: Place,
    pub(super) sealed: Sealed,
    /// Of what is in it.
    pub(super) hash: blake3::Hash,
    /// Whether it takes the place of another of its name.
    pub(super) overwrite: bool,
}

/// As it is written down.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u8,
    scope: String,
    folder: Folder,
    subfolder: String,
    name: String,
    hash: String,
    at_ms: u64,
    /// The encoded reference to the blob, key included.
    file: String,
}

/// Why an upload was not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("it could not be written down: {0}")]
    Io(#[from] std::io::Error),
    #[error("the node is stopping")]
    Stopping,
}

type Table = BTreeMap<(Scope, Place), Upload>;

/// All uploads. The lock is held for look-ups, never while anything waits.
#[derive(Clone, Debug)]
pub(super) struct Uploads {
    table: Arc<Mutex<Table>>,
    /// One at a time is taken in and written down, so that the last of one name is the one that is found again.
    turn: Arc<tokio::sync::Mutex<()>>,
    files: Files,
    blobs: Blobs,
    tasks: Tasks,
}

impl Uploads {
    /// Reads what was uploaded before, and has the store keep it. Blocks. What lay in `temp` is gone, as it is when a
    /// ComfyUI starts.
    pub(super) fn open(files: Files, blobs: Blobs, tasks: Tasks) -> Self {
        let mut table = Table::new();
        for (path, bytes) in files.uploads() {
            match read(&bytes) {
                Some((key, upload)) if key.1.folder != Folder::Temp && blobs.holds(upload.file.root) => {
                    blobs.keep(upload.file.root);
                    table.insert(key, upload);
                }
                Some(_) => drop(std::fs::remove_file(path)),
                None => tracing::warn!(path = %path.display(), "an upload's record cannot be read"),
            }
        }
        Self { table: Arc::new(Mutex::new(table)), turn: Arc::default(), files, blobs, tasks }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, scope: &Scope, place: &Place) -> Option<Upload> {
        self.table().get(&(scope.clone(), place.clone())).cloned()
    }

    /// Names in the input folder itself, as loaders list them.
    pub(super) fn inputs(&self, scope: &Scope) -> Vec<String> {
        let table = self.table();
        let own = table
            .keys()
            .filter(|(of, place)| of == scope && place.folder == Folder::Input && place.subfolder.is_empty());
        own.map(|(_, place)| place.name.clone()).collect()
    }

    /// Names in a folder itself, the newest first.
    pub(super) fn newest(&self, scope: &Scope, folder: Folder) -> Vec<String> {
        let table = self.table();
        let own = table
            .iter()
            .filter(|((of, place), _)| of == scope && place.folder == folder && place.subfolder.is_empty());
        let mut names: Vec<(u64, String)> =
            own.map(|((_, place), upload)| (upload.at_ms, place.name.clone())).collect();
        names.sort_by(|one, other| other.cmp(one));
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// Keeps a sealed file under a name, or under one like it; says where it is.
    ///
    /// # Errors
    /// When its record cannot be written. The blob is removed then.
    pub(super) async fn add(&self, scope: &Scope, coming: Coming) -> Result<Place, Refused> {
        let (own, scope) = (self.clone(), scope.clone());
        let (reply, answer) = oneshot::channel();
        // A client that hangs up does not leave half an upload behind.
        self.tasks.spawn("gateway upload", async move {
            let added = own.take_in(&scope, coming).await;
            drop(reply.send(added));
            Ok(())
        });
        answer.await.unwrap_or(Err(Refused::Stopping))
    }

    async fn take_in(&self, scope: &Scope, coming: Coming) -> Result<Place, Refused> {
        let Coming { place, sealed, hash, overwrite } = coming;
        let file = InputFile { name: String::new(), root: sealed.root, key: sealed.key, bytes: sealed.bytes };
        let _turn = self.turn.lock().await;
        let (place, same) = free_place(&self.table(), scope, place, hash, overwrite);
        if same {
            self.drop_blob(sealed.root).await;
            return Ok(place);
        }
        let upload = Upload { file, hash, at_ms: clock::wall_ms() };
        self.blobs.keep(sealed.root);
        if let Err(refused) = self.write(scope, &place, &upload).await {
            self.blobs.release(sealed.root);
            self.drop_blob(sealed.root).await;
            return Err(refused);
        }
        // Whatever job uses one that is not kept any more goes on using it: the scheduler removes it when it is done.
        let before = self.table().insert((scope.clone(), place.clone()), upload);
        before.into_iter().for_each(|before| self.blobs.release(before.file.root));
        loop {
            let oldest = oldest_beyond(&mut self.table(), scope);
            let Some(oldest) = oldest else { break };
            self.forget(scope, &[oldest]).await;
        }
        if place.folder == Folder::Temp && !place.subfolder.is_empty() {
            let unused = unused_beyond(&mut self.table(), scope, &place.subfolder, clock::wall_ms());
            self.forget(scope, &unused).await;
        }
        Ok(place)
    }

    /// Of one that is out of the table: before anything waits the store need not keep it any more.
    async fn forget(&self, scope: &Scope, gone: &[(Place, Upload)]) {
        gone.iter().for_each(|(_, upload)| self.blobs.release(upload.file.root));
        let paths: Vec<PathBuf> = gone.iter().map(|(place, _)| self.path(scope, place)).collect();
        let removing = self.tasks.blocking(move || {
            paths.iter().for_each(|path| drop(std::fs::remove_file(path)));
        });
        drop(removing.await);
    }

    /// Whether a file is here; where the longest unused go it is as new as if it had just come.
    pub(super) fn used(&self, scope: &Scope, place: &Place) -> bool {
        let mut table = self.table();
        let found = table.get_mut(&(scope.clone(), place.clone()));
        found.map(|upload| upload.at_ms = clock::wall_ms()).is_some()
    }

    async fn drop_blob(&self, root: ContentHash) {
        if let Err(error) = self.blobs.remove(root).await {
            tracing::debug!(%error, "removing an upload that is not kept");
        }
    }

    async fn write(&self, scope: &Scope, place: &Place, upload: &Upload) -> Result<(), Refused> {
        let path = self.path(scope, place);
        let written = Written {
            version: VERSION,
            scope: scope.to_string(),
            folder: place.folder,
            subfolder: place.subfolder.clone(),
            name: place.name.clone(),
            hash: upload.hash.to_hex().to_string(),
            at_ms: upload.at_ms,
            file: data_encoding::BASE64.encode(&codec::encode_body(&upload.file)),
        };
        let bytes = serde_json::to_vec(&written).map_err(std::io::Error::other)?;
        let wrote = self.tasks.blocking(move || platform::replace_file(&path, &bytes)).await;
        wrote.map_err(|_| Refused::Stopping)?.map_err(Refused::Io)
    }

    fn path(&self, scope: &Scope, place: &Place) -> PathBuf {
        self.files.upload(&[scope, place.folder.word(), &place.subfolder, &place.name])
    }
}

fn read(bytes: &[u8]) -> Option<((Scope, Place), Upload)> {
    let written: Written = serde_json::from_slice(bytes).ok()?;
    let file = data_encoding::BASE64.decode(written.file.as_bytes()).ok()?;
    let file: InputFile = codec::decode_body(&file, REFERENCE).ok()?;
    let place = Place::read(written.folder, &written.subfolder, &written.name).ok()?;
    let hash = blake3::Hash::from_hex(&written.hash).ok()?;
    (written.version <= VERSION)
        .then(|| ((Scope::from(written.scope), place), Upload { file, hash, at_ms: written.at_ms }))
}

/// Takes the oldest upload out of a scope that has too many.
fn oldest_beyond(table: &mut Table, scope: &Scope) -> Option<(Place, Upload)> {
    let own = || table.iter().filter(|((of, _), _)| of == scope);
    if own().count() <= MOST {
        return None;
    }
    // What only lies in between goes before what somebody wants to keep.
    let (key, _) = own().min_by_key(|((_, place), upload)| (place.folder != Folder::Temp, upload.at_ms))?;
    let key = key.clone();
    table.remove(&key).map(|upload| (key.1, upload))
}

/// Takes the longest unused files out of a folder in `temp` that has too much, but none that was used lately.
fn unused_beyond(table: &mut Table, scope: &Scope, subfolder: &str, now_ms: u64) -> Vec<(Place, Upload)> {
    let own = table.iter().filter(|((of, place), _)| {
        of == scope && place.folder == Folder::Temp && place.subfolder == subfolder
    });
    let mut own: Vec<(u64, u64, Place)> =
        own.map(|((_, place), upload)| (upload.at_ms, upload.file.bytes, place.clone())).collect();
    own.sort();
    let mut together: u64 = own.iter().map(|(_, bytes, _)| bytes).sum();
    let mut taken = Vec::new();
    for (at_ms, bytes, place) in own {
        if together <= CACHED || now_ms.saturating_sub(at_ms) < CACHED_MS {
            break;
        }
        together -= bytes;
        let upload = table.remove(&(scope.clone(), place.clone()));
        taken.extend(upload.map(|upload| (place, upload)));
    }
    taken
}

/// Where a file goes, and whether the same is there already.
fn free_place(
    table: &Table,
    scope: &Scope,
    wanted: Place,
    hash: blake3::Hash,
    overwrite: bool,
) -> (Place, bool) {
    let (stem, extension) = match wanted.name.rfind('.') {
        Some(at) if at > 0 => wanted.name.split_at(at),
        _ => (wanted.name.as_str(), ""),
    };
    let mut place = wanted.clone();
    for count in 1_u32.. {
        match table.get(&(scope.clone(), place.clone())) {
            None => break,
            Some(known) if known.hash == hash => return (place, true),
            Some(_) if overwrite => break,
            Some(_) => place.name = format!("{stem} ({count}){extension}"),
        }
    }
    (place, false)
}

#[cfg(test)]
mod tests {
    use scenemesh_protocol::sealed::BlobKey;

    use super::*;

    fn place(subfolder: &str, name: &str) -> Place {
        Place { folder: Folder::Input, subfolder: subfolder.into(), name: name.into() }
    }

    #[test]
    fn names_lead_into_their_folder_or_nowhere() {
        let read = |subfolder: &str, name: &str| Place::read(Folder::Input, subfolder, name);
        assert_eq!(read("", "a.png"), Ok(place("", "a.png")));
        assert_eq!(read("scene\\1/", "a.png"), Ok(place("scene/1", "a.png")));
        assert_eq!(read("./scene//1", "x/y/a.png"), Ok(place("scene/1", "a.png")));
        for bad in ["../x", "/etc", "a/../../b", "C:\\x", "..", "a\0b"] {
            assert_eq!(read(bad, "a.png"), Err(BadPlace::Escapes), "{bad}");
        }
        for bad in ["", "..", "x/..", "a\nb", &"a".repeat(300)] {
            assert_eq!(read("", bad), Err(BadPlace::Name), "{bad}");
        }
        assert_eq!(
            Place::named("s/a.png [output]"),
            Ok(Place { folder: Folder::Output, ..place("s", "a.png") })
        );
        assert_eq!(Place::named("a.png"), Ok(place("", "a.png")));
        assert_eq!(Place::named("../a.png [temp]"), Err(BadPlace::Escapes));
        assert_eq!(Place::named("/a.png"), Err(BadPlace::Escapes));
    }

    #[test]
    fn a_second_file_of_one_name_gets_another() {
        let scope = Scope::from("gateway");
        let mut table = Table::new();
        let file = InputFile {
            name: String::new(),
            root: ContentHash::from_bytes([1; 32]),
            key: BlobKey::from_bytes([1; 32]),
            bytes: 1,
        };
        let hashes = [b"one", b"two", b"six"].map(|bytes| blake3::hash(bytes));
        let mut add = |scope: &Scope, hash, overwrite| {
            let (place, same) = free_place(&table, scope, place("", "a.png"), hash, overwrite);
            table.insert((scope.clone(), place.clone()), Upload { file: file.clone(), hash, at_ms: 1 });
            (place.name, same)
        };
        assert_eq!(add(&scope, hashes[0], false), ("a.png".into(), false));
        assert_eq!(add(&scope, hashes[0], false), ("a.png".into(), true));
        assert_eq!(add(&scope, hashes[1], false), ("a (1).png".into(), false));
        assert_eq!(add(&scope, hashes[1], false), ("a (1).png".into(), true));
        assert_eq!(add(&scope, hashes[2], true), ("a.png".into(), false));
        assert_eq!(add(&Scope::from("other"), hashes[1], false), ("a.png".into(), false));
    }

    #[test]
    fn the_oldest_of_too_many_goes() {
        let file = InputFile {
            name: String::new(),
            root: ContentHash::from_bytes([1; 32]),
            key: BlobKey::from_bytes([1; 32]),
            bytes: 1,
        };
        let mut table = Table::new();
        for at_ms in 0..=MOST as u64 {
            for scope in ["a", "b"] {
                let upload = Upload { file: file.clone(), hash: blake3::hash(b"x"), at_ms };
                // Their names do not say when they came.
                let name = format!("{:05}.png", (at_ms * 7919) % 10_007);
                table.insert((scope.into(), place("", &name)), upload);
            }
        }
        let (_, oldest) = oldest_beyond(&mut table, &"a".into()).unwrap();
        assert_eq!(oldest.at_ms, 0);
        assert!(oldest_beyond(&mut table, &"a".into()).is_none());
        assert_eq!(table.len(), 2 * MOST + 1, "another scope's own stay");
    }

    #[test]
    fn a_cache_loses_what_was_not_used_for_long_and_only_when_it_is_full() {
        let scope = Scope::from("a");
        let mut table = Table::new();
        let mut add = |scope: &str, subfolder: &str, name: &str, at_ms: u64, bytes: u64| {
            let (root, key) = (ContentHash::from_bytes([1; 32]), BlobKey::from_bytes([1; 32]));
            let file = InputFile { name: String::new(), root, key, bytes };
            let upload = Upload { file, hash: blake3::hash(b"x"), at_ms };
            let place = Place { folder: Folder::Temp, ..place(subfolder, name) };
            table.insert((scope.into(), place), upload);
        };
        for (name, at_ms) in [("z", 1), ("y", 2), ("x", 3)] {
            add("a", "etn", name, at_ms, CACHED / 2);
        }
        add("a", "etn", "new", CACHED_MS + 3, CACHED);
        add("a", "", "mine", 1, CACHED * 2);
        add("b", "etn", "theirs", 1, CACHED * 2);
        let mut trim = |now_ms| {
            let gone = unused_beyond(&mut table, &scope, "etn", now_ms);
            gone.into_iter().map(|(place, _)| place.name).collect::<Vec<_>>()
        };
        assert_eq!(trim(CACHED_MS), Vec::<String>::new(), "all were used lately");
        assert_eq!(trim(CACHED_MS + 2), ["z", "y"]);
        assert_eq!(trim(CACHED_MS + 4), ["x"]);
        assert_eq!(trim(CACHED_MS * 9), Vec::<String>::new());
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn a_record_is_read_back_with_its_key() {
        let file = InputFile {
            name: String::new(),
            root: ContentHash::from_bytes([1; 32]),
            key: BlobKey::from_bytes([2; 32]),
            bytes: 7,
        };
        let written = Written {
            version: 1,
            scope: "s".into(),
            folder: Folder::Input,
            subfolder: String::new(),
            name: "a.png".into(),
            hash: blake3::hash(b"x").to_hex().to_string(),
            at_ms: 5,
            file: data_encoding::BASE64.encode(&codec::encode_body(&file)),
        };
        let (key, upload) = super::read(&serde_json::to_vec(&written).unwrap()).unwrap();
        assert_eq!(key, (Scope::from("s"), place("", "a.png")));
        assert_eq!((upload.file, upload.hash), (file, blake3::hash(b"x")));
        assert!(super::read(b"{}").is_none());
    }
}
