//! Doors for the fuzzer to everything here that reads what ComfyUI, or a submitter, says.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;

use bytes::Bytes;
use scenemesh_protocol::ids::TaskId;
use serde_json::{Value, json};

use super::inventory::Inventory;
use super::rewrite::{self, Names, Saving};
use super::tracker::Tracker;
use super::{answers, classify, collect, devices, frames, testing};
use crate::executor::definitions::Definitions;
use crate::executor::graph::Graph;
use crate::executor::policy::{self, Policy, Whose};

/// The graph reader, its edits, the checks before a run, and what is posted in the end.
///
/// The bytes are a workflow, and behind a zero byte what is set in it: `NODE.INPUT=VALUE` and extra data.
pub(crate) fn graph(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let (workflow, set, extra) = (parts.next(), parts.next(), parts.next());
    let Ok(mut graph) = Graph::parse(workflow.unwrap_or_default()) else { return };
    if let Some((path, value)) = set.and_then(|set| str::from_utf8(set).ok()?.split_once('=')) {
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        black_box(graph.set(path, value).is_ok());
    }
    graph.add_to_seeds(u64::MAX - 1);
    black_box((graph.classes(), graph.models()));
    let attached: Vec<String> = graph.file_inputs().iter().map(|file| file.name().to_owned()).collect();
    for whose in [Whose::OwnMachine, Whose::Others] {
        let found = Policy::default().findings(&graph, extra.unwrap_or_default(), &attached, whose);
        black_box((found.iter().map(ToString::to_string).collect::<Vec<_>>(), policy::failure(&found)));
    }
    let inventory = testing::inventory();
    black_box(inventory.check(&graph, &attached).is_ok());
    let names = Names::new("amber", TaskId::from_bytes([7; 16]), 1, false).posted([7; 4]);
    let uploads: BTreeMap<String, String> =
        attached.iter().enumerate().map(|(n, name)| (name.clone(), rewrite::upload_name(n, name))).collect();
    for saving in [Saving::ToDisk, Saving::Streaming] {
        let mut graph = graph.clone();
        rewrite::rewrite(&mut graph, &inventory, &names, &uploads, saving);
        black_box(rewrite::prompt_body(&graph, extra.unwrap_or_default(), &names, true).is_ok());
        let again = Graph::parse(&graph.to_bytes()).expect("a graph that was read is read again");
        assert_eq!(again.len(), graph.len());
    }
}

/// History and queue.
pub(crate) fn comfyui_history(bytes: &[u8]) {
    black_box(answers::queue(bytes).is_ok());
    black_box(answers::history_rows(bytes).is_ok());
    let Ok(Some(entry)) = answers::history_entry(bytes, "p") else { return };
    for found in collect::outputs(&entry) {
        if let collect::What::File(file) | collect::What::MaybeFile(file) = found.what {
            assert!(!file.filename.contains(['/', '\\', '\0']), "a file name is no path");
            assert!(!file.subfolder.split(['/', '\\']).any(|part| part == ".."), "a folder is not left");
        }
    }
    black_box((collect::ending(&entry), collect::cached_nodes(&entry)));
}

/// `/object_info`, on its way to other nodes too, and `/system_stats`.
pub(crate) fn comfyui_inventory(bytes: &[u8]) {
    black_box(Definitions::unpack(bytes).is_ok());
    if let Ok(definitions) = Definitions::read(bytes) {
        let told = definitions.for_others(&BTreeSet::new()).without_models();
        let unpacked = Definitions::unpack(&told.pack().expect("it is short")).map(|(there, _)| there);
        assert_eq!(unpacked, Ok(told), "what arrives is what was told");
    }
    if let Ok(stats) = serde_json::from_slice::<Value>(bytes) {
        black_box(devices(&stats));
    }
    let Ok(inventory) = Inventory::read(bytes, vec![("loras".into(), vec!["a\\b.safetensors".into()])])
    else {
        return;
    };
    let graph = Graph::from_value(testing::ksampler()).expect("it is a graph");
    black_box(inventory.check(&graph, &[]).is_ok());
    black_box(inventory.spelling("CheckpointLoaderSimple", "ckpt_name", "a/b"));
    assert!(inventory.classes.is_sorted());
}

/// The event socket: the bytes are frames, each behind one byte that says of which kind, and two of its length.
pub(crate) fn comfyui_frames(bytes: &[u8]) {
    let mut tracker = Tracker::new("p", 3);
    let mut rest = bytes;
    while let Some(([kind, low, high], more)) = rest.split_first_chunk() {
        let (frame, more) = more.split_at(more.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        rest = more;
        let read = match (kind % 2, str::from_utf8(frame)) {
            (0, Ok(text)) => frames::read_text(text),
            _ => frames::read_binary(&Bytes::copy_from_slice(frame)),
        };
        black_box(tracker.on_frame(read));
        black_box((tracker.node(), tracker.steps(), tracker.nodes()));
    }
}

/// What ComfyUI says went wrong.
pub(crate) fn comfyui_errors(bytes: &[u8]) {
    let value = serde_json::from_slice::<Value>(bytes);
    let value = value.unwrap_or_else(|_| json!({"exception_message": String::from_utf8_lossy(bytes)}));
    for failure in [classify::execution_error(&value), classify::refused(&value)] {
        assert!(
            failure.detail.len() < 16 << 10,
            "a failure is a sentence, not {} bytes",
            failure.detail.len()
        );
    }
}
