//! Keeps the removal of a blob and its use by the next attempt apart: both take a while, and one input serves many.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scenemesh_protocol::ids::ContentHash;

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
