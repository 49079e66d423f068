//! Real swarms over TCP on the loopback, several networks in one process. Everything waits for facts.

mod flooding;
pub(super) mod harness;
mod linking;
mod porch;
mod shut_out;
mod spreading;
