//! Values about keys.

use scenemesh_protocol::api::{
    AdminKeyView, AdminsReply, BlockReply, BlockRequest, ChangeAdminsReply, ChangeAdminsRequest,
    InstalledReply, NewAdminRequest, NodeRef, Passphrase, RecoverRequest, RevokeReply, RevokeRequest,
    RotateReply, RotateRequest, RotateState, ShutState, ShutView,
};

use super::{Judge, NODE, passphrase, proposal, text};

fn node() -> NodeRef {
    NodeRef { id: NODE, name: text(), studio: Some(text()) }
}

pub(super) fn shut() -> ShutView {
    ShutView {
        node: NODE,
        name: text(),
        studio: text(),
        state: ShutState::Blocked,
        reason: text(),
        until_ms: Some(1),
    }
}

pub(super) fn about_keys(judge: &mut Judge) {
    let request = RevokeRequest {
        node: Some(text()),
        admin: Some(text()),
        reason: text(),
        void: true,
        passphrase: passphrase(),
    };
    judge.value("RevokeRequest", request);
    let reply = RevokeReply {
        node: Some(NODE),
        key: text(),
        name: text(),
        studio: text(),
        reason: text(),
        confirmed: vec![node()],
        later: vec![node()],
        attempts_there: 1,
        attempts_here: 1,
        resigned: 1,
        fallen: vec![text()],
    };
    judge.value("RevokeReply", reply);
    judge.value("BlockRequest", BlockRequest { node: text(), reason: text(), lift: true });
    let blocked = BlockReply { node: NODE, name: text(), studio: text(), until_ms: Some(1) };
    judge.value("BlockReply", blocked);
    judge.value("RotateRequest", RotateRequest { countersign: Some(text()), passphrase: passphrase() });
    let state = RotateState::Requested;
    judge.value(
        "RotateReply",
        RotateReply { state, code: Some(text()), name: Some(text()), old: NODE, new: NODE },
    );
    let key = AdminKeyView { key: text(), here: true, recovery: false, revoked: Some(text()) };
    judge.value(
        "AdminsReply",
        AdminsReply {
            studio: text(),
            keys: vec![key],
            file: text(),
            on_file: Some(text()),
            sealed: Some(true),
        },
    );
    judge.value("NewAdminRequest", NewAdminRequest { passphrase: passphrase() });
    let code = Passphrase::new(text());
    judge.value("RecoverRequest", RecoverRequest { code, passphrase: passphrase() });
    judge.value(
        "InstalledReply",
        InstalledReply { key: text(), file: text(), aside: Some(text()), sealed: true },
    );
    judge.value(
        "ChangeAdminsRequest",
        ChangeAdminsRequest { key: text(), remove: true, passphrase: passphrase() },
    );
    judge.value(
        "ChangeAdminsReply",
        ChangeAdminsReply { key: text(), proposal: proposal(), in_force: true, resigned: 1 },
    );
}
