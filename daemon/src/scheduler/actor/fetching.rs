//! Blobs on their way. A transfer that nobody wants any more is stopped before its blobs are removed.

use std::time::Duration;

use futures::StreamExt;
use scenemesh_protocol::ids::{NodeId, TaskId};
use scenemesh_protocol::lease::BlobRef;
use scenemesh_protocol::task::{Failure, FailureClass, OutputFile};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::seal::{self, BadResult};
use crate::network::{FetchError, Network};
use crate::scheduler::renderer::InputTrouble;
use crate::scheduler::requester::FetchTrouble;
use crate::store::{BlobError, Blobs};

/// Blobs of one attempt that are fetched at the same time.
const FETCHED_AT_ONCE: usize = 4;

/// The scheduler's end of a transfer. Dropping it lets the transfer go on.
#[derive(Debug)]
pub(super) struct Fetching {
    stop: CancellationToken,
    over: watch::Receiver<()>,
}

/// Held by the transfer while it writes.
#[derive(Debug)]
pub(super) struct Running(#[expect(dead_code, reason = "its drop is what is waited for")] watch::Sender<()>);

impl Fetching {
    /// A transfer's two ends: ours, when it must stop, and what it holds until it is over.
    pub(super) fn begin() -> (Self, CancellationToken, Running) {
        let stop = CancellationToken::new();
        let (sender, over) = watch::channel(());
        (Self { stop: stop.clone(), over }, stop, Running(sender))
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.has_changed().is_err()
    }

    /// Stops it and waits until it writes no more.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        // Nothing is ever sent: this ends when the other end is dropped.
        let _ = self.over.changed().await;
    }
}

/// What an attempt ends with whose inputs took too long.
pub(super) fn too_late(within: Duration) -> InputTrouble {
    let minutes = within.as_secs().div_ceil(60);
    let words = format!(
        "its inputs did not arrive within {minutes} min, the longest that a slot there waits for so many \
         (limits.fetch_time there)"
    );
    InputTrouble::Failed(Failure::new(FailureClass::Transfer, words))
}

pub(super) async fn fetch_all(
    network: &Network,
    from: NodeId,
    task: TaskId,
    attempt: u32,
    blobs: Vec<BlobRef>,
) -> Result<(), FetchError> {
    let fetch = |blob| {
        let network = network.clone();
        async move { network.fetch(from, task, attempt, blob).await }
    };
    let fetches: Vec<_> = blobs.into_iter().map(fetch).collect();
    let mut fetches = futures::stream::iter(fetches).buffer_unordered(FETCHED_AT_ONCE);
    while let Some(fetched) = fetches.next().await {
        fetched?;
    }
    Ok(())
}

pub(super) async fn prove(outputs: &[OutputFile], blobs: &Blobs) -> Result<(), FetchTrouble> {
    seal::prove(outputs, blobs).await.map_err(|bad| match bad {
        BadResult::DoesNotVerify(why) => FetchTrouble::DoesNotVerify(why),
        BadResult::Here(why) => FetchTrouble::Here(why),
    })
}

pub(super) fn result_trouble(error: FetchError) -> FetchTrouble {
    match error {
        FetchError::Corrupt { .. } => FetchTrouble::DoesNotVerify(error.to_string()),
        FetchError::Store(_) => FetchTrouble::Here(error.to_string()),
        _ => FetchTrouble::Unreachable(error.to_string()),
    }
}

pub(super) fn input_trouble(error: FetchError) -> InputTrouble {
    let failed = |class| InputTrouble::Failed(Failure::new(class, error.to_string()));
    match &error {
        FetchError::Corrupt { .. } => failed(FailureClass::Transfer),
        FetchError::Store(BlobError::NoSpace { .. } | BlobError::Quota { .. }) => {
            failed(FailureClass::DiskFull)
        }
        FetchError::Store(_) => failed(FailureClass::Transfer),
        _ => InputTrouble::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_transfer_is_awaited() {
        let (fetching, stop, running) = Fetching::begin();
        assert!(!fetching.is_over());
        let mut ending = Box::pin(fetching.end());
        assert!((&mut ending).now_or_never().is_none());
        assert!(stop.is_cancelled());
        drop(running);
        ending.await;
    }
}
