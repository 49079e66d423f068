//! What this machine's GPUs say of themselves: a sampler that publishes readings as a watch.
//!
//! A machine without an NVIDIA driver is an ordinary machine: its readings are empty, and whoever joins the
//! parts falls back to what ComfyUI tells (`executor::SlotView::devices`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::supervisor::Tasks;

#[cfg(any(test, feature = "test-util"))]
pub mod fake;
mod nvml;

pub use nvml::Nvml;

/// How the sampler works.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time between readings. Shorter costs the driver a little power on laptops; longer makes adverts stale.
    pub interval: Duration,
    /// Notified by whoever cannot wait for the next reading.
    pub look: Arc<Notify>,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), look: Arc::default() }
    }
}

/// One GPU at one moment. Whatever a driver does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuReading {
    pub name: Option<String>,
    /// The driver's identifier, stable over restarts and reordering.
    pub uuid: Option<String>,
    /// CUDA compute capability times ten (8.9 is 89).
    pub cc: Option<u16>,
    pub vram_mib: Option<u32>,
    pub vram_free_mib: Option<u32>,
    pub utilisation_percent: Option<u8>,
    /// Degrees Celsius.
    pub temperature_c: Option<u16>,
    pub power_mw: Option<u32>,
    /// Processes that hold this GPU, computing or drawing.
    pub processes: Option<u16>,
}

/// A source of readings. Called from a blocking thread: it may take milliseconds.
pub trait GpuProbe: Send + 'static {
    /// All GPUs now, in the driver's order; empty when there is no driver or no GPU.
    fn read(&mut self) -> Vec<GpuReading>;
}

/// Starts the sampler. The first readings are there when it returns.
pub async fn spawn(
    config: Config,
    probe: Box<dyn GpuProbe>,
    tasks: &Tasks,
) -> watch::Receiver<Arc<Vec<GpuReading>>> {
    let (sender, receiver) = watch::channel(Arc::new(Vec::new()));
    let probe = sample(probe, &sender, tasks).await;
    let stop = tasks.stopping();
    let sampling = tasks.clone();
    tasks.spawn("gpu sampler", async move {
        let mut probe = probe;
        while let Some(ready) = probe {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sender.closed() => break,
                () = config.look.notified() => {}
                () = tokio::time::sleep(config.interval) => {}
            }
            probe = sample(ready, &sender, &sampling).await;
        }
        // Whoever still looks sees the last readings, not a closed channel, until the node stops.
        stop.cancelled().await;
        drop(sender);
        Ok(())
    });
    receiver
}

/// Reads once; gives the probe back unless it panicked.
async fn sample(
    mut probe: Box<dyn GpuProbe>,
    sender: &watch::Sender<Arc<Vec<GpuReading>>>,
    tasks: &Tasks,
) -> Option<Box<dyn GpuProbe>> {
    let read = tasks.blocking(move || {
        let readings = probe.read();
        (probe, readings)
    });
    match read.await {
        Ok((probe, readings)) => {
            sender.send_if_modified(|held| {
                let changed = **held != readings;
                if changed {
                    *held = Arc::new(readings);
                }
                changed
            });
            Some(probe)
        }
        Err(error) => {
            tracing::warn!(%error, "reading the GPUs failed; no further readings until the next start");
            sender.send_replace(Arc::new(Vec::new()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeGpus;
    use super::*;
    use crate::supervisor::Supervisor;

    #[tokio::test]
    async fn readings_are_there_at_once_and_follow_the_probe() {
        let supervisor = Supervisor::new(Duration::from_secs(1));
        let gpus = FakeGpus::with(vec![GpuReading { vram_free_mib: Some(8000), ..FakeGpus::rtx_4090() }]);
        let config = Config { interval: Duration::from_millis(1), ..Config::default() };
        let mut readings = spawn(config, Box::new(gpus.clone()), &supervisor.tasks()).await;
        assert_eq!(readings.borrow()[0].vram_free_mib, Some(8000));

        gpus.set(vec![GpuReading { vram_free_mib: Some(500), ..FakeGpus::rtx_4090() }]);
        readings.wait_for(|now| now[0].vram_free_mib == Some(500)).await.unwrap();
        supervisor.run_until(std::future::ready(())).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_cannot_wait_gets_a_reading_at_once() {
        let supervisor = Supervisor::new(Duration::from_secs(1));
        let gpus = FakeGpus::with(vec![FakeGpus::rtx_4090()]);
        let config = Config { interval: Duration::from_hours(1), ..Config::default() };
        let look = config.look.clone();
        let mut readings = spawn(config, Box::new(gpus.clone()), &supervisor.tasks()).await;
        gpus.set(vec![GpuReading { vram_free_mib: Some(500), ..FakeGpus::rtx_4090() }]);
        look.notify_one();
        readings.wait_for(|now| now[0].vram_free_mib == Some(500)).await.unwrap();
        supervisor.run_until(std::future::ready(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_machine_without_a_driver_has_no_readings_and_goes_on() {
        let supervisor = Supervisor::new(Duration::from_secs(1));
        let readings =
            spawn(Config::default(), Box::new(FakeGpus::with(Vec::new())), &supervisor.tasks()).await;
        assert!(readings.borrow().is_empty());
        supervisor.run_until(std::future::ready(())).await.unwrap();
    }

    #[test]
    fn nvml_is_asked_without_a_panic_whatever_this_machine_has() {
        for reading in Nvml::default().read() {
            assert!(reading.vram_mib.is_none_or(|mib| mib > 0), "{reading:?}");
        }
    }
}
