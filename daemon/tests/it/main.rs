//! Whole nodes in this process, spoken to as their clients do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod api;
mod roles;
