//! The whole command, as a process, against a scripted daemon: what it prints, what it sends, how it ends.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod errors;
mod jobs;
mod journal;
mod leaving;
mod policy;
mod pool;
mod projects;
mod sandbox;
mod submit;
mod trust;
