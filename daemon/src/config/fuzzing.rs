//! Door for the fuzzer to `scenemesh.toml` and `policy.toml`.

use std::hint::black_box;
use std::path::Path;

use super::{Config, File, Overrides};
use crate::executor::policy::Choices;

/// The text of each, read and assembled, or written again.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(choices) = Choices::read(text) {
        assert_eq!(Choices::read(&choices.write()).as_ref(), Ok(&choices), "what is kept is read again");
    }
    let Ok(file) = toml::from_str::<File>(text) else { return };
    black_box(
        Config::assemble(
            Path::new("/data"),
            Path::new("/data/scenemesh.toml"),
            file,
            &Overrides::default(),
            |_| None,
        )
        .is_ok(),
    );
}
