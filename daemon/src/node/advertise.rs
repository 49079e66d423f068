//! What this node tells the pool about itself: slots, devices and inventories, joined from those who know.

use std::collections::BTreeSet;
use std::sync::Arc;

use scenemesh_protocol::advert::{Availability, GpuAdvert, Hygiene, Inventory};
use scenemesh_protocol::task::ModelName;
use tokio::sync::watch;

use crate::executor::{SlotState, SlotView};
use crate::gpu::GpuReading;
use crate::network::{Network, Publication};
use crate::supervisor::Tasks;

/// Publishes this node's offer whenever a slot, a device or the line changes.
pub(super) fn spawn(
    network: Network,
    mut slots: watch::Receiver<Arc<Vec<SlotView>>>,
    mut gpus: watch::Receiver<Arc<Vec<GpuReading>>>,
    mut waiting: watch::Receiver<u32>,
    shared_folders: Vec<String>,
    tasks: &Tasks,
) {
    let stop = tasks.stopping();
    tasks.spawn("advertise", async move {
        let shared_folders: BTreeSet<String> = shared_folders.into_iter().collect();
        loop {
            let offer = {
                let (slots, gpus) = (slots.borrow_and_update().clone(), gpus.borrow_and_update().clone());
                publication(&slots, &gpus, *waiting.borrow_and_update(), &shared_folders)
            };
            network.publish(offer);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = slots.changed() => if changed.is_err() { return Ok(()) },
                changed = gpus.changed() => if changed.is_err() { return Ok(()) },
                changed = waiting.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    });
}

fn publication(
    slots: &[SlotView],
    gpus: &[GpuReading],
    waiting: u32,
    shared_folders: &BTreeSet<String>,
) -> Publication {
    let at_work: Vec<&SlotView> =
        slots.iter().filter(|slot| matches!(slot.state, SlotState::Ready | SlotState::Busy { .. })).collect();
    let free = at_work.iter().filter(|slot| slot.state == SlotState::Ready && slot.others_queued == 0).count();
    let shares = |model: &ModelName| shared_folders.contains(&model.folder);
    let studio = whole_inventory(&at_work);
    let shared = Inventory {
        classes: studio.classes.clone(),
        models: studio.models.iter().filter(|model| shares(model)).cloned().collect(),
    };
    let warm = at_work.iter().flat_map(|slot| &slot.warm).filter(|model| shares(model)).cloned().collect();
    let partial = at_work.iter().any(|slot| slot.hygiene == Hygiene::Partial);
    Publication {
        availability: if at_work.is_empty() { Availability::NotNow } else { Availability::Available },
        hygiene: if partial { Hygiene::Partial } else { Hygiene::Full },
        slots_total: count(at_work.len()),
        slots_free: count(free),
        queue: count(waiting as usize),
        gpus: devices(&at_work, gpus),
        warm,
        comfyui: at_work.first().map(|slot| slot.comfyui_version.clone()).unwrap_or_default(),
        inventory_studio: Arc::new(studio),
        inventory_shared: Arc::new(shared),
    }
}

fn count(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn whole_inventory(slots: &[&SlotView]) -> Inventory {
    let classes: BTreeSet<&String> = slots.iter().flat_map(|slot| &slot.inventory.classes).collect();
    let models: BTreeSet<&ModelName> = slots.iter().flat_map(|slot| &slot.inventory.models).collect();
    Inventory { classes: classes.into_iter().cloned().collect(), models: models.into_iter().cloned().collect() }
}

/// The driver's word where there is one, else ComfyUI's.
fn devices(slots: &[&SlotView], gpus: &[GpuReading]) -> Vec<GpuAdvert> {
    if gpus.is_empty() {
        let seen = slots.iter().flat_map(|slot| &slot.devices);
        return seen
            .map(|device| GpuAdvert {
                name: device.name.clone(),
                vram_mib: device.vram_mib,
                vram_free_mib: device.vram_free_mib,
                cc: None,
            })
            .collect();
    }
    gpus.iter()
        .map(|gpu| GpuAdvert {
            name: gpu.name.clone().unwrap_or_else(|| "GPU".to_owned()),
            vram_mib: gpu.vram_mib,
            vram_free_mib: gpu.vram_free_mib,
            cc: gpu.cc,
        })
        .collect()
}
