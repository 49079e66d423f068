//! Puts results on disk: names that never collide, files that are whole or not there, nothing overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use scenemesh_protocol::api::{JobView, OutputView, TaskView};

use crate::client::ApiClient;
use crate::error::{CliError, os_words};
use crate::job_view::Places;
use crate::messages::Message;

/// Longest file name we make: file systems take 255 bytes, and a suffix must still fit.
const NAME_LIMIT: usize = 180;

/// Where each output of a job goes below `--out`, by (task, output) index: `<job8>/<task>-<filename>`, with the
/// output's number in between where a task has two of one name. The same job always gets the same names.
pub(crate) fn file_names(job: &JobView) -> BTreeMap<(u32, u32), String> {
    let digits = job.tasks.iter().map(|task| task.index).max().unwrap_or(0).to_string().len();
    let mut names = BTreeMap::new();
    for task in &job.tasks {
        let mut taken = BTreeSet::new();
        for output in &task.outputs {
            let name = safe_name(&output.filename);
            // Compared without case: some file systems do.
            let name = if taken.insert(name.to_lowercase()) {
                format!("{:0digits$}-{name}", task.index)
            } else {
                format!("{:0digits$}-{}-{name}", task.index, output.index)
            };
            names.insert((task.index, output.index), format!("{}/{name}", job.job.short()));
        }
    }
    names
}

/// A name without directories, control characters, or what Windows refuses; another machine chose it.
fn safe_name(filename: &str) -> String {
    let last = filename.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = |c: char| if c.is_control() || "<>:\"|?*".contains(c) { '_' } else { c };
    let name: String = last.chars().map(plain).collect();
    let name = name.trim_end_matches(['.', ' ']);
    if name.is_empty() {
        return "output".into();
    }
    if name.len() <= NAME_LIMIT {
        return name.to_owned();
    }
    let (stem, extension) = split(name);
    let extension = &extension[..extension.floor_char_boundary(16)];
    format!("{}{extension}", &stem[..stem.floor_char_boundary(NAME_LIMIT - extension.len())])
}

/// `("a.tar", ".gz")`.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(at) if at > 0 => name.split_at(at),
        _ => (name, ""),
    }
}

/// A directory that results are saved below.
#[derive(Debug)]
pub(crate) struct Shelf {
    out: PathBuf,
    pub(crate) places: Places,
}

impl Shelf {
    /// Makes the directory, so that a mistyped one is found before anything is rendered.
    pub(crate) fn open(out: &Path) -> Result<Self, CliError> {
        std::fs::create_dir_all(out).map_err(|error| cannot_write(out, &error))?;
        Ok(Self { out: out.to_owned(), places: Places::default() })
    }

    /// Brings one output here. A file of the same name with the same bytes is left as it is; one with other bytes
    /// makes ours `name~2`.
    pub(crate) async fn save(
        &mut self,
        client: &ApiClient,
        job: &JobView,
        task: &TaskView,
        output: &OutputView,
    ) -> Result<(), CliError> {
        let names = file_names(job);
        let Some(name) = names.get(&(task.index, output.index)) else { return Ok(()) };
        let path = self.out.join(name);
        let path = bring(client, task, output, &path).await?;
        self.places.note(task, output, path.display().to_string());
        Ok(())
    }
}

async fn bring(
    client: &ApiClient,
    task: &TaskView,
    output: &OutputView,
    path: &Path,
) -> Result<PathBuf, CliError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(|error| cannot_write(directory, &error))?;
    let part = Part::create(path)?;
    let mut file = &part.file;
    let mut download = client.output(&task.task.to_string(), output.index).await?;
    let mut bytes = 0_u64;
    while let Some(chunk) = download.chunk().await? {
        let chunk = chunk.as_ref();
        bytes += chunk.len() as u64;
        file.write_all(chunk).map_err(|error| cannot_write(&part.path, &error))?;
    }
    if bytes != output.bytes {
        let path = path.display().to_string();
        return Err(CliError::file(
            Message::CutOff { path, bytes, of: output.bytes },
            Message::HintFetchAgain,
        ));
    }
    part.keep_as(path)
}

/// A file under way; removed unless it is kept.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn create(target: &Path) -> Result<Self, CliError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = target.with_file_name(format!(".{name}.{}.part", std::process::id()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(|error| cannot_write(&path, &error))?;
        Ok(Self { path, file })
    }

    fn keep_as(self, target: &Path) -> Result<PathBuf, CliError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (stem, extension) = split(&name);
        for number in 1..10_000 {
            let path = match number {
                1 => target.to_owned(),
                _ => target.with_file_name(format!("{stem}~{number}{extension}")),
            };
            // Taking the name first makes two commands that save at once choose different ones.
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => {
                    std::fs::rename(&self.path, &path).map_err(|error| cannot_write(&path, &error))?;
                    return Ok(path);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    if same_bytes(&path, &self.path).unwrap_or(false) {
                        return Ok(path);
                    }
                }
                Err(error) => return Err(cannot_write(&path, &error)),
            }
        }
        let full = std::io::Error::other("every name up to ~9999 is taken");
        Err(cannot_write(target, &full))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Not there any more when it was kept.
        drop(std::fs::remove_file(&self.path));
    }
}

fn same_bytes(one: &Path, other: &Path) -> std::io::Result<bool> {
    if std::fs::metadata(one)?.len() != std::fs::metadata(other)?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..read])?;
        if left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

/// Writes a small file whole: readers see the old bytes or the new ones.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let part = Part::create(path)?;
    let mut file = &part.file;
    file.write_all(bytes).map_err(|error| cannot_write(&part.path, &error))?;
    std::fs::rename(&part.path, path).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> CliError {
    let message = Message::CannotWrite { path: path.display().to_string(), why: os_words(error) };
    CliError::file(message, Message::HintCheckDisk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_machines_stay_in_the_directory() {
        for (given, safe) in [
            ("../../etc/passwd", "passwd"),
            ("C:\\windows\\a.png", "a.png"),
            ("a\nb:c?.png", "a_b_c_.png"),
            ("그림_00001_.png", "그림_00001_.png"),
            ("..", "output"),
            ("dir/", "output"),
            ("", "output"),
        ] {
            assert_eq!(safe_name(given), safe, "{given}");
        }
        let long = format!("{}.png", "가".repeat(200));
        let safe = safe_name(&long);
        assert!(safe.len() <= NAME_LIMIT && safe.ends_with("가.png"), "{safe}");
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("0-a.png");
        let save = |bytes: &[u8]| {
            let part = Part::create(&target).unwrap();
            (&part.file).write_all(bytes).unwrap();
            part.keep_as(&target).unwrap().file_name().unwrap().to_string_lossy().into_owned()
        };
        assert_eq!(save(b"one"), "0-a.png");
        assert_eq!(save(b"one"), "0-a.png");
        assert_eq!(save(b"two"), "0-a~2.png");
        assert_eq!(save(b"two"), "0-a~2.png");
        assert_eq!(save(b"three"), "0-a~3.png");
        assert_eq!(std::fs::read(&target).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "no parts are left");
    }
}
