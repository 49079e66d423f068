//! What people get wrong, on the real programs: every refusal has the right exit code, names the thing it is about,
//! gives a hint, and loses nothing.

use std::future::Future;
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use scenemesh_testnet::cluster::{Answer, CHECKPOINT, Cluster, Comfy};
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::program::Programs;
use scenemesh_testnet::story;
use scenemesh_testnet::workflows;
use serde_json::{Value, json};

fn programs() -> Programs {
    Programs::at(env!("CARGO_BIN_EXE_testnet"))
}

fn run(story: impl AsyncFnOnce(&mut Cluster, &Path) -> Result<()>) {
    story::tell(programs(), story).expect("the story comes true");
}

/// Checks a refusal: exit code, error code, what its sentence names, and what its hint says.
fn refused(answer: &Answer, exit: i32, code: &str, names: &[&str], hint: &str) -> Result<()> {
    let error = &answer.json["error"];
    let said = || format!("{answer:#?}");
    ensure!(answer.code == exit, "exit code {exit} wanted: {}", said());
    ensure!(answer.json["ok"] == false && error["code"] == code, "{code} wanted: {}", said());
    let message = error["message"].as_str().with_context(said)?;
    for name in names {
        ensure!(message.contains(name), "the sentence does not name {name}: {}", said());
    }
    ensure!(!message.contains('\n'), "not one sentence: {}", said());
    let given = error["hint"].as_str().with_context(|| format!("no hint: {}", said()))?;
    ensure!(given.contains(hint), "the hint does not say {hint}: {}", said());
    // People read the same on the other stream.
    ensure!(answer.stderr.contains(message) && answer.stderr.contains(given), "{}", said());
    Ok(())
}

/// Runs a daemon that must not start, and checks its exit code and what its last words name.
async fn stillborn(data_dir: &Path, more: &[&str], exit: i32, names: &[&str]) -> Result<()> {
    let mut arguments = vec!["--data-dir", data_dir.to_str().context("a path in UTF-8")?];
    for (flag, value) in
        [("--api", "127.0.0.1:0"), ("--listen", "/ip4/127.0.0.1/tcp/0"), ("--porch", "/ip4/127.0.0.1/tcp/0")]
    {
        if !more.contains(&flag) {
            arguments.extend([flag, value]);
        }
    }
    arguments.extend(more);
    let ended = programs().command("scenemeshd").args(&arguments).output();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), ended).await;
    let ended = ended.with_context(|| format!("{more:?} did not end the daemon"))??;
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    ensure!(ended.status.code() == Some(exit), "{exit} wanted, {} given: {said}", ended.status);
    for name in names {
        ensure!(said.contains(name), "{more:?}: the daemon does not name {name}: {said}");
    }
    Ok(())
}

fn file(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> Result<String> {
    let path = dir.join(name);
    std::fs::write(&path, bytes)?;
    Ok(path.display().to_string())
}

fn graph(dir: &Path, name: &str, graph: &Value) -> Result<String> {
    file(dir, name, serde_json::to_vec(graph)?)
}

/// Waits until `viewer` knows what models the node has.
async fn inventory_seen(mesh: &Cluster, viewer: &str, of: &str, models: u64) -> Result<()> {
    eventually(&format!("{viewer} knows the models of {of}"), || async {
        let peers = mesh.ok(viewer, &["peers"]).await?;
        let mut list = peers["peers"].as_array().into_iter().flatten();
        let known = list.any(|peer| peer["name"] == of && peer["models"] == models);
        Ok(if known { Ok(()) } else { Err(peers) })
    })
    .await
}

fn answering<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("the machine has room for it").block_on(future)
}

#[test]
fn a_daemon_that_is_badly_configured() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = answering(async {
        let data = dir.path().join("data");
        std::fs::create_dir(&data)?;
        stillborn(&data, &["--api", "nonsense"], 64, &["nonsense", "--api", "127.0.0.1:7870"]).await?;
        stillborn(&data, &["--api", "0.0.0.0:0"], 64, &["0.0.0.0:0", "loopback"]).await?;
        stillborn(&data, &["--listen", "garbage"], 64, &["listen", "garbage", "/ip4/"]).await?;
        stillborn(&data, &["--porch", "garbage"], 64, &["porch", "garbage", "/ip4/"]).await?;
        stillborn(&data, &["--gateway", "nonsense"], 64, &["nonsense", "--gateway", "127.0.0.1:7871"])
            .await?;
        stillborn(&data, &["--gateway", "0.0.0.0:0"], 64, &["0.0.0.0:0", "loopback"]).await?;
        stillborn(&data, &["--config", "absent.toml"], 64, &["absent.toml", "--config"]).await?;
        let config = data.join("scenemesh.toml");
        for (text, names) in [
            ("[netwrk]\n", ["netwrk", "network"]),
            ("[network]\nmdns = \"x\"\n", ["mdns", "boolean"]),
            ("[[comfyui]]\nurl = \"localhost:8188\"\n", ["localhost:8188", "http://127.0.0.1:8188"]),
            ("[lend]\nhours = \"evenings\"\n", ["line 2", "19:00-08:00"]),
            ("[lend]\nclasses = [\"quick\"]\n", ["line 2", "urgent"]),
            ("[gateway]\nreach = \"pool\"\n", ["gateway.reach", "gateway.listen"]),
            ("[gateway]\nlisten = \"127.0.0.1:0\"\ntokens = { lee = \"short\" }\n", ["lee", "openssl"]),
            (
                "[gateway]\nlisten = \"127.0.0.1:0\"\nfrontend_dir = \"absent\"\n",
                ["absent", "gateway.frontend_dir"],
            ),
        ] {
            std::fs::write(&config, text)?;
            stillborn(&data, &[], 64, &names).await?;
        }
        std::fs::remove_file(&config)?;
        let policy = data.join("policy.toml");
        for (text, names) in [
            ("allow = [\"A\"]\ndeny = [\"A\"]\n", ["policy.toml", "line 2"]),
            ("allow = [\"OpenAIChatNode\"]\n", ["partner node", "line 1"]),
            ("alow = []\n", ["policy.toml", "alow"]),
        ] {
            std::fs::write(&policy, text)?;
            stillborn(&data, &[], 64, &names).await?;
        }
        std::fs::remove_file(&policy)?;
        let in_place = dir.path().join("file");
        std::fs::write(&in_place, "a file, not a directory")?;
        stillborn(&in_place, &[], 64, &["file", "--data-dir"]).await?;
        stillborn(Path::new("/proc/scenemesh"), &[], 64, &["/proc/scenemesh", "--data-dir"]).await?;
        let taken = TcpListener::bind("127.0.0.1:0")?;
        let api = taken.local_addr()?.to_string();
        stillborn(&data, &["--api", &api], 1, &[&api, "another program", "--api"]).await
    });
    outcome.unwrap();
}

#[test]
fn what_is_taken_or_not_there() {
    run(async |mesh, dir| {
        mesh.add("amber", Comfy::Absent).await?;
        let amber = mesh.node("amber").dir.clone();
        stillborn(&amber, &[], 1, &["in use by another daemon", "--data-dir"]).await?;

        // No daemon, its remains, and somebody else's token.
        let absent = dir.join("absent").display().to_string();
        let mut command = programs().command("scenemesh");
        let asked = command.args(["--data-dir", &absent, "--json", "status"]).output().await?;
        let nobody = answer_of(&asked);
        refused(&nobody, 3, "not_running", &["not running", &absent], "scenemeshd --data-dir")?;
        let address = amber.join("api.json");
        let held = std::fs::read_to_string(&address)?;
        let mut wrong: Value = serde_json::from_str(&held)?;
        wrong["token"] = json!("wrong");
        std::fs::write(&address, wrong.to_string())?;
        let answer = mesh.cli("amber", &["status"]).await?;
        refused(&answer, 4, "not_authorised", &["token"], "api.json")?;
        let silent = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        wrong["url"] = json!(format!("http://{silent}"));
        std::fs::write(&address, wrong.to_string())?;
        let answer = mesh.cli("amber", &["status"]).await?;
        refused(&answer, 3, "not_running", &["nothing answers", &silent.to_string()], "scenemeshd")?;
        std::fs::write(&address, "neither JSON nor an address")?;
        refused(&mesh.cli("amber", &["status"]).await?, 3, "not_running", &["api.json"], "scenemeshd")?;
        std::fs::write(&address, held)?;

        // Without a pool there is nothing to leave, invite to or submit for.
        for command in [&["leave"][..], &["invite"], &["pool"]] {
            refused(&mesh.cli("amber", command).await?, 6, "conflict", &["in no pool"], "init")?;
        }
        let init = ["init", "--pool", "", "--studio", "s", "--name", "amber", "--no-passphrase"];
        refused(&mesh.cli("amber", &init).await?, 2, "usage", &["name of a pool", "empty"], "choose")?;
        let init = ["init", "--pool", "p", "--studio", "s", "--name", "amber"];
        let answer = mesh.cli("amber", &init).await?;
        refused(&answer, 4, "passphrase_needed", &["passphrase"], "--passphrase-file")?;

        // A port that another program holds: founding fails, nothing is founded, and the rest goes on.
        let taken = TcpListener::bind("127.0.0.1:0")?;
        let port = taken.local_addr()?.port();
        for (key, other) in [("listen", "porch"), ("porch", "listen")] {
            let data = dir.join(key);
            std::fs::create_dir(&data)?;
            let config = format!(
                "[network]\nmdns = false\n{key} = [\"/ip4/127.0.0.1/tcp/{port}\"]\n\
                 {other} = [\"/ip4/127.0.0.1/tcp/0\"]\n[api]\nlisten = \"127.0.0.1:0\"\n"
            );
            std::fs::write(data.join("scenemesh.toml"), config)?;
            let data = data.display().to_string();
            let log = dir.join(format!("{key}.log"));
            let _daemon = programs().start("scenemeshd", ["--data-dir", &data], &log)?;
            let ask = async |words: &[&str]| -> Result<Answer> {
                let mut command = programs().command("scenemesh");
                Ok(answer_of(&command.args(["--data-dir", &data, "--json"]).args(words).output().await?))
            };
            eventually("the daemon answers", || async {
                let answer = ask(&["status"]).await?;
                Ok(if answer.code == 0 { Ok(()) } else { Err(answer) })
            })
            .await?;
            let init = ["init", "--pool", "p", "--studio", "s", "--name", "n", "--no-passphrase"];
            let names = ["cannot listen", &port.to_string()];
            refused(&ask(&init).await?, 6, "refused", &names, "--listen")?;
            let status = ask(&["status"]).await?;
            ensure!(status.code == 0 && status.json["pool"].is_null(), "still in no pool: {status:#?}");
        }
        Ok(())
    });
}

/// A command's output, read as [`Cluster::cli`] reads it.
fn answer_of(output: &std::process::Output) -> Answer {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let json = stdout.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Answer { code: output.status.code().unwrap_or(-1), json, stdout, stderr }
}

#[test]
fn workflows_that_cannot_be_run() {
    run(async |mesh, dir| {
        mesh.add("desk", Comfy::Absent).await?;
        mesh.add("ws-01", Comfy::simulated(&[])).await?;
        let rare = ["--model", "checkpoints/base.safetensors", "--model", "checkpoints/rare.safetensors"];
        mesh.add("ws-02", Comfy::simulated(&rare)).await?;
        mesh.found("desk", "commons", "amber").await?;
        mesh.admit("desk", "ws-01", None).await?;
        mesh.admit("desk", "ws-02", None).await?;
        for (viewer, of, models) in [("desk", "ws-01", 1), ("desk", "ws-02", 2), ("ws-01", "ws-02", 2)] {
            inventory_seen(mesh, viewer, of, models).await?;
        }

        let good = graph(dir, "good.json", &workflows::keyframe(CHECKPOINT, 7, 2, 64))?;
        let submit = async |node: &str, words: &[&str]| {
            let words: Vec<&str> = ["submit"].iter().chain(words).copied().collect();
            mesh.cli(node, &words).await
        };

        let absent = dir.join("absent.json").display().to_string();
        refused(&submit("desk", &[&absent]).await?, 2, "file", &["absent.json"], "path")?;
        let path = file(dir, "torn.json", "{\"4\": {\n oops}")?;
        let says = ["torn.json", "not JSON", "line 2"];
        refused(&submit("desk", &[&path]).await?, 2, "not_json", &says, "Export (API)")?;
        let path = file(dir, "picture.json", b"\x89PNG\r\n\x1a\n\xff")?;
        refused(&submit("desk", &[&path]).await?, 2, "not_json", &["picture.json"], "Export (API)")?;
        let path = file(dir, "list.json", "[]")?;
        refused(&submit("desk", &[&path]).await?, 2, "invalid_graph", &["list.json"], "Export (API)")?;
        let path = graph(dir, "editor.json", &json!({"nodes": [], "links": [], "version": 0.4}))?;
        let says = ["editor.json", "editor"];
        refused(&submit("desk", &[&path]).await?, 2, "ui_format", &says, "Export (API)")?;

        let mut odd = workflows::keyframe(CHECKPOINT, 7, 2, 64);
        odd["8"]["class_type"] = json!("FancyUpscaleXL");
        let path = graph(dir, "odd.json", &odd)?;
        let says = ["odd.json", "FancyUpscaleXL", "8"];
        refused(&submit("desk", &[&path]).await?, 6, "unknown_class", &says, "custom nodes")?;
        let path = graph(dir, "rare.json", &workflows::keyframe("rare.safetensors", 7, 2, 64))?;
        let says = ["rare.json", "checkpoints/rare.safetensors"];
        let answer = submit("ws-01", &[&path, "--reach", "machine"]).await?;
        refused(&answer, 6, "missing_model", &says, "ws-02: use --reach studio")?;
        let path = graph(dir, "lost.json", &workflows::keyframe("lost.safetensors", 7, 2, 64))?;
        let says = ["lost.json", "checkpoints/lost.safetensors"];
        refused(&submit("desk", &[&path]).await?, 6, "missing_model", &says, "put it on")?;

        let picture = graph(dir, "invert.json", &workflows::image_to_image("ref.png"))?;
        let says = ["ref.png", "node 1", "LoadImage"];
        let answer = submit("desk", &[&picture]).await?;
        refused(&answer, 2, "missing_input", &says, "--input ref.png=FILE")?;
        let answer = submit("desk", &[&picture, "--input", "ref.png=/absent.png"]).await?;
        refused(&answer, 2, "missing_input", &["ref.png", "/absent.png"], "path")?;
        let small = file(dir, "small.png", "not looked at")?;
        let (given, other) = (format!("ref.png={small}"), format!("other.png={small}"));
        let answer = submit("desk", &[&picture, "--input", &given, "--input", &other]).await?;
        refused(&answer, 2, "missing_input", &["other.png", "ref.png"], "--input NAME=FILE")?;
        let huge = dir.join("huge.png");
        std::fs::File::create(&huge)?.set_len(33 << 30)?;
        let given = format!("ref.png={}", huge.display());
        let answer = submit("desk", &[&picture, "--input", &given]).await?;
        refused(&answer, 2, "too_large", &["huge.png", "35 GB", "34 GB"], "smaller")?;
        std::fs::remove_file(&huge)?;

        for (setting, code, says, hint) in [
            ("33.seed=1", "no_such_setting", &["no node", "33"][..], "3 (KSampler)"),
            ("3.sede=1", "no_such_setting", &["node 3 (KSampler)", "sede"], "seed, steps"),
            ("3.steps=many", "no_such_setting", &["3.steps=many", "number"], "quote it"),
            ("seed", "usage", &["seed", "--set"], "NODE.INPUT=VALUE"),
        ] {
            refused(&submit("desk", &[&good, "--set", setting]).await?, 2, code, says, hint)?;
        }
        for (flag, value, hint) in [
            ("--needs", "vram=lots", "vram=24GB"),
            ("--class", "soon", "urgent, normal, batch"),
            ("--count", "0", "10000"),
        ] {
            refused(&submit("desk", &[&good, flag, value]).await?, 2, "usage", &[flag, value], hint)?;
        }
        let answer = submit("desk", &[&good, "--reach", "Nowhere"]).await?;
        refused(&answer, 2, "usage", &["Nowhere", "amber"], "--reach")?;

        // Nothing of all that was accepted; what no node can take waits, and says why, node by node.
        let jobs = mesh.ok("desk", &["jobs"]).await?;
        ensure!(jobs["jobs"] == json!([]), "{jobs:#}");
        let job = mesh.ok("desk", &["submit", &good, "--needs", "vram=48GB", "--detach"]).await?;
        let id = job["job"].as_str().context("a job has an id")?.to_owned();
        eventually("why names every node", || async {
            let why = mesh.ok("desk", &["why", &id]).await?;
            let text = why["why"].as_str().unwrap_or_default();
            let named = ["desk", "ws-01", "ws-02", "48"].iter().all(|name| text.contains(name));
            Ok(if named { Ok(()) } else { Err(why) })
        })
        .await?;
        mesh.ok("desk", &["cancel", &id]).await?;
        refused(&mesh.cli("desk", &["cancel", &id]).await?, 6, "conflict", &["nothing"], "show")?;
        for command in ["show", "why", "logs", "cancel", "retry"] {
            refused(&mesh.cli("desk", &[command, "0f0f0f0f"]).await?, 2, "not_found", &["0f0f0f0f"], "jobs")?;
        }

        let out = dir.join("out").display().to_string();
        let done = mesh.ok("desk", &["submit", &good, "--out", &out]).await?;
        ensure!(done["state"] == "done", "{done:#}");
        Ok(())
    });
}

#[test]
fn invites_that_do_not_let_in() {
    run(async |mesh, dir| {
        for name in ["amber", "birch", "cedar", "dune"] {
            mesh.add(name, Comfy::Absent).await?;
        }
        let passphrase = file(dir, "passphrase", "correct horse\n")?;
        let init = ["--pool", "one", "--studio", "amber", "--name", "amber"];
        let sealed = ["--passphrase-file", &passphrase];
        mesh.ok("amber", &[&["init"], &init[..], &sealed].concat()).await?;
        mesh.listens("amber").await?;
        mesh.found("birch", "two", "birch").await?;
        let invite = async |mesh: &Cluster| -> Result<String> {
            let invite = mesh.ok("amber", &[&["invite"], &sealed[..]].concat()).await?;
            Ok(invite["code"].as_str().context("an invite has a code")?.to_owned())
        };
        let join = async |mesh: &Cluster, node: &str, code: &str| {
            mesh.cli(node, &["join", code, "--name", node, "--yes"]).await
        };

        let answer = mesh.cli("amber", &["invite"]).await?;
        refused(&answer, 4, "passphrase_needed", &["passphrase"], "--passphrase-file")?;
        let code = invite(mesh).await?;
        refused(&join(mesh, "cedar", "hello").await?, 2, "bad_invite", &["not an invite"], "copy")?;
        let cut = &code[..code.len() - 3];
        refused(&join(mesh, "cedar", cut).await?, 2, "bad_invite", &["damaged"], "copy")?;
        let newer = code.replacen("smesh1", "smesh2", 1);
        let says = ["version 2", "version 1"];
        refused(&join(mesh, "cedar", &newer).await?, 6, "version_mismatch", &says, "upgrade")?;
        let answer = mesh.cli("cedar", &["join", &code, "--name", "cedar"]).await?;
        refused(&answer, 2, "usage", &["yes"], "--yes")?;
        refused(&join(mesh, "birch", &code).await?, 6, "invite_foreign", &["two"], "leave")?;
        refused(&join(mesh, "amber", &code).await?, 6, "conflict", &["itself"], "another machine")?;
        ensure!(join(mesh, "cedar", &code).await?.code == 0, "the code is still good");
        refused(&join(mesh, "dune", &code).await?, 6, "invite_used", &["used"], "new invite")?;
        for (words, says) in [(["--expires", "5x"], "5x"), (["--role", "king"], "king")] {
            let answer = mesh.cli("amber", &[&["invite"], &words[..], &sealed].concat()).await?;
            refused(&answer, 2, "usage", &[says, words[0]], "written like")?;
        }
        let long = [&["invite", "--expires", "60d"], &sealed[..]].concat();
        refused(&mesh.cli("amber", &long).await?, 2, "usage", &["30 days"], "--expires")?;
        let taken = [&["invite", "--new-studio", "amber"], &sealed[..]].concat();
        refused(&mesh.cli("amber", &taken).await?, 6, "conflict", &["amber"], "another name")?;
        refused(&mesh.cli("cedar", &["invite"]).await?, 4, "not_allowed", &["admin key"], "machine")?;

        // Nobody there, then locked: the inviter came back without its admin's passphrase.
        let code = invite(mesh).await?;
        mesh.kill("amber").await?;
        refused(&join(mesh, "dune", &code).await?, 5, "peer_unreachable", &["cannot be reached"], "daemon")?;
        mesh.start("amber").await?;
        mesh.listens("amber").await?;
        let answer = join(mesh, "dune", &code).await?;
        refused(&answer, 6, "invite_locked", &["locked"], "scenemesh invite --unlock")?;
        let wrong = file(dir, "wrong", "battery staple\n")?;
        let unlock = ["invite", "--unlock", "--passphrase-file"];
        let answer = mesh.cli("amber", &[&unlock[..], &[&wrong]].concat()).await?;
        refused(&answer, 4, "wrong_passphrase", &["admin.key", "passphrase"], "again")?;
        mesh.ok("amber", &[&unlock[..], &[&passphrase]].concat()).await?;
        eventually("dune is let in by itself", || async {
            let status = mesh.ok("dune", &["status"]).await?;
            Ok(if status["pool_name"] == "one" { Ok(()) } else { Err(status) })
        })
        .await
    });
}

#[test]
fn a_comfyui_that_is_absent_dies_or_talks_garbage() {
    run(async |mesh, dir| {
        let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let nobody = format!("http://{nobody}");
        mesh.add("desk", Comfy::Absent).await?;
        mesh.add("absent", Comfy::At(nobody.clone())).await?;
        mesh.add("garbled", Comfy::simulated(&["--fault", "garbage"])).await?;
        mesh.add("dying", Comfy::simulated(&["--fault", "crash@2*1"])).await?;

        let garbled = mesh.node("garbled").comfy_url().context("it has one")?.to_owned();
        for (node, url) in [("absent", &nobody), ("garbled", &garbled)] {
            let checks = eventually("doctor names the ComfyUI that is not ready", || async {
                let answer = mesh.cli(node, &["doctor"]).await?;
                let mut checks = answer.json["checks"].as_array().into_iter().flatten();
                let wrong = checks.find(|check| check["name"] == "comfyui" && check["state"] == "fail");
                Ok(wrong.cloned().ok_or(answer))
            })
            .await?;
            let found = checks["found"].as_str().unwrap_or_default();
            ensure!(found.contains(url.as_str()), "{checks:#}");
            ensure!(checks["hint"].as_str().is_some_and(|hint| hint.contains("ComfyUI")), "{checks:#}");
            refused(&mesh.cli(node, &["doctor"]).await?, 1, "check_failed", &["1"], "arrow")?;
        }

        mesh.found("desk", "commons", "amber").await?;
        for name in ["absent", "garbled", "dying"] {
            mesh.admit("desk", name, None).await?;
        }
        inventory_seen(mesh, "desk", "dying", 1).await?;
        let path = graph(dir, "keyframe.json", &workflows::keyframe(CHECKPOINT, 7, 4, 64))?;
        let job = mesh.ok("desk", &["submit", &path, "--detach"]).await?;
        let id = job["job"].as_str().context("a job has an id")?.to_owned();
        eventually("the failure and the other nodes are named, and the task waits", || async {
            let shown = mesh.ok("desk", &["show", &id]).await?;
            let task = &shown["tasks"][0];
            let waiting = task["waiting"].as_str().unwrap_or_default();
            let failed = task["failures"][0]["node"] == "dying";
            let named = ["absent", "garbled", "dying"].iter().all(|name| waiting.contains(name));
            Ok(if failed && named && task["state"] == "queued" { Ok(()) } else { Err(shown) })
        })
        .await?;
        mesh.add("fresh", Comfy::simulated(&[])).await?;
        mesh.admit("desk", "fresh", None).await?;
        mesh.job_until("desk", &id, "the task is rendered after all", |job| job["state"] == "done").await?;
        Ok(())
    });
}
