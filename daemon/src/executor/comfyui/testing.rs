//! What unit tests of this folder share: a slice of a real `/object_info` (0.3.64), and a graph that fits it.

use serde_json::{Value, json};

use super::inventory::Inventory;

pub(crate) const OBJECT_INFO: &str = include_str!("testing/object_info.json");

pub(super) fn inventory() -> Inventory {
    Inventory::read(OBJECT_INFO.as_bytes(), Vec::new()).expect("the test's own list reads")
}

pub(crate) fn ksampler() -> Value {
    json!({
        "3": {"class_type": "KSampler", "inputs": {"cfg": 7.5, "denoise": 1, "latent_image": ["5", 0],
            "model": ["4", 0], "negative": ["7", 0], "positive": ["6", 0], "sampler_name": "euler",
            "scheduler": "normal", "seed": 42, "steps": 8}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny_sd15.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": 1, "height": 64, "width": 64}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "a lighthouse at dusk"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "blurry"}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "scene_001_cut_003", "images": ["8", 0]}},
    })
}
