//! Checks of the contract suite that hold for a gateway as they do for a ComfyUI.

use anyhow::{Context, ensure};
use scenemesh_testnet::cluster::{CHECKPOINT, Comfy};
use scenemesh_testnet::workflows;
use serde_json::{Value, json};

use super::clients::defined;
use super::{GATEWAY, knows_models, rendered_on, tell};
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

#[test]
fn a_model_is_found_where_the_renderer_keeps_it() {
    tell(async |mesh| {
        let kept = format!("film/{CHECKPOINT}");
        mesh.add("amber", Comfy::simulated(&["--model", &format!("checkpoints/{kept}")])).await?;
        mesh.add_with("desk", Comfy::Absent, GATEWAY).await?;
        mesh.found("desk", "film", "oak").await?;
        mesh.admit("desk", "amber", None).await?;
        mesh.all_up().await?;
        let gateway = Subject::at(&mesh.node("desk").gateway().context("desk tells where its gateway is")?);
        knows_models(&gateway, 1, &kept).await?;
        let ran = gateway.run(&sampler_graph(CHECKPOINT, 1, 4), false).await;
        ensure!(ran.history[&ran.id]["status"]["status_str"] == "success", "{:#}", ran.history);
        ensure!(rendered_on(mesh) == ["amber"], "{:?}", rendered_on(mesh));
        let elsewhere = sampler_graph(&format!("other/{CHECKPOINT}"), 1, 4);
        let refused = gateway.post("/prompt", &json!({"prompt": elsewhere})).await;
        ensure!(
            refused.status == 400 && refused.body.to_string().contains("value_not_in_list"),
            "{refused:?}"
        );
        Ok(())
    });
}

#[test]
fn a_graph_whose_models_are_on_two_nodes_is_refused_with_what_each_lacks() {
    tell(async |mesh| {
        mesh.add("amber", Comfy::simulated(&["--model", "checkpoints/dawn.safetensors"])).await?;
        mesh.add("birch", Comfy::simulated(&["--model", "checkpoints/dusk.safetensors"])).await?;
        mesh.add_with("desk", Comfy::Absent, GATEWAY).await?;
        mesh.found("desk", "film", "oak").await?;
        for name in ["amber", "birch"] {
            mesh.admit("desk", name, None).await?;
        }
        mesh.all_up().await?;
        let gateway = Subject::at(&mesh.node("desk").gateway().context("desk tells where its gateway is")?);
        for checkpoint in ["dawn.safetensors", "dusk.safetensors"] {
            knows_models(&gateway, 2, checkpoint).await?;
        }
        let mut graph = sampler_graph("dawn.safetensors", 1, 4);
        graph["14"] =
            json!({"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "dusk.safetensors"}});
        graph["8"]["inputs"]["vae"] = json!(["14", 2]);
        let refused = gateway.post("/prompt", &json!({"prompt": graph})).await;
        ensure!(refused.status == 400, "{refused:?}");
        let message = refused.body["error"]["message"].as_str().unwrap_or_default();
        for lack in [
            "amber: shows no model checkpoints/dusk.safetensors",
            "birch: shows no model checkpoints/dawn.safetensors",
        ] {
            ensure!(message.contains(lack), "{message}");
        }
        ensure!(gateway.get("/queue").await.body["queue_pending"] == json!([]), "nothing is queued");
        Ok(())
    });
}

#[test]
fn what_a_node_shows_and_an_extension_says_arrives_as_it_was_sent() {
    tell(async |mesh| {
        let gateway = defined(mesh, &["--step-ms", "60", "--decode-ms", "300", "--talkative"], "").await?;
        let mut other = gateway.listen("somebody-else").await;
        let ran = gateway.run(&sampler_graph(CHECKPOINT, 1, 6), true).await;
        let binary = |event: u32| -> Vec<&[u8]> {
            let frames = ran.frames.iter().filter_map(|frame| match frame {
                Heard::Binary(bytes) => bytes.strip_prefix(&event.to_be_bytes()[..]),
                Heard::Text(_) => None,
            });
            frames.collect()
        };
        let (texts, own) = (binary(3), binary(0x4d45_5348));
        ensure!(!texts.is_empty() && !own.is_empty(), "{} texts, {} of its own", texts.len(), own.len());
        for (at, text) in texts.iter().enumerate() {
            let words = format!("step {} of 6", at + 1);
            ensure!(*text == [&1_u32.to_be_bytes()[..], b"3", words.as_bytes()].concat(), "{text:?}");
        }
        ensure!(own.iter().all(|frame| frame.starts_with(b"step ")), "{own:?}");
        ensure!(
            texts.len() == 6 && own.len() == 6,
            "all of a slow render: {} and {}",
            texts.len(),
            own.len()
        );
        // Whatever came for the other client lies in its socket before its own render.
        let id = gateway.submit(&workflows::tiny(3), "somebody-else").await;
        let heard = other.until_done(&id).await;
        ensure!(
            heard.iter().all(|frame| frame.text().is_some()),
            "another client hears none of it: {heard:?}"
        );
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
