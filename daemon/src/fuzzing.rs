//! Doors for the fuzzer, and for the tests that give its corpora to the same readers again. Not part of the node: built
//! with the feature `fuzzing` and for tests only.
//!
//! Each takes bytes of somebody who means no good. None may panic, none may take long.

/// A workflow, edits of it, and what is posted to ComfyUI in the end.
pub fn graph(bytes: &[u8]) {
    crate::executor::fuzzing::graph(bytes);
}

/// ComfyUI's history and queue.
pub fn comfyui_history(bytes: &[u8]) {
    crate::executor::fuzzing::comfyui_history(bytes);
}

/// ComfyUI's `/object_info` and `/system_stats`.
pub fn comfyui_inventory(bytes: &[u8]) {
    crate::executor::fuzzing::comfyui_inventory(bytes);
}

/// Frames of ComfyUI's event socket.
pub fn comfyui_frames(bytes: &[u8]) {
    crate::executor::fuzzing::comfyui_frames(bytes);
}

/// What ComfyUI says went wrong.
pub fn comfyui_errors(bytes: &[u8]) {
    crate::executor::fuzzing::comfyui_errors(bytes);
}

/// Bodies of the local API.
pub fn api_bodies(bytes: &[u8]) {
    crate::api::fuzzing::api_bodies(bytes);
}

/// `scenemesh.toml`.
pub fn config(bytes: &[u8]) {
    crate::config::fuzzing::config(bytes);
}

/// A segment of the journal.
pub fn journal(bytes: &[u8]) {
    crate::store::fuzzing::journal(bytes);
}

/// The scheduler's records in it.
pub fn records(bytes: &[u8]) {
    crate::scheduler::fuzzing::records(bytes);
}

/// Membership's records in it, and news of the roster.
pub fn facts(bytes: &[u8]) {
    crate::membership::fuzzing::facts(bytes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    fn corpora() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
    }

    fn files(target: &str) -> Vec<PathBuf> {
        let dir = corpora().join(target);
        let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    macro_rules! replayed {
        ($($target:ident)*) => {
            $(#[test]
            fn $target() {
                let files = files(stringify!($target));
                assert!(!files.is_empty(), "the corpus is gone");
                for file in files {
                    // A panic names no file: the last one printed is the one.
                    println!("{}", file.display());
                    super::$target(&fs::read(&file).unwrap());
                }
            })*

            #[test]
            fn every_corpus_has_its_target_and_all_are_small() {
                let targets = [$(stringify!($target)),*];
                let found = fs::read_dir(corpora()).unwrap();
                let mut found: Vec<String> =
                    found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
                found.sort_unstable();
                let mut known = targets.to_vec();
                known.sort_unstable();
                assert_eq!(found, known);
                for target in targets {
                    let files = files(target);
                    let bytes: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
                    assert!(files.len() <= 300 && bytes <= 1 << 20, "{target}: {} files, {bytes} bytes", files.len());
                }
            }
        };
    }

    replayed! {
        graph comfyui_history comfyui_inventory comfyui_frames comfyui_errors api_bodies config journal records facts
    }
}
