//! Doors for the fuzzer to the bodies of requests.

use std::hint::black_box;

use scenemesh_protocol::api::{
    ApproveRequest, BlockRequest, ChangeAdminsRequest, InitRequest, InviteRequest, JoinPreviewRequest,
    JoinRequest, NewAdminRequest, PolicyChangeRequest, PolicyCheckRequest, PolicyClassRequest,
    ProjectRequest, ProjectSetRequest, RecoverRequest, RevokeRequest, RotateRequest, SubmitRequest,
    UserRemoveRequest, UserRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::workflow;

/// Every body, by the first byte; a submission is prepared as if it were to be queued.
pub(crate) fn api_bodies(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 19 {
        0 => read::<InitRequest>(body),
        1 => read::<InviteRequest>(body),
        2 => read::<JoinPreviewRequest>(body),
        3 => read::<JoinRequest>(body),
        4 => read::<ApproveRequest>(body),
        5 => read::<BlockRequest>(body),
        6 => read::<ChangeAdminsRequest>(body),
        7 => read::<NewAdminRequest>(body),
        8 => read::<PolicyChangeRequest>(body),
        9 => read::<PolicyCheckRequest>(body),
        10 => read::<PolicyClassRequest>(body),
        11 => read::<ProjectRequest>(body),
        12 => read::<ProjectSetRequest>(body),
        13 => read::<RecoverRequest>(body),
        14 => read::<RevokeRequest>(body),
        15 => read::<RotateRequest>(body),
        16 => read::<UserRemoveRequest>(body),
        17 => read::<UserRequest>(body),
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
