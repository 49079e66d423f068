//! Scripted GPU readings for tests.

use std::sync::{Arc, Mutex, PoisonError};

use super::{GpuProbe, GpuReading};

/// A probe that reads whatever was last set on any of its clones.
#[derive(Clone, Debug, Default)]
pub struct FakeGpus {
    readings: Arc<Mutex<Vec<GpuReading>>>,
}

impl FakeGpus {
    pub fn with(readings: Vec<GpuReading>) -> Self {
        Self { readings: Arc::new(Mutex::new(readings)) }
    }

    pub fn set(&self, readings: Vec<GpuReading>) {
        *self.readings.lock().unwrap_or_else(PoisonError::into_inner) = readings;
    }

    /// An idle card as studios have it.
    pub fn rtx_4090() -> GpuReading {
        GpuReading {
            name: Some("NVIDIA GeForce RTX 4090".into()),
            uuid: Some("GPU-00000000-0000-0000-0000-000000000001".into()),
            cc: Some(89),
            vram_mib: Some(24_564),
            vram_free_mib: Some(23_500),
            utilisation_percent: Some(0),
            temperature_c: Some(41),
            power_mw: Some(19_000),
            processes: Some(0),
        }
    }
}

impl GpuProbe for FakeGpus {
    fn read(&mut self) -> Vec<GpuReading> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
