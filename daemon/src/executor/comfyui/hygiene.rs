//! Leaves nothing behind: history, uploaded inputs, outputs, previews, and what an earlier run of this node left.
//!
//! ComfyUI has no call that deletes a file, so its folders are looked for on this machine: in the configuration, in
//! its command line, in `/internal/folder_paths`. A guess counts only once a marker uploaded through ComfyUI has been
//! seen on disk; a path that merely looks right may belong to another ComfyUI, or to the host of a container.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::ids::random_bytes;
use scenemesh_protocol::receipt::{WipeCount, Wiped};
use serde_json::Value;

use super::cache;
use super::client::{CallError, Client, FileRef};
use super::inventory::Inventory;
use super::rewrite::{MARK, Names, ROOT};
use crate::executor::{EndpointConfig, Wipe};

/// Latest history entries searched for our own after a start. ComfyUI keeps 10000, each with a whole graph.
const SWEPT_HISTORY: usize = 256;

/// ComfyUI's folders on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folders {
    pub input: PathBuf,
    pub output: PathBuf,
    pub temp: PathBuf,
}

impl Folders {
    pub(super) fn all(&self) -> [&Path; 3] {
        [&self.input, &self.output, &self.temp]
    }

    fn kinds(&self) -> [(&Path, Wiped); 3] {
        [(&self.input, Wiped::Inputs), (&self.output, Wiped::Outputs), (&self.temp, Wiped::Temp)]
    }

    fn of_kind(&self, kind: &str) -> Option<&Path> {
        match kind {
            "input" => Some(&self.input),
            "output" => Some(&self.output),
            "temp" => Some(&self.temp),
            _ => None,
        }
    }
}

/// Finds the folders and proves them. `None` when they cannot be reached from here.
pub(super) async fn find(
    client: &Client,
    endpoint: &EndpointConfig,
    stats: &Value,
    owner: &str,
) -> Option<Folders> {
    let configured =
        endpoint.input_dir.is_some() || endpoint.output_dir.is_some() || endpoint.temp_dir.is_some();
    if !configured && !client.is_loopback() {
        return None;
    }
    let listed = client.folder_paths().await.unwrap_or_default();
    let folders = guess(endpoint, stats, &listed)?;
    for folder in folders.all() {
        if !tokio::fs::metadata(folder).await.is_ok_and(|found| found.is_dir()) {
            return None;
        }
    }
    // Temp first: where the guess is wrong, ComfyUI itself empties that at its next start.
    for kind in ["temp", "output", "input"] {
        if !holds_marker(client, folders.of_kind(kind)?, kind, owner).await {
            return None;
        }
    }
    Some(folders)
}

/// Where the folders should be, by what is known. Pure.
fn guess(endpoint: &EndpointConfig, stats: &Value, listed: &Value) -> Option<Folders> {
    let argv: Vec<&str> = stats
        .pointer("/system/argv")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let flag = |name: &str| {
        let joined = format!("{name}=");
        let after = argv.iter().position(|arg| *arg == name).and_then(|at| argv.get(at + 1)).copied();
        let value = after.or_else(|| argv.iter().find_map(|arg| arg.strip_prefix(joined.as_str())))?;
        Some(PathBuf::from(value)).filter(|path| path.is_absolute())
    };
    // `BASE/custom_nodes` is listed first; extra ones follow. Without that call, main.py lies in the base.
    let base = flag("--base-directory").or_else(|| {
        let nodes = listed.pointer("/custom_nodes/0").and_then(Value::as_str).map(PathBuf::from);
        nodes.and_then(|nodes| nodes.parent().map(Path::to_path_buf)).or_else(|| {
            let main = PathBuf::from(argv.first()?);
            main.is_absolute().then(|| main.parent().map(Path::to_path_buf)).flatten()
        })
    });
    let within = |name: &str| base.as_ref().map(|base| base.join(name));
    let temp = flag("--temp-directory").map(|parent| parent.join("temp"));
    Some(Folders {
        input: endpoint
            .input_dir
            .clone()
            .or_else(|| flag("--input-directory"))
            .or_else(|| within("input"))?,
        output: endpoint
            .output_dir
            .clone()
            .or_else(|| flag("--output-directory"))
            .or_else(|| within("output"))?,
        temp: endpoint.temp_dir.clone().or(temp).or_else(|| within("temp"))?,
    })
}

async fn holds_marker(client: &Client, folder: &Path, kind: &'static str, owner: &str) -> bool {
    let words = data_encoding::HEXLOWER.encode(&random_bytes::<16>());
    let subfolder = format!("{ROOT}/{owner}-marker");
    let body = reqwest::Body::from(words.clone());
    let uploaded = client.upload(kind, &subfolder, &format!("{words}.txt"), body, words.len() as u64).await;
    let Ok(uploaded) = uploaded else { return false };
    let path = folder.join(ROOT).join(format!("{owner}-marker")).join(&uploaded.name);
    let seen = tokio::fs::read(&path).await.is_ok_and(|bytes| bytes == words.as_bytes());
    if seen {
        drop(remove_ours(folder, &format!("{owner}-marker")).await);
    }
    seen
}

/// What a run has left in ComfyUI, as far as it tells.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// Something of it went there.
    pub reached: bool,
    /// Its history entry was seen.
    pub history: bool,
    pub uploads: u32,
    /// Files that our prompt itself reported, wherever they lie.
    pub files: Vec<FileRef>,
}

/// What is removed and what is not, while cleaning.
#[derive(Debug, Default)]
pub(super) struct Tally {
    wiped: BTreeMap<Wiped, u32>,
    left: BTreeMap<Wiped, u32>,
    /// Why something is left, for the operator.
    why: Vec<String>,
}

impl Tally {
    fn wiped(&mut self, what: Wiped, count: u32) {
        *self.wiped.entry(what).or_default() += count;
    }

    pub(super) fn left(&mut self, what: Wiped, count: u32, why: impl std::fmt::Display) {
        if count > 0 {
            *self.left.entry(what).or_default() += count;
            self.why.push(format!("{what:?}: {count} ({why})"));
        }
    }

    /// Says in the log what stays behind, and gives the counts.
    pub(super) fn close(self, names: &Names, folders: Option<&Folders>) -> Wipe {
        if !self.why.is_empty() {
            tracing::warn!(tag = %names.tag, left = %self.why.join("; "), "something stays behind in ComfyUI");
        }
        let counts = |counts: BTreeMap<Wiped, u32>| {
            let known = counts.into_iter().filter(|(_, count)| *count > 0);
            known.map(|(what, count)| WipeCount { what, count }).collect()
        };
        let hygiene = if folders.is_some() { Hygiene::Full } else { Hygiene::Partial };
        Wipe { hygiene, wiped: counts(self.wiped), left: counts(self.left) }
    }
}

/// Removes everything of one attempt, from the cache too where its names say so.
pub(super) async fn clean(
    client: &Client,
    inventory: &Inventory,
    folders: Option<&Folders>,
    names: &Names,
    traces: &Traces,
) -> Tally {
    let mut tally = Tally::default();
    let full = names.full_hygiene();
    match folders {
        Some(folders) => {
            if full {
                // Until the cache is empty this folder tells the next run of this node what is owed.
                drop(tokio::fs::create_dir_all(folders.temp.join(ROOT).join(&names.tag)).await);
            }
            for file in &traces.files {
                let what = kind_of(&file.kind);
                match remove_reported(folders, file).await {
                    Ok(removed) => tally.wiped(what, u32::from(removed)),
                    Err(error) => tally.left(what, 1, error.kind()),
                }
            }
            for (folder, what) in folders.kinds() {
                let tag = folder.join(ROOT).join(&names.tag);
                let there = files_in(&tag).await;
                let emptied = if full && what == Wiped::Temp {
                    empty_dir(&tag).await
                } else {
                    remove_ours(folder, &names.tag).await
                };
                let still = if emptied.is_ok() { 0 } else { files_in(&tag).await.max(1) };
                tally.wiped(what, there.saturating_sub(still));
                if let Err(error) = emptied {
                    tally.left(what, still, error.kind());
                }
            }
        }
        None => {
            let why = "ComfyUI's folders are out of reach";
            tally.left(Wiped::Inputs, traces.uploads, why);
            for what in [Wiped::Outputs, Wiped::Temp] {
                let files = traces.files.iter().filter(|file| kind_of(&file.kind) == what).count();
                tally.left(what, u32::try_from(files).unwrap_or(u32::MAX), why);
            }
        }
    }
    // After the files: should this node die in between, the entry tells the next sweep of them.
    match forget(client, &names.prompt_id).await {
        Ok(()) => tally.wiped(Wiped::History, u32::from(traces.history)),
        Err(error) => tally.left(Wiped::History, 1, error),
    }
    if full {
        empty_cache(client, inventory, folders, names, &mut tally).await;
    }
    tally
}

async fn empty_cache(
    client: &Client,
    inventory: &Inventory,
    folders: Option<&Folders>,
    names: &Names,
    tally: &mut Tally,
) {
    match cache::empty(client, inventory, names).await {
        Ok(()) => tally.wiped(Wiped::Cache, 1),
        Err(error) => tally.left(Wiped::Cache, 1, error),
    }
    // The proof may have saved a picture; the folder that told what was owed goes last.
    for folder in folders.iter().flat_map(|folders| folders.all()) {
        if let Err(error) = remove_ours(folder, &names.tag).await {
            tracing::debug!(%error, "removing an empty folder of ours");
        }
    }
}

/// By the folder that history and `/view` name.
fn kind_of(folder: &str) -> Wiped {
    match folder {
        "input" => Wiped::Inputs,
        "temp" => Wiped::Temp,
        _ => Wiped::Outputs,
    }
}

/// Deletes a history entry and looks whether it is gone: right after the end it may not have been there yet.
async fn forget(client: &Client, prompt_id: &str) -> Result<(), CallError> {
    for pause_ms in [50, 200, 1000] {
        match client.forget(prompt_id).await {
            // What was in a process that is gone is gone.
            Err(error) if error.is_refused() => return Ok(()),
            result => result?,
        }
        if client.history(prompt_id).await?.is_none() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    client.forget(prompt_id).await
}

/// Files below a folder, at any depth. Links are counted, not followed.
async fn files_in(folder: &Path) -> u32 {
    let (mut count, mut folders) = (0_u32, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let Ok(mut entries) = tokio::fs::read_dir(&folder).await else { continue };
        while let Ok(Some(entry)) = entries.next_entry().await {
            match entry.file_type().await {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => count += 1,
            }
        }
    }
    count
}

/// Removes what is in `folder`, and keeps it.
async fn empty_dir(folder: &Path) -> std::io::Result<()> {
    let mut entries = match tokio::fs::read_dir(folder).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_type().await?.is_dir() {
            tokio::fs::remove_dir_all(entry.path()).await?;
        } else {
            tokio::fs::remove_file(entry.path()).await?;
        }
    }
    Ok(())
}

/// Removes `ROOT/tag`, and `ROOT` when nothing else is in it.
async fn remove_ours(folder: &Path, tag: &str) -> std::io::Result<()> {
    let root = folder.join(ROOT);
    // A link would lead out of ComfyUI's folders.
    match tokio::fs::symlink_metadata(&root).await {
        Ok(found) if found.is_dir() => {}
        _ => return Ok(()),
    }
    match tokio::fs::remove_dir_all(root.join(tag)).await {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match tokio::fs::remove_dir(&root).await {
        // Others' attempts are still in it, or another node was first.
        Err(error) if !matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Whether there was such a file.
async fn remove_reported(folders: &Folders, file: &FileRef) -> std::io::Result<bool> {
    let relative = Path::new(&file.subfolder).join(&file.filename);
    let inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
    let Some(folder) = folders.of_kind(&file.kind).filter(|_| inside && file.kind != "input") else {
        return Ok(false);
    };
    let path = folder.join(relative);
    match tokio::fs::symlink_metadata(&path).await {
        Ok(found) if found.is_file() => tokio::fs::remove_file(&path).await.map(|()| true),
        _ => Ok(false),
    }
}

/// A prompt of ours that this process did not post.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Orphan {
    pub prompt_id: String,
    pub tag: String,
}

/// After a start: removes the files of attempts that ComfyUI knows nothing of any more, and gives back those it
/// does know. They may be asked for again, so they are not touched yet.
pub(super) async fn sweep(
    client: &Client,
    inventory: &Inventory,
    folders: Option<&Folders>,
    owner: &str,
) -> Result<BTreeSet<Orphan>, CallError> {
    let queue = client.queue().await?;
    let history = client.recent_history(SWEPT_HISTORY).await?;
    let known = queue.running.into_iter().chain(queue.pending).chain(history);
    let orphans: BTreeSet<Orphan> = known
        .filter_map(|row| {
            let tag = row.extra_data.get(MARK)?.as_str()?.to_owned();
            is_tag_of(owner, &tag).then_some(Orphan { prompt_id: row.prompt_id, tag })
        })
        .collect();
    for folder in folders.iter().flat_map(|folders| folders.all()) {
        for tag in tags_in(folder, owner).await {
            if orphans.iter().any(|orphan| orphan.tag == tag) {
                continue;
            }
            // Its prompt is forgotten, but what it left in the cache may still be owed.
            let names = Names::of(format!("sweep of {tag}"), tag.clone());
            if names.full_hygiene()
                && let Err(error) = cache::empty(client, inventory, &names).await
            {
                tracing::warn!(%tag, %error, "ComfyUI's cache may still hold what an earlier run left in it");
                continue;
            }
            match remove_ours(folder, &tag).await {
                Ok(()) => tracing::info!(%tag, "removed what an earlier run left in ComfyUI's folders"),
                Err(error) => {
                    tracing::warn!(%tag, %error, "leftovers in ComfyUI's folders cannot be removed");
                }
            }
        }
    }
    Ok(orphans)
}

async fn tags_in(folder: &Path, owner: &str) -> Vec<String> {
    let mut tags = Vec::new();
    let Ok(mut entries) = tokio::fs::read_dir(folder.join(ROOT)).await else { return tags };
    while let Ok(Some(entry)) = entries.next_entry().await {
        tags.extend(entry.file_name().into_string().ok().filter(|tag| is_tag_of(owner, tag)));
    }
    tags
}

/// `OWNER-…`, and nothing that is more than a name.
fn is_tag_of(owner: &str, tag: &str) -> bool {
    tag.strip_prefix(owner).is_some_and(|rest| rest.starts_with('-'))
        && tag.len() <= 100
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn guessed(argv: &[&str], listed: Value) -> Option<Folders> {
        guess(&EndpointConfig::default(), &json!({"system": {"argv": argv}}), &listed)
    }

    fn under(base: &str) -> Folders {
        let base = Path::new(base);
        Folders { input: base.join("input"), output: base.join("output"), temp: base.join("temp") }
    }

    #[cfg(unix)]
    #[test]
    fn folders_are_guessed_from_the_command_line_and_the_listing() {
        let listed = json!({"custom_nodes": ["/opt/ComfyUI/custom_nodes"]});
        assert_eq!(guessed(&["main.py", "--cpu"], listed.clone()), Some(under("/opt/ComfyUI")));
        assert_eq!(
            guessed(&["main.py", "--base-directory", "/srv/c"], listed.clone()),
            Some(under("/srv/c"))
        );
        assert_eq!(guessed(&["main.py", "--base-directory=/srv/c"], Value::Null), Some(under("/srv/c")));
        assert_eq!(guessed(&["/opt/x/main.py"], Value::Null), Some(under("/opt/x")));
        assert_eq!(guessed(&["main.py"], Value::Null), None);
        let split =
            guessed(&["main.py", "--output-directory", "/nas/out", "--temp-directory", "/tmp/t"], listed);
        let expected =
            Folders { output: "/nas/out".into(), temp: "/tmp/t/temp".into(), ..under("/opt/ComfyUI") };
        assert_eq!(split, Some(expected));
    }

    #[test]
    fn tags_belong_to_one_owner() {
        assert!(is_tag_of("amber", "amber-abababab-2"));
        assert!(!is_tag_of("amber", "amberly-abababab-2"));
        assert!(!is_tag_of("amber", "amber-../../x"));
    }

    #[tokio::test]
    async fn only_what_is_ours_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["scenemesh/a-1-0/deep/x.png", "scenemesh/b-2-0/y.png", "theirs.png"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        remove_ours(dir.path(), "a-1-0").await.unwrap();
        assert!(!dir.path().join("scenemesh/a-1-0").exists());
        assert!(dir.path().join("scenemesh/b-2-0/y.png").exists());
        remove_ours(dir.path(), "b-2-0").await.unwrap();
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["theirs.png"]);
    }

    #[tokio::test]
    async fn reported_files_are_removed_only_inside_output_and_temp() {
        let dir = tempfile::tempdir().unwrap();
        let folders = under(dir.path().to_str().unwrap());
        for folder in folders.all() {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join("a.png"), "x").unwrap();
        }
        std::fs::write(dir.path().join("outside.png"), "x").unwrap();
        let file = |filename: &str, subfolder: &str, kind: &str| FileRef {
            filename: filename.into(),
            subfolder: subfolder.into(),
            kind: kind.into(),
        };
        for file in
            [file("a.png", "", "temp"), file("a.png", "", "input"), file("outside.png", "..", "output")]
        {
            remove_reported(&folders, &file).await.unwrap();
        }
        assert!(!folders.temp.join("a.png").exists());
        assert!(folders.input.join("a.png").exists() && dir.path().join("outside.png").exists());
    }
}
