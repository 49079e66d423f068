//! The machine's own folders: a real base directory with the real one's rules for names, counters and uploads.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

/// Model folders, in the real server's order.
const MODEL_FOLDERS: [&str; 20] = [
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
    "custom_nodes",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
];

/// The folders whose files `/view` serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Folder {
    Input,
    Output,
    Temp,
}

impl Folder {
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Input, Self::Output, Self::Temp].into_iter().find(|folder| folder.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Temp => "temp",
        }
    }
}

#[derive(Debug)]
pub(super) struct Disk {
    base: PathBuf,
}

/// Where a node may write its files: `{name}_{counter:05}_.{extension}` in `dir`.
#[derive(Debug)]
pub(super) struct SavePlace {
    pub(super) dir: PathBuf,
    pub(super) subfolder: String,
    pub(super) name: String,
    pub(super) counter: u64,
}

impl Disk {
    /// Makes the folders, and a small file for each `FOLDER/NAME` of `models`. Leftovers in `temp` go, as at a real start.
    pub(super) fn prepare(base: PathBuf, models: &[String]) -> io::Result<Self> {
        let disk = Self { base };
        fs::remove_dir_all(disk.root(Folder::Temp)).ok();
        for folder in [Folder::Input, Folder::Output, Folder::Temp] {
            fs::create_dir_all(disk.root(folder))?;
        }
        for folder in MODEL_FOLDERS {
            fs::create_dir_all(disk.base.join("models").join(folder))?;
        }
        for model in models {
            let path = inside(&disk.base.join("models"), model).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("model {model:?} leaves the models folder"),
                )
            })?;
            if !path.exists() {
                fs::create_dir_all(path.parent().unwrap_or(&disk.base))?;
                fs::write(&path, safetensors(model))?;
            }
        }
        Ok(disk)
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    pub(super) fn root(&self, folder: Folder) -> PathBuf {
        self.base.join(folder.name())
    }

    /// Names of the files directly in a folder, sorted.
    pub(super) fn files(&self, folder: Folder) -> Vec<String> {
        let entries = fs::read_dir(self.root(folder)).into_iter().flatten().flatten();
        let files = entries.filter(|entry| entry.path().is_file());
        let mut names: Vec<String> =
            files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Names of the models of a folder, subfolders included, sorted.
    pub(super) fn models(&self, folder: &str) -> Vec<String> {
        let mut names = Vec::new();
        if MODEL_FOLDERS.contains(&folder) && folder != "custom_nodes" {
            collect(&self.base.join("models").join(folder), "", &mut names);
        }
        names.sort();
        names
    }

    pub(super) fn is_model_folder(folder: &str) -> bool {
        MODEL_FOLDERS.contains(&folder)
    }

    pub(super) fn model_folders() -> Value {
        json!(MODEL_FOLDERS)
    }

    /// The `__metadata__` of a safetensors file's header.
    pub(super) fn model_metadata(&self, folder: &str, name: &str) -> Option<Value> {
        let path = inside(&self.base.join("models").join(folder), name)?;
        let bytes = fs::read(path).ok()?;
        let length = usize::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)).ok()?;
        let header: Value = serde_json::from_slice(bytes.get(8..)?.get(..length)?).ok()?;
        header.get("__metadata__").cloned()
    }

    /// `GET /internal/folder_paths`.
    pub(super) fn folder_paths(&self) -> Value {
        let models = self.base.join("models");
        let path = |path: PathBuf| Value::from(path.display().to_string());
        let paths = MODEL_FOLDERS.into_iter().map(|folder| {
            let mut dirs = vec![match folder {
                "custom_nodes" => path(self.base.join(folder)),
                folder => path(models.join(folder)),
            }];
            match folder {
                "text_encoders" => {
                    dirs.extend([path(models.join("clip")), path(self.base.join("output/clip"))]);
                }
                "controlnet" => dirs.push(path(models.join("t2i_adapter"))),
                "diffusion_models" => {
                    dirs.insert(0, path(models.join("unet")));
                    dirs.push(path(self.base.join("output").join(folder)));
                }
                "checkpoints" | "loras" | "vae" => dirs.push(path(self.base.join("output").join(folder))),
                _ => {}
            }
            (folder.to_owned(), Value::from(dirs))
        });
        Value::Object(paths.collect())
    }

    /// Splits `name [folder]` into both; `None` for the folder where there is no such suffix.
    pub(super) fn annotated(name: &str) -> (&str, Option<Folder>) {
        for folder in [Folder::Output, Folder::Input, Folder::Temp] {
            if let Some(bare) = name.strip_suffix(&format!(" [{}]", folder.name())) {
                return (bare, Some(folder));
            }
            if let Some(bare) = name.strip_suffix(&format!("[{}]", folder.name())) {
                return (bare, Some(folder));
            }
        }
        (name, None)
    }

    /// The file a loader's input names; `None` where it would leave its folder.
    pub(super) fn annotated_path(&self, name: &str) -> Option<PathBuf> {
        let (bare, folder) = Self::annotated(name);
        inside(&self.root(folder.unwrap_or(Folder::Input)), bare)
    }

    /// Where files with this prefix go next: the number after the highest on disk. `Err` says why not, in the real one's words.
    pub(super) fn place(
        &self,
        folder: Folder,
        prefix: &str,
        width: u32,
        height: u32,
    ) -> Result<SavePlace, String> {
        let root = self.root(folder);
        let prefix = prefix.replace("%width%", &width.to_string()).replace("%height%", &height.to_string());
        let relative = normalised(Path::new(&prefix));
        let name = relative.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let subfolder = relative.parent().unwrap_or(Path::new("")).display().to_string();
        let Some(dir) = inside(&root, &subfolder) else {
            let wanted = normalised(&root.join(&subfolder));
            let common: PathBuf = root
                .components()
                .zip(wanted.components())
                .take_while(|(a, b)| a == b)
                .map(|(a, _)| a)
                .collect();
            return Err(format!(
                "**** ERROR: Saving image outside the output folder is not allowed.\n full_output_folder: {}\n         output_dir: {}\n         \
                 commonpath: {}",
                wanted.display(),
                root.display(),
                common.display()
            ));
        };
        fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let start = format!("{name}_");
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| {
            let found = entry.file_name().to_string_lossy().into_owned();
            let rest = found.strip_prefix(&start)?;
            Some(rest.split('_').next().and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0))
        });
        let counter = numbers.max().map_or(1, |highest| highest + 1);
        Ok(SavePlace { dir, subfolder, name, counter })
    }
}

impl SavePlace {
    /// The next file's name; counts up.
    pub(super) fn next(&mut self, extension: &str, batch: usize) -> String {
        let name = self.name.replace("%batch_num%", &batch.to_string());
        let file = format!("{name}_{:05}_.{extension}", self.counter);
        self.counter += 1;
        file
    }
}

fn collect(dir: &Path, prefix: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), names);
        } else {
            names.push(name);
        }
    }
}

/// A safetensors file without tensors: an 8-byte length and a JSON header. Each model's bytes differ, as real ones do.
fn safetensors(model: &str) -> Vec<u8> {
    let header = json!({format!("simulated.{model}"): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}})
        .to_string();
    let length = u64::try_from(header.len()).unwrap_or_default();
    [length.to_le_bytes().as_slice(), header.as_bytes()].concat()
}

/// `.` and `..` resolved by name alone.
fn normalised(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(clean.components().next_back(), Some(Component::Normal(_))) => {
                clean.pop();
            }
            Component::ParentDir if clean.has_root() => {}
            other => clean.push(other),
        }
    }
    clean
}

/// `root/relative`, or `None` where it would lie outside `root`.
pub(super) fn inside(root: &Path, relative: &str) -> Option<PathBuf> {
    let path = normalised(&root.join(relative));
    path.starts_with(root).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_follow_the_files_on_disk_and_prefixes_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::prepare(dir.path().to_owned(), &[]).unwrap();
        let output = disk.root(Folder::Output);
        for name in ["cut_00007_.png", "cut_00003_.png", "cutter_00050_.png", "cut_x.png"] {
            fs::write(output.join(name), b"").unwrap();
        }
        assert_eq!(disk.place(Folder::Output, "cut", 0, 0).unwrap().next("png", 0), "cut_00008_.png");
        let nested = disk.place(Folder::Output, "scene/%width%/cut", 64, 32).unwrap();
        assert_eq!((nested.subfolder.as_str(), nested.counter), ("scene/64", 1));
        assert!(
            disk.place(Folder::Output, "../../x", 0, 0).unwrap_err().contains("outside the output folder")
        );
        assert!(disk.place(Folder::Output, "/etc/x", 0, 0).is_err());
    }

    #[test]
    fn annotations_name_the_folder() {
        assert_eq!(Disk::annotated("a.png [output]"), ("a.png", Some(Folder::Output)));
        assert_eq!(Disk::annotated("a.png"), ("a.png", None));
        assert_eq!(inside(Path::new("/b/input"), "../x"), None);
        assert_eq!(inside(Path::new("/b/input"), "s/./a.png"), Some(PathBuf::from("/b/input/s/a.png")));
    }
}
