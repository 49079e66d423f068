//! Many SceneMesh nodes on one machine: scenarios, benches, and the simulated ComfyUI they render on.

pub mod comfyui;
