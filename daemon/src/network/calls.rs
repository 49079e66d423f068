//! PURE: how much one peer may ask. Far above what a busy node needs, far below what hurts.

use scenemesh_protocol::messages::Request;
use tokio::time::Instant;

use super::bucket::{Bucket, Rate};

const MIB: f64 = 1024.0 * 1024.0;

/// Requests of all kinds.
const ALL: Rate = Rate { burst: 400.0, per_second: 200.0 };
/// Bytes of requests: a renderer of eight GPUs that sends previews takes half of it.
const BYTES: Rate = Rate { burst: 64.0 * MIB, per_second: 16.0 * MIB };
/// Each can end what rests on the run of the peer before.
const HELLOS: Rate = Rate { burst: 20.0, per_second: 1.0 };
/// Each is answered with up to a mebibyte, and asked for once in two seconds at most by this release.
const INVENTORIES: Rate = Rate { burst: 10.0, per_second: 1.0 };
/// Each is answered with up to half a mebibyte; there are sixteen parts at most, asked for when they change.
const DEFINITIONS: Rate = Rate { burst: 20.0, per_second: 1.0 };
/// Each is compared with the whole roster.
const ROSTERS: Rate = Rate { burst: 60.0, per_second: 2.0 };
/// Each has a signature to check. A node's own comes once a second at most.
const ADVERTS: Rate = Rate { burst: 120.0, per_second: 10.0 };
/// What does not decode counts as the largest frame: how long it was is not known any more.
const UNREADABLE: usize = 1 << 20;

/// What one peer has left.
#[derive(Debug)]
pub(super) struct Calls {
    all: Bucket,
    bytes: Bucket,
    hellos: Bucket,
    inventories: Bucket,
    definitions: Bucket,
    rosters: Bucket,
    adverts: Bucket,
}

impl Calls {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: Bucket::full(ALL, now),
            bytes: Bucket::full(BYTES, now),
            hellos: Bucket::full(HELLOS, now),
            inventories: Bucket::full(INVENTORIES, now),
            definitions: Bucket::full(DEFINITIONS, now),
            rosters: Bucket::full(ROSTERS, now),
            adverts: Bucket::full(ADVERTS, now),
        }
    }

    /// Counts a request; `None` stands for one that could not be read.
    ///
    /// # Errors
    /// Which limit it is over, in words for the peer.
    pub(super) fn count(&mut self, now: Instant, request: Option<&Request>) -> Result<(), String> {
        let over =
            |what: &str| Err(format!("{what}: this is a limit of this node for each other node; slow down"));
        if !self.all.take(ALL, now) {
            return over("more than 200 requests a second");
        }
        let bytes = request.map_or(UNREADABLE, weight);
        #[expect(clippy::cast_precision_loss, reason = "frames are small")]
        if !self.bytes.take_many(bytes as f64, BYTES, now) {
            return over("more than 16 MiB of requests a second");
        }
        match request {
            Some(Request::Hello(_) | Request::Goodbye(_)) if !self.hellos.take(HELLOS, now) => {
                over("more than one Hello a second")
            }
            Some(Request::Definitions(_)) if !self.definitions.take(DEFINITIONS, now) => {
                over("more than one part of definitions a second")
            }
            Some(Request::Inventory(_)) if !self.inventories.take(INVENTORIES, now) => {
                over("the inventory was asked for more than once a second")
            }
            Some(
                Request::RosterSync(_) | Request::Roster(_) | Request::StudioSync(_) | Request::Studio(_),
            ) if !self.rosters.take(ROSTERS, now) => {
                over("more than two questions or news about the roster a second")
            }
            Some(Request::Adverts(batch)) => {
                #[expect(clippy::cast_precision_loss, reason = "a frame holds few")]
                let count = batch.adverts.len().max(1) as f64;
                if self.adverts.take_many(count, ADVERTS, now) {
                    Ok(())
                } else {
                    over("more than ten adverts a second")
                }
            }
            _ => Ok(()),
        }
    }
}

/// About how many bytes a request took, as far as it can be much.
fn weight(request: &Request) -> usize {
    match request {
        Request::Grant(grant) => grant.envelope.len(),
        Request::Finished(finished) => finished.keys.len(),
        Request::Progress(progress) => {
            progress.node.len() + progress.preview.as_ref().map_or(0, |preview| preview.bytes.len())
        }
        // Bounded by their number; the rest is at most 64 KiB.
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scenemesh_protocol::ids::TaskId;
    use scenemesh_protocol::lease::{Phase, Preview, Probe, Progress};
    use scenemesh_protocol::messages::{DefinitionsGet, Goodbye, InventoryGet};

    use super::*;

    fn granted(calls: &mut Calls, now: Instant, request: &Request) -> (usize, String) {
        for n in 0..10_000 {
            if let Err(words) = calls.count(now, Some(request)) {
                return (n, words);
            }
        }
        panic!("no limit");
    }

    #[test]
    fn each_limit_is_named() {
        let now = Instant::now();
        let probe = Request::from(Probe { task: TaskId::from_bytes([1; 16]), attempt: 1 });
        let preview = Some(Preview { mime: "image/png".into(), bytes: vec![0; 256 << 10] });
        let progress = Request::from(Progress {
            task: TaskId::from_bytes([1; 16]),
            attempt: 1,
            seq: 1,
            phase: Phase::Running,
            node: String::new(),
            step: 0,
            max: 0,
            nodes_done: 0,
            nodes_total: 0,
            preview,
        });
        for (request, count, words) in [
            (probe, 400, "200 requests"),
            (progress, 256, "16 MiB"),
            (Goodbye.into(), 20, "Hello"),
            (InventoryGet.into(), 10, "inventory"),
            (DefinitionsGet { part: 0, have: Vec::new() }.into(), 20, "definitions"),
        ] {
            let mut calls = Calls::new(now);
            let (before, said) = granted(&mut calls, now, &request);
            assert_eq!(before, count, "{said}");
            assert!(said.contains(words) && said.contains("limit of this node"), "{said}");
            assert!(calls.count(now + Duration::from_secs(5), Some(&request)).is_ok(), "it passes");
        }
    }

    #[test]
    fn garbage_counts_as_much_as_the_largest_frame() {
        let now = Instant::now();
        let mut calls = Calls::new(now);
        assert_eq!((0..1000).take_while(|_| calls.count(now, None).is_ok()).count(), 64);
    }

    #[test]
    fn one_verb_at_its_limit_leaves_the_others() {
        let now = Instant::now();
        let mut calls = Calls::new(now);
        granted(&mut calls, now, &InventoryGet.into());
        let probe = Request::from(Probe { task: TaskId::from_bytes([1; 16]), attempt: 1 });
        assert!(calls.count(now, Some(&probe)).is_ok());
    }
}
