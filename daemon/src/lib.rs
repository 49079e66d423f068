//! The SceneMesh node.

pub mod api;
pub mod args;
pub mod clock;
pub mod config;
pub mod executor;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gpu;
pub mod membership;
pub mod messages;
pub mod network;
pub mod node;
pub mod platform;
pub mod scheduler;
pub mod store;
pub mod supervisor;
pub mod telemetry;
