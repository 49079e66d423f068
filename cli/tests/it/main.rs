//! The whole command, as a process, against a scripted daemon: what it prints, what it sends, how it ends.

<<<<<<< HEAD
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends there")]
=======
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps in vain, its helpers too")]
>>>>>>> review

mod errors;
mod jobs;
mod pool;
mod sandbox;
mod submit;
