//! What travels: pinned bytes of every message, and what no bytes from a peer may do.

mod decode_any;
mod golden;
mod properties;
mod samples;
