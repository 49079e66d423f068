//! Carries out what [`super::retention`] decides: one compaction of the journal at a time.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Actor;
use super::retention::judge;

impl Actor {
    /// Forgets in the journal what both machines have no use for, once that is due. Called when all that they wrote
    /// down is committed.
    pub(super) async fn compact_when_due(&mut self) {
        match self.compacting.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(oneshot::error::TryRecvError::Empty)) => return,
            Some(Err(oneshot::error::TryRecvError::Closed)) => self.retention.compaction_failed(),
            Some(Ok(())) | None => {}
        }
        self.compacting = None;
        let now = Instant::now();
        if !self.retention.compaction_is_due(now) {
            return;
        }
        self.retention.compaction_begins(now);
        let journal = self.ports.store.journal.clone();
        let line = match journal.close_segment().await {
            Ok(line) => line,
            Err(error) => {
                self.retention.compaction_failed();
                return tracing::warn!(%error, "the journal is not compacted now");
            }
        };
        let judge = judge(self.requester.jobs(), self.renderer.holdings());
        let (succeeded, compacting) = oneshot::channel();
        self.compacting = Some(compacting);
        self.errand("compact the journal", async move {
            match journal.compact(line, judge).await {
                Ok(done) => {
                    if done.records > 0 {
                        tracing::info!(done.records, done.before, done.after, "compacted the journal");
                    }
                    // Whoever waits for it is gone only when the node stops.
                    let _ = succeeded.send(());
                }
                Err(error) => tracing::warn!(%error, "compacting the journal"),
            }
            None
        });
    }
}
