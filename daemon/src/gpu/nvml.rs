//! Readings from NVIDIA's management library, when there is one.

use std::ffi::OsStr;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::{Device, Nvml as Library};

use super::{GpuProbe, GpuReading};

/// Reads through NVML. The library is looked for again until it is found: drivers get installed under running nodes.
#[derive(Debug, Default)]
pub struct Nvml {
    library: Option<Library>,
    missed: bool,
}

impl GpuProbe for Nvml {
    fn read(&mut self) -> Vec<GpuReading> {
        if self.library.is_none() {
            self.library = load(&mut self.missed);
        }
        let Some(library) = &self.library else { return Vec::new() };
        match library.device_count() {
            Ok(count) => (0..count)
                .filter_map(|index| library.device_by_index(index).ok())
                .map(|gpu| reading(&gpu))
                .collect(),
            Err(error) => {
                // After a driver update under a running node every call fails until the library is loaded anew.
                tracing::debug!(%error, "NVML no longer answers; loading it anew at the next reading");
                self.library = None;
                Vec::new()
            }
        }
    }
}

fn load(missed: &mut bool) -> Option<Library> {
    // The development name is often absent where only the driver is installed, hence the versioned one.
    let found =
        Library::init().or_else(|_| Library::builder().lib_path(OsStr::new("libnvidia-ml.so.1")).init());
    match found {
        Ok(library) => {
            *missed = false;
            Some(library)
        }
        Err(error) => {
            if !std::mem::replace(missed, true) {
                tracing::debug!(%error, "no NVML here; GPUs are read from ComfyUI instead");
            }
            None
        }
    }
}

fn reading(gpu: &Device<'_>) -> GpuReading {
    let memory = gpu.memory_info().ok();
    let computing = gpu.running_compute_processes_count().ok();
    let drawing = gpu.running_graphics_processes_count().ok();
    let processes = (computing.is_some() || drawing.is_some())
        .then(|| computing.unwrap_or(0).saturating_add(drawing.unwrap_or(0)))
        .map(|count| u16::try_from(count).unwrap_or(u16::MAX));
    GpuReading {
        name: gpu.name().ok(),
        uuid: gpu.uuid().ok(),
        cc: gpu.cuda_compute_capability().ok().and_then(|cc| u16::try_from(cc.major * 10 + cc.minor).ok()),
        vram_mib: memory.as_ref().map(|memory| mib(memory.total)),
        vram_free_mib: memory.as_ref().map(|memory| mib(memory.free)),
        utilisation_percent: gpu.utilization_rates().ok().and_then(|use_| u8::try_from(use_.gpu).ok()),
        temperature_c: gpu
            .temperature(TemperatureSensor::Gpu)
            .ok()
            .and_then(|degrees| u16::try_from(degrees).ok()),
        power_mw: gpu.power_usage().ok(),
        processes,
    }
}

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}
