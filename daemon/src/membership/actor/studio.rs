//! The studio's own records on their way: asked for at every Hello and by the clock, pushed when they are news. Only
//! ever to machines of this node's own studio.

use scenemesh_protocol::studio::{StudioDiff, StudioSecret};

use super::super::KeepError;
use super::errands::Returned;
use super::*;

impl Actor {
    fn sisters_up(&self) -> BTreeSet<NodeId> {
        let (mut up, now_ms) = (self.up(), wall_ms());
        up.retain(|node| self.state.is_sister(node, now_ms));
        up
    }

    /// Puts secrets into their files, before anything rests on them.
    pub(super) async fn store_secrets(&self, secrets: Vec<(u32, StudioSecret)>) -> Result<(), KeepError> {
        if secrets.is_empty() {
            return Ok(());
        }
        let files = self.studio_files.clone();
        let stored = self
            .tasks
            .blocking(move || secrets.iter().try_for_each(|(version, secret)| files.write(*version, secret)));
        stored.await.map_err(|_| KeepError::Stopping)?.map_err(KeepError::Keys)
    }

    /// Tells the connected machines of the own studio.
    pub(super) fn tell_studio(&mut self, news: StudioDiff) {
        if !news.is_empty() {
            self.spread("studio news", self.sisters_up(), Request::Studio(news));
        }
    }

    /// Asks a machine of the own studio for what is missing here; one question per machine at a time.
    pub(super) fn ask_studio(&mut self, peer: NodeId) {
        let now_ms = wall_ms();
        if !self.state.is_sister(&peer, now_ms) {
            return;
        }
        let Some(sync) = self.state.studio_sync(now_ms) else { return };
        if !self.studio_questions.may_ask(&peer) {
            return;
        }
        let network = self.network.clone();
        let out = self.send_out("studio question", async move {
            let diff = match network.request(peer, Request::StudioSync(sync)).await {
                Ok(Response::Studio(diff)) => Some(diff),
                Ok(other) => {
                    tracing::debug!(peer = %peer.short(), answer = other.name(), "not an answer to StudioSync");
                    None
                }
                Err(error) => {
                    tracing::debug!(peer = %peer.short(), %error, "the studio's records were not compared");
                    None
                }
            };
            Returned::StudioSynced { peer, diff }
        });
        if out {
            self.studio_questions.asked(peer);
        }
    }

    pub(super) async fn on_studio_synced(&mut self, peer: NodeId, diff: Option<StudioDiff>) {
        let again = self.studio_questions.answered(&peer);
        if let Some(diff) = diff {
            let mut next = self.state.clone();
            let step = next.on_studio_synced(peer, diff, wall_ms());
            self.keep_or_log(next, step).await;
        }
        if again {
            self.ask_studio(peer);
        }
    }

    /// Asks the machines of the own studio in turn, one at a time.
    pub(super) fn ask_one_sister(&mut self) {
        let up = self.sisters_up();
        if let Some(peer) = self.studio_questions.next(&up) {
            self.ask_studio(peer);
        }
    }

    /// Removes the secrets of a studio that this node left.
    pub(super) async fn forget_secrets(&self) {
        let files = self.studio_files.clone();
        match self.tasks.blocking(move || files.forget()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => tracing::error!(%error, "a studio key of the left pool is still on disk"),
        }
    }
}
