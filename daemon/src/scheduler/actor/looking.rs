//! Looks at pictures that were fetched, one at a time: decoding takes memory.

use std::sync::Arc;

use scenemesh_protocol::task::OutputFile;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::scheduler::smoke;
use crate::scheduler::suspicion::{self, Expected, Suspect, Suspicion};
use crate::store::Blobs;
use crate::supervisor::Tasks;

#[derive(Clone, Debug)]
pub(super) struct Looking {
    tasks: Tasks,
    turn: Arc<Semaphore>,
}

impl Looking {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { tasks, turn: Arc::new(Semaphore::new(1)) }
    }

    /// What is wrong with these results. One that cannot be read here is not the renderer's fault, and not told.
    pub(super) async fn look(
        &self,
        outputs: &[OutputFile],
        expected: Expected,
        blobs: &Blobs,
    ) -> Vec<Suspect> {
        let mut suspects = Vec::new();
        for (output, file) in (0..).zip(outputs) {
            if suspicion::is_looked_at(file)
                && let Some(why) = self.look_at(file, expected, blobs).await
            {
                suspects.push(Suspect { output, why });
            }
        }
        suspects
    }

    async fn look_at(&self, file: &OutputFile, expected: Expected, blobs: &Blobs) -> Option<Suspicion> {
        let _turn = self.turn.acquire().await.ok()?;
        let picture = read(file, blobs).await?;
        // A decoder that panics has found something that no decoder should be given.
        let looked = self.tasks.blocking(move || suspicion::look(&picture, &expected)).await;
        looked.unwrap_or(Some(Suspicion::Undecodable))
    }
}

impl Looking {
    /// Whether a smoke render came out right.
    pub(super) async fn judge(&self, outputs: &[OutputFile], blobs: &Blobs) -> Result<(), String> {
        let [file] = outputs else {
            return Err(format!("{} files came of it instead of one", outputs.len()));
        };
        let Ok(_turn) = self.turn.acquire().await else { return Err("the node is stopping".to_owned()) };
        let Some(picture) = read(file, blobs).await else {
            return Err("its picture cannot be read back".to_owned());
        };
        let judged = self.tasks.blocking(move || smoke::judge(&picture)).await;
        judged.unwrap_or_else(|_| Err("it cannot be decoded".to_owned()))
    }
}

async fn read(file: &OutputFile, blobs: &Blobs) -> Option<Zeroizing<Vec<u8>>> {
    let mut opener = blobs.open(file.root, &file.key).await.ok()?;
    let bytes = usize::try_from(opener.bytes().min(suspicion::FILE_LIMIT)).ok()?;
    let mut picture = Zeroizing::new(Vec::with_capacity(bytes));
    while let Some(piece) = opener.next().await.ok()? {
        picture.extend_from_slice(&piece);
    }
    Some(picture)
}
