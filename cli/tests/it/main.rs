//! The whole command, as a process, against a scripted daemon: what it prints, what it sends, how it ends.

mod errors;
mod jobs;
mod pool;
mod sandbox;
mod submit;
