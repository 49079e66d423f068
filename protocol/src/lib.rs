//! What SceneMesh nodes can say to each other: types, proofs, bytes. No I/O, no clock, no async.

pub mod advert;
pub mod api;
pub mod codec;
pub mod deputy;
pub mod envelope;
pub mod ids;
pub mod invite;
pub mod keyfile;
pub mod keys;
pub mod lease;
pub mod messages;
pub mod receipt;
pub mod roster;
pub mod sealed;
pub mod signed;
pub mod studio;
pub mod task;

mod text_code;
