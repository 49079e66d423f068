//! Door for the fuzzer to `scenemesh.toml`.

use std::hint::black_box;
use std::path::Path;

use super::{Config, File, Overrides};

/// The file's text, read and assembled.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(file) = toml::from_str::<File>(text) else { return };
    black_box(Config::assemble(Path::new("/data"), file, &Overrides::default(), |_| None).is_ok());
}
