//! What a task leaves where it should leave nothing: in spools, journals, logs, ComfyUI's folders and file permissions.
//! Over real processes and the simulated ComfyUI; `real_comfyui` asks the real one.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends it")]

mod crashes;
mod life;
mod logs;
mod permissions;
mod spool;
