//! What the requester's and the renderer's machine have in common: time, tickets, answers, and the few numbers
//! both must agree on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use scenemesh_protocol::deputy::term_of;
use scenemesh_protocol::ids::{ClaimId, NodeId, ReservationId, TaskId};

/// The renderer's right to an attempt without hearing from its requester, and the silence after which a
/// requester doubts its renderer.
pub const LEASE: Duration = Duration::from_secs(15);
/// How long a requester waits for the answer to the one probe it sends to a silent renderer.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a renderer keeps a slot free for a claim; a later grant finds it busy.
pub const CLAIM_HOLD: Duration = Duration::from_secs(2);
/// A renderer reports at least this often; three reports fit in a lease.
pub const HEARTBEAT: Duration = Duration::from_secs(4);
/// A renderer keeps a sealed result at most this long, in milliseconds of wall time.
pub const RESULT_KEPT_MS: u64 = 7 * 24 * 3600 * 1000;
/// A renderer remembers this long, in milliseconds of wall time, that it has given an attempt up. Longer than any
/// grant's envelope can be accepted.
pub const TOMBSTONE_KEPT_MS: u64 = 3600 * 1000;

/// The two clocks: the monotonic one for everything that lasts, wall time for what is written down.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub at: Instant,
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

/// A question that came in and waits for our reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A question of ours that got no usable answer. The machines never conclude more from it than that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(pub String);

/// What came back for a question of ours.
pub type Answer<T> = Result<T, NoAnswer>;

/// Nodes that are shut out, revoked or blocked, and why in words; with this node itself when it is the one outside.
pub type Barred = BTreeMap<NodeId, String>;

/// One try of a task, as its renderer names it. The requester is part of the name: task ids are chosen by peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    pub from: NodeId,
    pub task: TaskId,
    pub attempt: u32,
}

impl AttemptKey {
    /// Whether it is this machine's own work: what it grants itself as a deputy is another's.
    pub fn is_own(&self, me: NodeId) -> bool {
        self.from == me && term_of(self.attempt) == 0
    }
}

/// Makes ids without asking the operating system each time: the machines stay functions of their inputs, and
/// whoever does not know the seed cannot guess an id.
#[derive(Clone, Debug)]
pub struct IdSource {
    seed: Seed,
    drawn: u64,
}

#[derive(Clone)]
struct Seed([u8; 32]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(…)")
    }
}

impl IdSource {
    /// `seed` is random and of this run of the daemon only.
    pub const fn new(seed: [u8; 32]) -> Self {
        Self { seed: Seed(seed), drawn: 0 }
    }

    pub fn reservation(&mut self) -> ReservationId {
        ReservationId::from_bytes(self.draw(b"reservation"))
    }

    pub fn claim(&mut self) -> ClaimId {
        ClaimId::from_bytes(self.draw(b"claim"))
    }

    /// Of a render that nobody asked for.
    pub fn task(&mut self) -> TaskId {
        TaskId::from_bytes(self.draw(b"task"))
    }

    fn draw(&mut self, label: &[u8]) -> [u8; 16] {
        self.drawn += 1;
        let mut hasher = blake3::Hasher::new_keyed(&self.seed.0);
        hasher.update(label).update(&self.drawn.to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        id
    }
}
