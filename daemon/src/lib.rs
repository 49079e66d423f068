//! The SceneMesh node.

/// Overwrites what is freed: parsers, HTTP and sockets copy tasks and keys, and wipe nothing.
#[global_allocator]
static MEMORY: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

pub mod api;
pub mod args;
pub mod clock;
pub mod config;
pub mod executor;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gateway;
pub mod gpu;
pub mod http;
pub mod membership;
pub mod messages;
pub mod network;
pub mod node;
pub mod platform;
pub mod scheduler;
pub mod store;
pub mod supervisor;
pub mod telemetry;
