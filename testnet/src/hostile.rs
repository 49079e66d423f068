//! A second node, written from `docs/protocol.md` alone, and hostile when a test says so.
//!
//! It shares no line with the daemon: own bytes, own signatures, own envelopes, own blobs. So it proves that the page is
//! enough to write a node, and it can say what no honest node would. It speaks one step at a time: a test decides what is
//! sent, with which mistake in it. It comes as a *stranger* ([`link::Link`], [`porch`]) or as a *member* ([`member::Member`]
//! that joined with a real invite).

pub mod blobs;
pub mod bytes;
pub mod envelope;
pub mod flood;
pub mod invite;
pub mod keys;
pub mod link;
pub mod manners;
pub mod member;
pub mod porch;
pub mod questions;
pub mod records;
pub mod renderer;
pub mod requester;
pub mod task;
