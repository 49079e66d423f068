//! Real programs that speak with ComfyUI, as their registries have them, against a gateway that has no ComfyUI.
//! `.ci/clients` installs them.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, bail, ensure};
use scenemesh_testnet::cluster::{CHECKPOINT, Cluster, Comfy};
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::workflows;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{knows_models, rendered_on, tell};
use crate::comfyui_contract::subject::Subject;

/// Of a real ComfyUI: any small SD 1.x of that name.
const REAL_CHECKPOINT: &str = "tiny_sd15.safetensors";

/// Where a client is installed; none, with a line, where it is not.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(super) fn client(name: &str) -> Option<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients").join(name);
    if home.join("installed").exists() {
        return Some(home);
    }
    let required = std::env::var_os("SCENEMESH_REQUIRE").is_some_and(|what| what == "all");
    assert!(!required, "{name} is not installed, and SCENEMESH_REQUIRE is set: run .ci/clients");
    eprintln!("skipped: {name} is not installed; .ci/clients does it");
    None
}

/// The ComfyUI of the one renderer behind the gateway.
pub(super) enum Behind {
    /// Started with these arguments.
    Simulated(&'static [&'static str]),
    /// The one that `SCENEMESH_COMFYUI_URL` names, while it is this test's turn.
    Real(Subject),
}

impl Behind {
    /// A real one; none, with a line, where none is named.
    pub(super) fn real() -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Subject::real()).map(Self::Real)
    }

    pub(super) const fn checkpoint(&self) -> &'static str {
        match self {
            Self::Simulated(_) => CHECKPOINT,
            Self::Real(_) => REAL_CHECKPOINT,
        }
    }

    /// That the renderer ran what the gateway's node cannot.
    pub(super) fn rendered(&self, mesh: &Cluster) -> bool {
        // A real one is asked by nobody else meanwhile, and keeps no log; the gateway's node has none that could.
        matches!(self, Self::Real(_)) || rendered_on(mesh) == ["amber"]
    }
}

/// A studio whose `desk` has a gateway and no ComfyUI, and one renderer with a simulated one.
pub(super) async fn defined(
    mesh: &mut Cluster,
    arguments: &'static [&'static str],
    more: &str,
) -> Result<Subject> {
    before(mesh, &Behind::Simulated(arguments), more).await
}

/// A studio whose `desk` has a gateway and no ComfyUI, and one renderer.
pub(super) async fn before(mesh: &mut Cluster, behind: &Behind, more: &str) -> Result<Subject> {
    let comfyui = match behind {
        Behind::Simulated(arguments) => Comfy::simulated(arguments),
        Behind::Real(subject) => Comfy::At(subject.url.clone()),
    };
    mesh.add("amber", comfyui).await?;
    let config = format!("[gateway]\nlisten = \"127.0.0.1:0\"\n{more}");
    mesh.add_with("desk", Comfy::Absent, &config).await?;
    mesh.found("desk", "film", "oak").await?;
    mesh.admit("desk", "amber", None).await?;
    mesh.all_up().await?;
    let gateway = Subject::at(&mesh.node("desk").gateway().context("desk tells where its gateway is")?);
    knows_models(&gateway, 1, behind.checkpoint()).await?;
    Ok(gateway)
}

pub(super) fn told(program: &str, output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{program} gave {}:\n{out}\n{err}", output.status)
}

/// comfy-cli with a home of its own.
struct ComfyCli {
    program: PathBuf,
    home: PathBuf,
    url: String,
}

impl ComfyCli {
    /// The answer of a command that succeeds.
    async fn ok(&self, arguments: &[&str]) -> Result<Value> {
        let output = Command::new(&self.program)
            .args(["--skip-prompt", "--json", "--where", "local"])
            .args(arguments)
            .env("HOME", &self.home)
            .env("COMFY_LOCAL_URL", &self.url)
            .env("DO_NOT_TRACK", "1")
            .current_dir(&self.home)
            .kill_on_drop(true)
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
        let Some(answer) =
            answer.or_else(|| serde_json::from_str(&text).ok()).filter(|_| output.status.success())
        else {
            bail!("{}", told(&arguments.join(" "), &output));
        };
        ensure!(answer["ok"] == true, "{}", told(&arguments.join(" "), &output));
        Ok(answer)
    }
}

/// EmptyImage → ImageInvert → SaveImage as ComfyUI's editor saves it.
fn editors_workflow() -> Value {
    let node = |id: u32, class: &str, inputs: Value, outputs: Value, values: Value| {
        json!({
            "id": id, "type": class, "pos": [0, 0], "size": [200, 100], "flags": {}, "order": id, "mode": 0,
            "inputs": inputs, "outputs": outputs, "properties": {"Node name for S&R": class}, "widgets_values": values,
        })
    };
    let image = |link: u32| json!([{"name": "IMAGE", "type": "IMAGE", "links": [link], "slot_index": 0}]);
    json!({
        "last_node_id": 3, "last_link_id": 2, "version": 0.4, "groups": [], "config": {}, "extra": {},
        "nodes": [
            node(1, "EmptyImage", json!([]), image(1), json!([64, 64, 1, 255])),
            node(2, "ImageInvert", json!([{"name": "image", "type": "IMAGE", "link": 1}]), image(2), json!([])),
            node(3, "SaveImage", json!([{"name": "images", "type": "IMAGE", "link": 2}]), json!([]), json!(["editor"])),
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    })
}

#[test]
fn comfy_cli_renders_lists_cancels_and_moves_files() {
    comfy_cli(&Behind::Simulated(&["--step-ms", "40"]));
}

#[test]
fn comfy_cli_does_so_before_a_real_comfyui() {
    if let Some(real) = Behind::real() {
        comfy_cli(&real);
    }
}

fn comfy_cli(behind: &Behind) {
    let Some(installed) = client("comfy-cli") else { return };
    let checkpoint = behind.checkpoint();
    tell(async |mesh| {
        let gateway = before(mesh, behind, "").await?;
        let home = mesh.node("desk").dir.with_extension("home");
        std::fs::create_dir_all(&home)?;
        let cli =
            ComfyCli { program: installed.join("bin/comfy"), home: home.clone(), url: gateway.url.clone() };
        let file = |name: &str, content: &Value| -> Result<String> {
            std::fs::write(home.join(name), content.to_string())?;
            Ok(home.join(name).display().to_string())
        };
        let api = file("api.json", &workflows::keyframe(checkpoint, 5, 4, 64))?;
        let ran = cli.ok(&["run", "--workflow", &api, "--wait"]).await?;
        let id = ran["data"]["prompt_id"].as_str().with_context(|| format!("an id in {ran:#}"))?.to_owned();
        ensure!(ran.to_string().contains("keyframe_00001_.png"), "{ran:#}");
        let editors = file("editor.json", &editors_workflow())?;
        let ran = cli.ok(&["run", "--workflow", &editors, "--wait"]).await?;
        ensure!(ran.to_string().contains("editor_00001_.png"), "{ran:#}");
        ensure!(behind.rendered(mesh), "{:?}", rendered_on(mesh));

        let listed = cli.ok(&["jobs", "ls"]).await?;
        ensure!(listed.to_string().contains(&id), "{listed:#}");
        let status = cli.ok(&["jobs", "status", &id]).await?;
        ensure!(status["data"]["status"] == "completed", "{status:#}");
        let out = home.join("out").display().to_string();
        cli.ok(&["download", &id, "--out-dir", &out]).await?;
        let mut found = std::fs::read_dir(&out)?.flatten().map(|entry| entry.path());
        let picture = found.find(|path| path.extension().is_some_and(|extension| extension == "png"));
        let picture = picture.context("a picture was downloaded")?;
        ensure!(std::fs::read(&picture)?.starts_with(b"\x89PNG"), "{}", picture.display());

        let slow = file("slow.json", &workflows::keyframe(checkpoint, 6, 1000, 64))?;
        let queued = cli.ok(&["run", "--workflow", &slow]).await?;
        let slow =
            queued["data"]["prompt_id"].as_str().with_context(|| format!("an id in {queued:#}"))?.to_owned();
        cli.ok(&["jobs", "cancel", &slow]).await?;
        eventually("it is cancelled, and nothing runs or waits any more", || async {
            let cancelled = cli.ok(&["jobs", "status", &slow]).await?;
            let queue = gateway.get("/queue").await.body;
            let still = queue["queue_running"] == json!([]) && queue["queue_pending"] == json!([]);
            let over =
                cancelled["data"]["status"] != "completed" && cancelled["data"]["status"] != "in_progress";
            Ok(if still && over { Ok(()) } else { Err((cancelled, queue)) })
        })
        .await?;

        let plate = picture.display().to_string();
        let uploaded = cli.ok(&["upload", &plate]).await?;
        let name = picture.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        ensure!(uploaded.to_string().contains(name), "{uploaded:#}");
        let query = format!("/view?type=input&filename={name}");
        ensure!(gateway.get(&query).await.bytes == std::fs::read(&picture)?, "it is here");
        let folders = cli.ok(&["models", "list-folders"]).await?;
        ensure!(folders.to_string().contains("checkpoints"), "{folders:#}");
        let models = cli.ok(&["models", "list-folder", "checkpoints"]).await?;
        ensure!(models.to_string().contains(checkpoint), "{models:#}");
        let stats = cli.ok(&["system-stats"]).await?;
        let real = matches!(behind, Behind::Real(_));
        ensure!(real || stats.to_string().contains("RTX 4090"), "{stats:#}");
        cli.ok(&["free"]).await?;
        cli.ok(&["nodes", "show", "KSampler"]).await.map(drop)
    });
}

const SCRIPT: &str = r#"
import sys
from comfy_script.runtime import *
load(sys.argv[1])
from comfy_script.runtime.nodes import *

steps = []
with Workflow() as wf:
    model, clip, vae = CheckpointLoaderSimple(sys.argv[2])
    good = CLIPTextEncode("a lighthouse", clip)
    bad = CLIPTextEncode("text", clip)
    latent = EmptyLatentImage(64, 64, 1)
    latent = KSampler(model, 11, 4, 7.0, "euler", "normal", good, bad, latent, 1.0)
    result = SaveImage(VAEDecode(latent, vae), "script")
images = result.wait()
picture = images[0]
with Workflow(wait=True):
    second = SaveImage(ImageInvert(EmptyImage(64, 64, 1, 255)), "second")
sizes = [picture.size, second.wait()[0].size]
# Its own thread prints meanwhile.
open("sizes.txt", "w").write(str(sizes))
"#;

#[test]
fn comfyscript_imports_nodes_runs_and_gets_its_pictures() {
    comfyscript(&Behind::Simulated(&[]));
}

#[test]
fn comfyscript_does_so_before_a_real_comfyui() {
    if let Some(real) = Behind::real() {
        comfyscript(&real);
    }
}

fn comfyscript(behind: &Behind) {
    let Some(installed) = client("comfy-script") else { return };
    tell(async |mesh| {
        let gateway = before(mesh, behind, "").await?;
        let home = mesh.node("desk").dir.with_extension("home");
        std::fs::create_dir_all(&home)?;
        std::fs::write(home.join("script.py"), SCRIPT)?;
        let output = Command::new(installed.join("bin/python"))
            .arg("script.py")
            .args([gateway.url.as_str(), behind.checkpoint()])
            .env("HOME", &home)
            .current_dir(&home)
            .kill_on_drop(true)
            .output()
            .await?;
        let said = told("ComfyScript", &output);
        ensure!(output.status.success(), "{said}");
        let sizes = std::fs::read_to_string(home.join("sizes.txt")).context("the script came to its end")?;
        ensure!(sizes == "[(64, 64), (64, 64)]", "{sizes}: {said}");
        ensure!(behind.rendered(mesh), "{said}");
        Ok(())
    });
}
