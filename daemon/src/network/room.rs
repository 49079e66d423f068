//! How many bytes of large frames one link may have on the way in.
//!
//! A frame's memory grows with what arrives of it, and a link may have a hundred streams open: without this each
//! member could hold a hundred frames of the largest size here, and never end them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;

/// Frames up to this size are not worth counting.
const SMALL: usize = 64 << 10;
/// Bytes of larger frames that one link may have under way; further ones wait unread for their turn.
const ROOM: usize = 8 << 20;
/// Bytes to a permit.
const GRAIN: usize = 1 << 10;

/// Rooms by link. A link is a task, which reads all its frames.
#[derive(Clone, Debug, Default)]
pub(super) struct Rooms(Arc<Mutex<HashMap<task::Id, Weak<Semaphore>>>>);

impl Rooms {
    /// Waits until a body of this length may be read; the place is given up with what is returned.
    pub(super) async fn enter(&self, len: usize) -> Option<OwnedSemaphorePermit> {
        if len <= SMALL {
            return None;
        }
        let permits = u32::try_from(len.min(ROOM).div_ceil(GRAIN)).unwrap_or(u32::MAX);
        let room = self.of_this_link()?;
        room.acquire_many_owned(permits).await.ok()
    }

    fn of_this_link(&self) -> Option<Arc<Semaphore>> {
        let link = task::try_id()?;
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(&link).and_then(Weak::upgrade) {
            return Some(room);
        }
        rooms.retain(|_, room| room.strong_count() > 0);
        let room = Arc::new(Semaphore::new(ROOM / GRAIN));
        rooms.insert(link, Arc::downgrade(&room));
        Some(room)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Runs on a link of its own.
    async fn on_a_link<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
        let mut links = task::JoinSet::new();
        links.spawn(work);
        links.join_next().await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_link_reads_so_much_at_once_and_another_link_does_not_mind() {
        let rooms = Rooms::default();
        let one = rooms.clone();
        let held = on_a_link(async move {
            let mut held = Vec::new();
            for _ in 0..8 {
                held.push(one.enter(1 << 20).await);
            }
            assert!(one.enter(1 << 20).now_or_never().is_none(), "it waits");
            assert!(one.enter(SMALL).now_or_never().is_some(), "small ones do not");
            held.pop();
            let next = one.enter(1 << 20).now_or_never().flatten();
            assert!(next.is_some(), "one has ended");
            held.push(next);
            held
        })
        .await;
        let other = rooms.clone();
        let elsewhere = async move { other.enter(1 << 20).now_or_never().flatten().is_some() };
        assert!(on_a_link(elsewhere).await);
        drop(held);
        let other = rooms.clone();
        on_a_link(async move { drop(other.enter(1 << 20).await) }).await;
        assert_eq!(rooms.0.lock().unwrap().len(), 1, "links that read nothing large are forgotten");
    }
}
