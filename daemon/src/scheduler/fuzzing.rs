//! Door for the fuzzer to the scheduler's records in the journal.

use std::hint::black_box;
use std::time::Instant;

use scenemesh_protocol::codec;
use scenemesh_protocol::ids::NodeId;

use super::conversation::{IdSource, Now};
use super::record::{RendererRecord, RequesterRecord};
use super::renderer::{self, Renderer};
use super::requester::{self, Requester};
use crate::store::Record;

/// Records of either machine, each behind one byte that says whose and two of its length, replayed as at a start.
#[expect(clippy::disallowed_methods, reason = "any instant will do")]
pub(crate) fn records(bytes: &[u8]) {
    let me = NodeId::from_bytes([1; 32]);
    let now = Now { at: Instant::now(), wall_ms: 1_800_000_000_000 };
    let mut requester = Requester::new(me, IdSource::new([0; 32]));
    let mut renderer = Renderer::new(me, IdSource::new([0; 32]));
    let mut rest = bytes;
    while let Some(([kind, low, high], more)) = rest.split_first_chunk() {
        let (body, more) = more.split_at(more.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        rest = more;
        if kind % 2 == 0 {
            if let Ok(record) = codec::decode_body::<RequesterRecord>(body, RequesterRecord::LIMIT) {
                black_box(requester.on_input(now, requester::Input::Restored(record)));
            }
        } else if let Ok(record) = codec::decode_body::<RendererRecord>(body, RendererRecord::LIMIT) {
            black_box(renderer.on_input(now, renderer::Input::Restored(record)));
        }
    }
    black_box(requester.on_input(now, requester::Input::Started));
    black_box(renderer.on_input(now, renderer::Input::Started));
}
