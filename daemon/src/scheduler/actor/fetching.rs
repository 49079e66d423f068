//! Inputs on their way: a transfer that nobody wants any more is stopped before its blobs are removed.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

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
