//! ComfyUI's own frontend in a browser, from a gateway whose node has no ComfyUI. Screenshots stay in
//! `target/screenshots`, for whoever wants to look.

use std::path::Path;

use anyhow::{Result, ensure};
use scenemesh_testnet::workflows;
use tokio::process::Command;

use super::clients::{Behind, before, client, told};
use super::{rendered_on, tell};

/// The older frontend takes some loaders for granted.
const SIMULATED: Behind =
    Behind::Simulated(&["--step-ms", "150", "--with", "ImageOnlyCheckpointLoader", "--with", "GLIGENLoader"]);

/// Both need a browser; it is the system's.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn has_browser() -> bool {
    let found = ["chromium", "chromium-browser"].iter().any(|name| {
        std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).exists()))
    });
    let required = std::env::var_os("SCENEMESH_REQUIRE").is_some_and(|what| what == "all");
    assert!(found || !required, "there is no Chromium, and SCENEMESH_REQUIRE is set: run .ci/clients");
    if !found {
        eprintln!("skipped: there is no Chromium; .ci/clients installs it");
    }
    found
}

fn frontend(name: &str, behind: &Behind) {
    let (Some(installed), Some(browser)) = (client(name), client("browser")) else { return };
    if !has_browser() {
        return;
    }
    let files = std::fs::read_dir(installed.join("lib"))
        .unwrap()
        .flatten()
        .map(|python| python.path().join("site-packages/comfyui_frontend_package/static"));
    let files =
        files.into_iter().find(|files| files.exists()).expect("the package has its files where it had them");
    let files = files.canonicalize().unwrap();
    tell(async |mesh| {
        let config = format!("frontend_dir = \"{}\"\n", files.display());
        let gateway = before(mesh, behind, &config).await?;
        let home = mesh.node("desk").dir.with_extension("home");
        let shots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/screenshots").join(name);
        std::fs::create_dir_all(&home)?;
        std::fs::create_dir_all(&shots)?;
        // A real one renders on a processor in the tests.
        let size = if matches!(behind, Behind::Real(_)) { 128 } else { 512 };
        for (file, steps) in [("workflow.json", 12), ("slow.json", 2000)] {
            std::fs::write(
                home.join(file),
                workflows::keyframe(behind.checkpoint(), steps, steps as u32, size).to_string(),
            )?;
        }
        let output = Command::new(browser.join("bin/python"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gateway/frontend.py"))
            .arg(&gateway.url)
            .arg(&shots)
            .args(["workflow.json", "slow.json"])
            .env("HOME", &home)
            .current_dir(&home)
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(output.status.success(), "{}", told(name, &output));
        ensure!(behind.rendered(mesh), "{:?}", rendered_on(mesh));
        Ok::<(), anyhow::Error>(()) as Result<()>
    });
}

#[test]
fn the_newest_frontend_runs_watches_and_cancels() {
    frontend("frontend", &SIMULATED);
}

#[test]
fn an_older_frontend_runs_watches_and_cancels() {
    frontend("frontend-1.27.10", &SIMULATED);
}

#[test]
fn the_newest_frontend_does_so_before_a_real_comfyui() {
    if let Some(real) = Behind::real() {
        frontend("frontend", &real);
    }
}

#[test]
fn an_older_frontend_does_so_before_a_real_comfyui() {
    if let Some(real) = Behind::real() {
        frontend("frontend-1.27.10", &real);
    }
}
