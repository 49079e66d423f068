//! Integration tests of the testnet and of what it is made of, in one binary.

mod comfyui_contract;
mod comfyui_faults;
