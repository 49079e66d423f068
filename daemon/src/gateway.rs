//! The ComfyUI surface: what a program that can talk to one ComfyUI sees of the pool.

pub mod catalog;
pub mod reachable;
