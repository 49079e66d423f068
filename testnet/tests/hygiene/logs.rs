//! Nothing sensitive in logs, at any level: daemons that log everything go through a life in which every secret and
//! every name is used, and their logs are searched for all of them.

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::{Cluster, Comfy};
use scenemesh_testnet::scenarios::graph_file;
use serde_json::{Value, json};

use super::life::{JOB, PERSON, PIXELS, PLATE, PROMPT, SHOT, graph, holds, programs, samples, submit, tell};

const PASSPHRASE: &str = "canarypassphrase correct horse battery";

#[test]
fn a_whole_life_logged_at_trace_tells_no_secret() {
    tell(programs().logging("trace"), |mesh, dir| {
        Box::pin(async move {
            let mut secrets: Vec<(&str, String)> = [PROMPT, PLATE, PIXELS, SHOT, JOB, PERSON, PASSPHRASE]
                .map(|word| (word, word.to_owned()))
                .into();
            mesh.add("desk", Comfy::Absent).await?;
            mesh.add("birch-01", Comfy::simulated(&["--step-ms", "60"])).await?;

            // Founding with a passphrase, a wrong passphrase, inviting and joining.
            let file = dir.join("passphrase");
            std::fs::write(&file, PASSPHRASE)?;
            let file = file.display().to_string();
            let init = [
                "init",
                "--pool",
                "aurora",
                "--studio",
                "amber",
                "--name",
                "desk",
                "--passphrase-file",
                &file,
            ];
            let founded = mesh.ok("desk", &init).await?;
            secrets.extend(text(&founded, "recovery_code").map(|code| ("the recovery code", code)));
            mesh.listens("desk").await?;
            let wrong = dir.join("wrong");
            std::fs::write(&wrong, "canarywrong passphrase")?;
            secrets.push(("a wrong passphrase", "canarywrong passphrase".into()));
            let refused =
                mesh.cli("desk", &["invite", "--passphrase-file", &wrong.display().to_string()]).await?;
            ensure!(refused.code == 4, "a wrong passphrase is refused: {refused:?}");
            let invited =
                mesh.ok("desk", &["invite", "--new-studio", "birch", "--passphrase-file", &file]).await?;
            let code = text(&invited, "code").context("an invite has a code")?;
            let join = ["join", &code, "--name", "birch-01", "--yes", "--passphrase-file", &file];
            mesh.ok("birch-01", &join).await?;
            secrets.push(("the invite code", code.trim_start_matches("smesh1").to_owned()));
            mesh.listens("birch-01").await?;
            mesh.all_up().await?;
            mesh.advert_seen("desk", "birch-01").await?;

            renders_fails_and_is_cancelled(mesh, dir).await?;

            for node in mesh.nodes() {
                let api: Value = serde_json::from_slice(&std::fs::read(node.dir.join("api.json"))?)?;
                secrets.push(("a token", text(&api, "token").context("a token")?));
                for key in ["node", "kem", "admin"] {
                    let file = std::fs::read_to_string(node.dir.join(format!("keys/{key}.key")))?;
                    let digits =
                        file.lines().filter_map(|line| line.strip_prefix("secret ")).map(str::to_owned);
                    secrets.extend(digits.map(|digits| ("a secret key", digits)));
                }
            }
            for node in mesh.nodes() {
                let log = node.log();
                ensure!(log.contains("DEBUG"), "the log of {} says a lot", node.name);
                for (what, secret) in &secrets {
                    let line = log.lines().find(|line| holds(line.as_bytes(), secret));
                    ensure!(line.is_none(), "{}'s log tells {what}: {line:?}", node.name);
                }
            }
            Ok(())
        })
    });
}

async fn renders_fails_and_is_cancelled(mesh: &Cluster, dir: &std::path::Path) -> Result<()> {
    let job = submit(mesh, dir, &graph(4), &[]).await?;
    mesh.job_until("desk", &job, "it is done", |job| job["state"] == "done").await?;

    // ComfyUI's own words about a file that is no picture name it.
    let broken = dir.join("broken.png");
    std::fs::write(&broken, PIXELS)?;
    let only = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": PLATE}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": SHOT}},
    });
    let file = graph_file(dir, &format!("{JOB}-broken.json"), &only)?;
    let input = format!("{PLATE}={}", broken.display());
    let failed =
        mesh.cli("desk", &["submit", &file, "--reach", "pool", "--detach", "--input", &input]).await?;
    let job = text(&failed.json, "job").context("a job")?;
    let tried = |job: &Value| job["tasks"][0]["failures"].as_array().is_some_and(|list| !list.is_empty());
    let failed = mesh.job_until("desk", &job, "an attempt failed", tried).await?;
    ensure!(failed["tasks"][0]["failures"][0]["why"].as_str().is_some_and(|why| why.contains("LoadImage")));
    mesh.ok("desk", &["cancel", &job]).await?;

    // A graph that nobody can run, and one that is cancelled while it runs.
    let unknown = json!({"1": {"class_type": "CanaryUnknownNode", "inputs": {"text": PROMPT}}});
    let file = graph_file(dir, &format!("{JOB}-unknown.json"), &unknown)?;
    let refused = mesh.cli("desk", &["submit", &file, "--reach", "pool", "--detach"]).await?;
    if let Some(job) = text(&refused.json, "job") {
        mesh.ok("desk", &["cancel", &job]).await?;
    }
    let job = submit(mesh, dir, &graph(1000), &[]).await?;
    mesh.job_until("desk", &job, "it samples", samples).await?;
    mesh.ok("desk", &["cancel", &job]).await?;
    let wiped = |job: &Value| job["tasks"][0]["wipes"].as_array().is_some_and(|list| !list.is_empty());
    let wiped = mesh.job_until("desk", &job, "what was cancelled is wiped", wiped).await?;
    let left = wiped["tasks"][0]["wipes"][0]["left"].as_object().context("what is left")?;
    ensure!(left.values().all(|count| *count == 0), "{wiped:#}");
    Ok(())
}

fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(str::to_owned)
}
