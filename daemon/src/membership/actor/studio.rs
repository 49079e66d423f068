//! The studio's own records on their way: asked for at every Hello and by the clock, pushed when they are news. Only
//! ever to machines of this node's own studio.

use futures::future::join_all;
use scenemesh_protocol::studio::{StudioDiff, StudioSecret};

use super::super::KeepError;
use super::errands::Returned;
use super::*;

impl Actor {
    fn sisters_up(&self) -> Vec<NodeId> {
        let (peers, now_ms) = (self.network.peers().borrow().clone(), wall_ms());
        let up = peers.peers.iter().filter(|(_, peer)| peer.link == Link::Up).map(|(id, _)| *id);
        up.filter(|node| self.state.is_sister(node, now_ms)).collect()
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
        let sisters = self.sisters_up();
        if news.is_empty() || sisters.is_empty() {
            return;
        }
        let network = self.network.clone();
        self.send_out("studio news", async move {
            let told = sisters.into_iter().map(|peer| {
                let (network, news) = (network.clone(), news.clone());
                async move {
                    if let Err(error) = network.request(peer, Request::Studio(news)).await {
                        tracing::debug!(peer = %peer.short(), %error, "a studio record was not delivered");
                    }
                }
            });
            join_all(told).await;
            Returned::Nothing
        });
    }

    /// Asks a machine of the own studio for what is missing here; one question per machine at a time.
    pub(super) fn ask_studio(&mut self, peer: NodeId) {
        let now_ms = wall_ms();
        if !self.state.is_sister(&peer, now_ms) {
            return;
        }
        let Some(sync) = self.state.studio_sync(now_ms) else { return };
        if let Some(again) = self.asking_studio.get_mut(&peer) {
            *again = true;
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
            self.asking_studio.insert(peer, false);
        }
    }

    pub(super) async fn on_studio_synced(&mut self, peer: NodeId, diff: Option<StudioDiff>) {
        let again = self.asking_studio.remove(&peer).unwrap_or_default();
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
        let up: BTreeSet<_> = self.sisters_up().into_iter().collect();
        let after = self.sister_turn.and_then(|last| up.range(last..).find(|id| **id != last));
        self.sister_turn = after.or_else(|| up.first()).copied();
        if let Some(peer) = self.sister_turn {
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
