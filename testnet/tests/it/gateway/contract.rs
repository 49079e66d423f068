//! Checks of the contract suite that hold for a gateway as they do for a ComfyUI.

use anyhow::{Context, ensure};
use scenemesh_testnet::cluster::CHECKPOINT;
use serde_json::Value;

use super::clients::defined;
use super::tell;
use crate::comfyui_contract::judged_alike::prompts_are_judged_alike;
use crate::comfyui_contract::node_definitions;
use crate::comfyui_contract::refusals::more_prompt_errors;
use crate::comfyui_contract::subject::{Heard, Subject, sampler_graph};

#[test]
fn definitions_are_told_and_prompts_are_refused_as_comfyui_does_it() {
    tell(async |mesh| {
        let gateway = defined(mesh, &[], "").await?;
        node_definitions(&gateway).await;
        more_prompt_errors(&gateway).await;
        prompts_are_judged_alike(&gateway).await;
        Ok(())
    });
}

/// Events without those that only help who watches, and what tells them apart.
fn events(frames: &[Heard]) -> Vec<String> {
    let told = |frame: &Heard| {
        let text = frame.text()?;
        match text["type"].as_str()? {
            "progress" | "progress_state" | "status" => None,
            kind => Some(format!("{kind} {}", text["data"]["node"])),
        }
    };
    frames.iter().filter_map(told).collect()
}

#[test]
fn frames_come_in_the_order_in_which_one_comfyui_sends_them() {
    tell(async |mesh| {
        let gateway = defined(mesh, &["--step-ms", "40"], "").await?;
        let comfyui = Subject::at(mesh.node("amber").comfy_url().context("amber has a ComfyUI")?);
        let through = gateway.run(&sampler_graph(CHECKPOINT, 1, 8), true).await;
        let direct = comfyui.run(&sampler_graph(CHECKPOINT, 2, 8), true).await;
        let (ours, theirs) = (events(&through.frames), events(&direct.frames));
        // A renderer reports what runs now and then: what was over in between is not told, and nothing else differs.
        let mut rest = theirs.iter();
        ensure!(
            ours.iter().all(|event| rest.any(|other| other == event)),
            "{ours:#?}\nbut directly {theirs:#?}"
        );
        for event in theirs.iter().filter(|event| !event.starts_with("executing \"")) {
            ensure!(ours.contains(event), "{event} is missing: {ours:#?}");
        }
        let steps = |frames: &[Heard]| -> Vec<u64> {
            let steps = frames.iter().filter(|frame| frame.is("progress")).filter_map(Heard::text);
            steps.filter_map(|text| text["data"]["value"].as_u64()).collect()
        };
        let told = steps(&through.frames);
        ensure!(!told.is_empty() && told.is_sorted(), "{told:?}");
        // The history says the same but for names, times and what was cached.
        let (ours, theirs) = (&through.history[&through.id], &direct.history[&direct.id]);
        ensure!(ours["status"]["status_str"] == theirs["status"]["status_str"], "{ours:#}");
        ensure!(ours["meta"] == theirs["meta"], "{ours:#}");
        let keys = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
        ensure!(keys(ours) == keys(theirs) && keys(&ours["outputs"]) == keys(&theirs["outputs"]), "{ours:#}");
        Ok(())
    });
}
