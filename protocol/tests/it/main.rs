//! What travels: pinned bytes of every message, and what no bytes from a peer may do.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod corpus;
mod decode_any;
mod golden;
mod properties;
mod samples;
