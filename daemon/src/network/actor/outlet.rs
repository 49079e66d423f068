//! A bounded way out of the actor: facts arrive in order and are never lost, questions may be turned away.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::network::{RosterEvent, TaskEvent};

/// An event that may make an earlier, undelivered one pointless.
pub(in crate::network) trait Supersede {
    fn supersedes(&self, earlier: &Self) -> bool;
}

impl Supersede for TaskEvent {
    fn supersedes(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::PeerDown { peer }, Self::PeerUp { peer: other, .. } | Self::PeerDown { peer: other }) => {
                peer == other
            }
            _ => false,
        }
    }
}

impl Supersede for RosterEvent {
    fn supersedes(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::Hello { peer, .. }, Self::Hello { peer: other, .. })
            | (Self::ShutOut { peer, .. }, Self::ShutOut { peer: other, .. }) => peer == other,
            _ => false,
        }
    }
}

/// The sending end, with facts that the receiver had no room for: at most two per peer.
pub(in crate::network) struct Outlet<E> {
    sender: mpsc::Sender<E>,
    backlog: VecDeque<E>,
}

impl<E: Supersede> Outlet<E> {
    pub(in crate::network) fn new(sender: mpsc::Sender<E>) -> Self {
        Self { sender, backlog: VecDeque::new() }
    }

    /// Tells something that must arrive.
    pub(super) fn tell(&mut self, fact: E) {
        let fact = if self.backlog.is_empty() {
            match self.sender.try_send(fact) {
                Ok(()) | Err(TrySendError::Closed(_)) => return,
                Err(TrySendError::Full(fact)) => fact,
            }
        } else {
            fact
        };
        self.backlog.retain(|earlier| !fact.supersedes(earlier));
        self.backlog.push_back(fact);
    }

    /// Passes a question on, if there is room and nothing to tell before it. Else it is dropped, and with it its reply.
    pub(super) fn ask(&mut self, question: E) {
        if self.backlog.is_empty() && self.sender.try_send(question).is_err() {
            tracing::debug!("an inbox is full: a question was turned away");
        }
    }

    /// Delivers one fact of the backlog when there is room; without a backlog it never ends.
    pub(super) async fn drain(&mut self) {
        if self.backlog.is_empty() {
            return std::future::pending().await;
        }
        match self.sender.reserve().await {
            Ok(room) => {
                if let Some(fact) = self.backlog.pop_front() {
                    room.send(fact);
                }
            }
            Err(_) => self.backlog.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use scenemesh_protocol::ids::{BootId, NodeId};

    use super::*;

    const A: NodeId = NodeId::from_bytes([1; 32]);
    const B: NodeId = NodeId::from_bytes([2; 32]);

    fn up(peer: NodeId) -> TaskEvent {
        TaskEvent::PeerUp { peer, boot: BootId::from_bytes([0; 16]) }
    }

    #[tokio::test]
    async fn facts_wait_in_order_and_old_ones_give_way() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut outlet = Outlet::new(sender);
        outlet.tell(up(A));
        outlet.tell(up(B));
        outlet.tell(TaskEvent::PeerDown { peer: B });
        outlet.tell(up(B));
        assert_eq!(outlet.backlog.len(), 2);
        let mut told = Vec::new();
        for _ in 0..3 {
            told.push(receiver.recv().await.unwrap());
            if told.len() < 3 {
                outlet.drain().await;
            }
        }
        assert!(matches!(told[0], TaskEvent::PeerUp { peer: A, .. }));
        assert!(matches!(told[1], TaskEvent::PeerDown { peer: B }));
        assert!(matches!(told[2], TaskEvent::PeerUp { peer: B, .. }));
    }

    #[tokio::test]
    async fn a_question_never_overtakes_a_fact() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut outlet = Outlet::new(sender);
        outlet.tell(up(A));
        outlet.tell(up(B));
        let (reply, answer) = crate::network::Reply::channel();
        let request = scenemesh_protocol::messages::Goodbye.into();
        outlet.ask(TaskEvent::Request { from: B, request, reply });
        assert!(answer.await.is_err(), "the question is dropped, and its reply with it");
        assert!(receiver.recv().await.is_some());
    }
}
