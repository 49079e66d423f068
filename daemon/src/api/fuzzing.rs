//! Doors for the fuzzer to the bodies of requests.

use std::hint::black_box;

use scenemesh_protocol::api::{
    ApproveRequest, InitRequest, InviteRequest, JoinPreviewRequest, JoinRequest, SubmitRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::workflow;

/// Every body, by the first byte; a submission is prepared as if it were to be queued.
pub(crate) fn api_bodies(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 6 {
        0 => read::<InitRequest>(body),
        1 => read::<InviteRequest>(body),
        2 => read::<JoinPreviewRequest>(body),
        3 => read::<JoinRequest>(body),
        4 => read::<ApproveRequest>(body),
        _ => {
            read::<SubmitRequest>(body);
            if let Ok(asked) = serde_json::from_slice::<SubmitRequest>(body) {
                let names: Vec<String> = asked.inputs.iter().map(|input| input.name.clone()).collect();
                black_box(workflow::prepare(&asked.workflow, &asked.set, &names).is_ok());
            }
        }
    }
}

/// What reads is written, and reads again.
fn read<T: DeserializeOwned + Serialize>(body: &[u8]) {
    if let Ok(read) = serde_json::from_slice::<T>(body) {
        let written = serde_json::to_vec(&read).expect("what was read is written");
        serde_json::from_slice::<T>(&written).expect("what was written is read");
    }
}
