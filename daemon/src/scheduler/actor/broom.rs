//! Keeps the removal of a blob and its use by the next attempt apart: both take a while, and one input serves many.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scenemesh_protocol::ids::ContentHash;

use super::Actor;
use super::fetching::Fetching;

/// Shared by the errands that remove blobs and those that are about to ask whether they are here.
#[derive(Clone, Debug, Default)]
pub(super) struct Broom {
    doomed: Arc<Mutex<HashSet<ContentHash>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Nothing else is removed meanwhile, and nobody looks.
#[derive(Debug)]
pub(super) struct Sweeping {
    broom: Broom,
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl Broom {
    /// These are to be removed, unless somebody wants them first.
    pub(super) fn doom(&self, roots: &[ContentHash]) {
        self.doomed().extend(roots);
    }

    /// These are wanted: what is not being removed yet stays.
    pub(super) fn pardon(&self, roots: impl IntoIterator<Item = ContentHash>) {
        let mut doomed = self.doomed();
        for root in roots {
            doomed.remove(&root);
        }
    }

    /// Waits until no removal is under way.
    pub(super) async fn sweeping(&self) -> Sweeping {
        let turn = self.turn.clone().lock_owned().await;
        Sweeping { broom: self.clone(), _turn: turn }
    }

    fn doomed(&self) -> MutexGuard<'_, HashSet<ContentHash>> {
        self.doomed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sweeping {
    /// Whether a blob is still to be removed; whoever asks removes it now.
    pub(super) fn is_doomed(&self, root: ContentHash) -> bool {
        self.broom.doomed().remove(&root)
    }
}

impl Actor {
    /// Removes blobs, except those that a job or an attempt names: some of these roots were chosen by peers.
    pub(super) fn drop_blobs(&self, roots: Vec<ContentHash>) {
        self.drop_blobs_after(roots, None);
    }

    /// As [`Self::drop_blobs`], once a transfer of them has ended, which is stopped.
    pub(super) fn drop_blobs_after(&self, roots: Vec<ContentHash>, fetching: Option<Fetching>) {
        let wanted = self.renderer.holdings().roots();
        let coming: std::collections::HashSet<ContentHash> = self.requester.under_way().collect();
        let named = |root: &ContentHash| {
            self.requester.jobs().names(root) || wanted.contains(root) || coming.contains(root)
        };
        let roots: Vec<_> = roots.into_iter().filter(|root| !named(root)).collect();
        if roots.is_empty() {
            return;
        }
        let (blobs, broom) = (self.ports.store.blobs.clone(), self.broom.clone());
        broom.doom(&roots);
        self.errand("drop blobs", async move {
            if let Some(fetching) = fetching {
                fetching.end().await;
            }
            let sweeping = broom.sweeping().await;
            for root in roots {
                if !sweeping.is_doomed(root) {
                    continue;
                }
                if let Err(error) = blobs.remove(root).await {
                    tracing::warn!(root = %root.short(), %error, "a blob that nobody wants stays for now");
                }
            }
            None
        });
    }

    /// What no job and no attempt names is of an earlier run that died, or came when nobody wanted it any more.
    pub(super) fn sweep_blobs(&self) {
        let mut keep: std::collections::HashSet<ContentHash> =
            self.requester.jobs().roots().into_iter().collect();
        keep.extend(self.renderer.holdings().roots());
        keep.extend(self.requester.under_way());
        let (blobs, broom) = (self.ports.store.blobs.clone(), self.broom.clone());
        self.errand("sweep blobs", async move {
            let _sweeping = broom.sweeping().await;
            match blobs.sweep(keep).await {
                Ok(swept) if swept.blobs > 0 => {
                    tracing::info!(
                        blobs = swept.blobs,
                        bytes = swept.bytes,
                        "removed blobs that nobody names"
                    );
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "sweeping the blobs"),
            }
            None
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wanted_again_stays_or_is_gone_before_it_is_looked_for() {
        let broom = Broom::default();
        let [first, second] = [&b"first"[..], b"second"].map(ContentHash::of);
        broom.doom(&[first, second]);
        broom.pardon([first]);
        let sweeping = broom.sweeping().await;
        assert!(!sweeping.is_doomed(first), "wanted before its removal began");
        assert!(sweeping.is_doomed(second));
        // Too late for the second: whoever wants it waits until it is gone.
        broom.pardon([second]);
        let mut looking = Box::pin(broom.sweeping());
        assert!(futures::poll!(&mut looking).is_pending());
        drop(sweeping);
        assert!(!looking.await.is_doomed(second));
    }
}
