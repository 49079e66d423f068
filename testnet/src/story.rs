//! A story told in a mesh of real processes, in a directory of its own that goes with it.

use std::path::Path;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::program::Programs;

/// Tells a story and gives what it comes to.
///
/// # Errors
/// When it does not come true, with the last words of every node.
pub fn tell<T>(programs: Programs, story: impl AsyncFnOnce(&mut Cluster, &Path) -> Result<T>) -> Result<T> {
    let dir = tempfile::tempdir()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut mesh = Cluster::new(programs, dir.path());
        story(&mut mesh, dir.path()).await.map_err(|error| error.context(mesh.last_words()))
    })
}
