//! Tells other nodes what the classes of the ComfyUIs beside us look like, as far as each may know.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::Ports;
use crate::executor::definitions::{BadDefinitions, Definitions};
use crate::executor::{SlotState, SlotView};
use crate::network::{Pack, Told};
use crate::supervisor::Tasks;

/// Keeps what is told as what is here changes. Reading and packing takes up to a second: it has a thread of its own.
pub(super) fn spawn(shared_folders: BTreeSet<String>, ports: &Ports, tasks: &Tasks) {
    let (network, mut slots) = (ports.network.clone(), ports.executor.slots());
    let (own, stop) = (tasks.clone(), tasks.stopping());
    let shared_folders = Arc::new(shared_folders);
    tasks.spawn("definitions", async move {
        let mut told_of: Vec<Bytes> = Vec::new();
        loop {
            let now = definitions(&slots.borrow_and_update());
            if now != told_of {
                let (of, folders) = (now.clone(), shared_folders.clone());
                let Ok(told) = own.blocking(move || pack(&of, &folders)).await else { return Ok(()) };
                network.tell(told);
                told_of = now;
            }
            match stop.run_until_cancelled(slots.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return Ok(()),
            }
        }
    });
}

/// What each ComfyUI that is up says.
fn definitions(slots: &[SlotView]) -> Vec<Bytes> {
    let up = slots.iter().filter(|view| matches!(view.state, SlotState::Ready | SlotState::Busy { .. }));
    up.map(|view| view.inventory.definitions.clone()).filter(|said| !said.is_empty()).collect()
}

/// What cannot be told is not told: then this node is known by names only, and is asked all the same.
fn pack(said: &[Bytes], shared_folders: &BTreeSet<String>) -> Told {
    let told = said.iter().filter_map(|said| noted(Definitions::read(said)));
    let Some(whole) = told.reduce(|first, other| first.and(&other)) else { return Told::default() };
    let shared = whole.clone().for_others(shared_folders);
    let pack = |told: Definitions| Pack::of(noted(told.without_models().pack()).unwrap_or_default());
    Told { studio: pack(whole), shared: pack(shared) }
}

fn noted<T>(result: Result<T, BadDefinitions>) -> Option<T> {
    result.inspect_err(|error| tracing::info!(%error, "this node's classes are told by names only")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = r#"{"LoraLoader": {"input": {"required": {"lora_name": [["hero.pt"], {"default": "hero.pt"}]}},
        "output": ["MODEL"]}}"#;

    #[test]
    fn other_studios_are_told_less_and_neither_is_told_of_models() {
        let told = pack(&[Bytes::from_static(INFO.as_bytes())], &BTreeSet::new());
        assert_ne!(told.studio, told.shared);
        let broken =
            pack(&[Bytes::from_static(b"no JSON"), Bytes::from_static(INFO.as_bytes())], &BTreeSet::new());
        assert_eq!(broken, told);
        assert_eq!(pack(&[Bytes::from_static(b"no JSON")], &BTreeSet::new()), Told::default());
    }
}
