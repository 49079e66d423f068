//! Real SceneMesh nodes on one machine: how the demo, the scenarios and the benches get a mesh to work with.
//!
//! A scenario starts a [`cluster::Cluster`], says what happens, and waits for facts with [`eventually::eventually`];
//! it never sleeps. Every node is a process of its own, beside a ComfyUI of its own, and is set up and asked through
//! the real command line.

pub mod bench;
pub mod chaos;
pub mod cluster;
pub mod comfyui;
pub mod demo;
pub mod eventually;
pub mod hostile;
pub mod port;
pub mod program;
pub mod proxy;
pub mod scenarios;
pub mod simulated;
pub mod story;
pub mod talk;
pub mod workflows;
