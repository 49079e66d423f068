//! Integration tests of the testnet and of what it is made of, in one binary.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends it")]

mod comfyui_contract;
mod comfyui_faults;
mod comfyui_gives_back;
mod gateway;
