//! Door for the fuzzer to what membership journals and what it hears.

use std::hint::black_box;

use scenemesh_protocol::codec;
use scenemesh_protocol::keys::{KemSecret, SecretKey};
use scenemesh_protocol::messages::{Request, RosterDiff};

use super::state::{Fact, Me, State};
use crate::store::Record;

const NOW: u64 = 1_800_000_000_000;

/// Facts, each behind two bytes of its length, replayed; then the last bytes as news of a member.
pub(crate) fn facts(bytes: &[u8]) {
    let node = SecretKey::from_seed(&[1; 32]);
    let mut state = State::new(Me { node: node.clone(), kem: KemSecret::from_bytes(&[2; 32]).public() });
    let mut rest = bytes;
    while let Some((length, more)) = rest.split_first_chunk() {
        let (body, more) = more.split_at(more.len().min(usize::from(u16::from_le_bytes(*length))));
        rest = more;
        if let Ok(fact) = codec::decode_body::<Fact>(body, Fact::LIMIT) {
            black_box(state.replay(fact).is_ok());
        }
        if let Ok(diff) = codec::decode_body::<RosterDiff>(body, 1 << 20) {
            black_box(state.on_request(node.public().node(), Request::Roster(diff), NOW));
        }
    }
    black_box(state.on_tick(NOW));
}
