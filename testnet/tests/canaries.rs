//! Canaries: names that exist once in the world, put into amber's tasks, and looked for on birch's machine: in every
//! file of its data directory, its log at `trace`, every answer of its API, and the memory of its daemon.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps in vain, its helpers too")]
#![expect(clippy::print_stderr, reason = "a skipped look, and what memory still holds, are told")]

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use scenemesh_testnet::cluster::{CHECKPOINT, Cluster, Comfy};
use scenemesh_testnet::eventually::eventually;
use scenemesh_testnet::program::Programs;
use scenemesh_testnet::story;
use scenemesh_testnet::workflows;
use serde_json::{Value, json};

/// What no other studio ever sees, at any time. The LoRA lies on amber's ComfyUI and is not shared.
const PROJECT: &str = "canary-project-quokka";
const PERSON: &str = "canary-person-numbat";
const LABEL: &str = "canary-label-bilby";
const LORA: &str = "canary-lora-dunnart.safetensors";
/// What a renderer has while the task is granted to it, and in its ComfyUI: nowhere else, and not afterwards.
const PROMPT: &str = "canary-prompt-pademelon at dusk";
const INPUT: &str = "canary-input-wallaroo.png";
const PREFIX: &str = "canary-prefix-potoroo";

const NEVER: [&str; 4] = [PROJECT, PERSON, LABEL, LORA];
const ALL: [&str; 7] = [PROJECT, PERSON, LABEL, LORA, PROMPT, INPUT, PREFIX];

/// Every GET of the local API that answers without an id.
const ROUTES: [&str; 7] =
    ["/v1/status", "/v1/doctor", "/v1/pool", "/v1/peers", "/v1/jobs", "/v1/projects", "/v1/users"];

fn run(story: impl AsyncFnOnce(&mut Cluster, &Path) -> Result<()>) {
    story::tell(Programs::at(env!("CARGO_BIN_EXE_testnet")).logging("trace"), story).unwrap();
}

/// amber with a LoRA of its own on amber-01, birch beside it; a person with a token and a project on amber-01.
async fn two_studios(mesh: &mut Cluster, dir: &Path) -> Result<String> {
    let base = format!("checkpoints/{CHECKPOINT}");
    let lora = format!("loras/{LORA}");
    mesh.add("amber-01", Comfy::simulated(&["--model", &base, "--model", &lora])).await?;
    mesh.add("birch-01", Comfy::simulated(&["--step-ms", "60"])).await?;
    mesh.found("amber-01", "aurora", "amber").await?;
    mesh.admit("amber-01", "birch-01", Some("birch")).await?;
    mesh.all_up().await?;
    mesh.advert_seen("amber-01", "birch-01").await?;
    let full = ["project", "add", PROJECT, "--max-reach", "pool", "--hygiene", "full", "--retention", "7d"];
    mesh.ok("amber-01", &full).await?;
    let token = dir.join("token.json").display().to_string();
    mesh.ok("amber-01", &["user", "add", PERSON, "--out", &token]).await?;
    Ok(token)
}

fn graph(steps: u32) -> Value {
    let mut graph = workflows::keyframe(CHECKPOINT, 7, steps, 64);
    graph["6"]["inputs"]["text"] = json!(PROMPT);
    graph["9"]["inputs"]["filename_prefix"] = json!(PREFIX);
    graph["10"] = json!({"class_type": "LoadImage", "inputs": {"image": INPUT}});
    graph["11"] =
        json!({"class_type": "SaveImage", "inputs": {"images": ["10", 0], "filename_prefix": PREFIX}});
    graph
}

fn file(dir: &Path, name: &str, bytes: &[u8]) -> Result<String> {
    let path = dir.join(name);
    std::fs::write(&path, bytes)?;
    Ok(path.display().to_string())
}

/// A picture of one black pixel.
fn pixel() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&[0, 0, 0])?;
    writer.finish()?;
    Ok(bytes)
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

/// The forms in which bytes are looked for: as they are, in hexadecimal, and as Windows and JavaScript hold text.
fn forms(text: &[u8]) -> [Vec<u8>; 3] {
    let hex: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
    let wide = text.iter().flat_map(|byte| [*byte, 0]).collect();
    [text.to_vec(), hex.into_bytes(), wide]
}

fn seen_in(hay: &[u8], canaries: &[&[u8]]) -> Vec<String> {
    let seen = |canary: &&&[u8]| forms(canary).iter().any(|form| contains(hay, form));
    canaries.iter().filter(seen).map(|canary| String::from_utf8_lossy(canary).into_owned()).collect()
}

/// Files of a node's daemon: its ComfyUI's folders and the simulator's own record of what it ran are not among them.
fn files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("comfyui") {
            continue;
        }
        if path.is_dir() { files(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

/// Looks for canaries in everything that a node's daemon wrote or answers, its memory aside.
async fn looked_for(mesh: &Cluster, node: &str, canaries: &[&[u8]]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut all = Vec::new();
    files(&mesh.node(node).dir, &mut all)?;
    ensure!(all.iter().any(|path| path.ends_with("daemon.log")), "the log is among {all:?}");
    for path in all {
        // A file may go while it is looked for.
        let bytes = std::fs::read(&path).unwrap_or_default();
        let name = path.display().to_string();
        for canary in seen_in(&bytes, canaries).into_iter().chain(seen_in(name.as_bytes(), canaries)) {
            found.push(format!("{canary} in {name}"));
        }
    }
    let api: Value = serde_json::from_slice(&std::fs::read(mesh.node(node).dir.join("api.json"))?)?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    for route in ROUTES {
        let url = format!("{}{route}", api["url"].as_str().context("a url")?);
        let asked = client.get(url).bearer_auth(api["token"].as_str().context("a token")?);
        let answer = asked.send().await?.error_for_status()?.bytes().await?;
        found.extend(seen_in(&answer, canaries).into_iter().map(|canary| format!("{canary} in {route}")));
    }
    Ok(found)
}

/// How often each canary stands in the writable memory of a node's daemon; none where memory cannot be read.
fn remembered(mesh: &Cluster, node: &str, canaries: &[&str]) -> Option<Vec<(String, usize)>> {
    let pid = mesh.node(node).pid()?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok();
    let (Some(maps), Some(mut memory)) = (maps, memory) else {
        assert!(
            std::env::var_os("SCENEMESH_REQUIRE").is_none_or(|what| what != "all"),
            "the memory of another process cannot be read here"
        );
        eprintln!("skipped: the memory of another process cannot be read here");
        return None;
    };
    let mut counts: Vec<(String, usize)> = canaries.iter().map(|name| ((*name).to_owned(), 0)).collect();
    let mut read_all = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        let special = line.ends_with("[vvar]") || line.ends_with("[vsyscall]");
        if !rights.starts_with("rw") || special {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut bytes = Vec::new();
        if memory.seek(SeekFrom::Start(from)).is_err() {
            continue;
        }
        // Guard pages do not read.
        drop((&memory).take(to - from).read_to_end(&mut bytes));
        read_all += bytes.len();
        for (name, count) in &mut counts {
            *count += bytes.windows(name.len()).filter(|window| *window == name.as_bytes()).count();
        }
    }
    assert!(read_all > 1 << 20, "the daemon's memory was read: {read_all} bytes");
    counts.retain(|(_, count)| *count > 0);
    Some(counts)
}

fn bytes_of<'a>(canaries: &[&'a str]) -> Vec<&'a [u8]> {
    canaries.iter().map(|canary| canary.as_bytes()).collect()
}

#[test]
fn a_renderer_of_another_studio_learns_what_it_needs_and_forgets_it() {
    run(async |mesh, dir| {
        let token = two_studios(mesh, dir).await?;
        let workflow = file(dir, &format!("{LABEL}.json"), graph(50).to_string().as_bytes())?;
        let input = format!("{INPUT}={}", file(dir, "start.png", &pixel()?)?);
        let submit = |more: &[&'static str]| {
            let fixed =
                ["--token-file", &token, "submit", &workflow, "--project", PROJECT, "--input", &input];
            fixed
                .iter()
                .map(|word| (*word).to_owned())
                .chain(more.iter().map(|word| (*word).to_owned()))
                .collect::<Vec<_>>()
        };
        let words = submit(&["--reach", "birch", "--detach"]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let job = mesh.ok("amber-01", &words).await?;
        let job = job["job"].as_str().context("a job")?.to_owned();
        mesh.job_until("amber-01", &job, "it runs on birch", |shown| {
            shown["tasks"][0]["state"] == "running" && shown["tasks"][0]["node"] == "birch-01"
        })
        .await?;

        // While it runs: nothing that birch has no need of, wherever it looks, in memory too.
        let found = looked_for(mesh, "birch-01", &bytes_of(&NEVER)).await?;
        ensure!(found.is_empty(), "while it renders: {found:#?}");
        ensure!(
            looked_for(mesh, "birch-01", &bytes_of(&ALL)).await?.is_empty(),
            "the task itself is in memory and in ComfyUI only: {:#?}",
            looked_for(mesh, "birch-01", &bytes_of(&ALL)).await?
        );
        if let Some(counts) = remembered(mesh, "birch-01", &NEVER) {
            ensure!(counts.is_empty(), "in birch's memory while it renders: {counts:?}");
        }

        mesh.job_until("amber-01", &job, "it is done", |shown| shown["state"] == "done").await?;
        // Another task runs after it, without canaries.
        let plain =
            file(dir, "plain.json", workflows::keyframe(CHECKPOINT, 9, 2, 64).to_string().as_bytes())?;
        let out = dir.join("out").display().to_string();
        mesh.ok("amber-01", &["submit", &plain, "--reach", "birch", "--out", &out]).await?;
        let spool = mesh.node("birch-01").dir.join("blobs");
        eventually("birch's spool is empty", || async {
            let mut left = Vec::new();
            if spool.exists() {
                files(&spool, &mut left)?;
            }
            left.retain(|path| path.extension().is_none_or(|kind| kind != "lock"));
            Ok(if left.is_empty() { Ok(()) } else { Err(left) })
        })
        .await?;
        let found = looked_for(mesh, "birch-01", &bytes_of(&ALL)).await?;
        ensure!(found.is_empty(), "afterwards: {found:#?}");
        for folder in ["input", "output", "temp"] {
            let folder = mesh.node("birch-01").comfy_dir().join(folder);
            let mut left = Vec::new();
            if folder.exists() {
                files(&folder, &mut left)?;
            }
            ensure!(left.is_empty(), "left in ComfyUI: {left:?}");
        }
        if let Some(counts) = remembered(mesh, "birch-01", &ALL) {
            ensure!(counts.is_empty(), "in birch's memory afterwards: {counts:?}");
        }
        Ok(())
    });
}

#[test]
fn what_stays_in_the_studio_leaves_nothing_outside() {
    run(async |mesh, dir| {
        let token = two_studios(mesh, dir).await?;
        let workflow = file(dir, &format!("{LABEL}.json"), graph(2).to_string().as_bytes())?;
        let input = format!("{INPUT}={}", file(dir, "start.png", &pixel()?)?);
        let mut ids = Vec::new();
        for reach in ["machine", "studio"] {
            let out = dir.join(reach).display().to_string();
            let words = [
                "--token-file",
                &token,
                "submit",
                &workflow,
                "--project",
                PROJECT,
                "--input",
                &input,
                "--reach",
                reach,
                "--out",
                &out,
            ];
            let job = mesh.ok("amber-01", &words).await?;
            ensure!(job["tasks"][0]["node"] == "amber-01", "it stayed: {job:#}");
            for id in [&job["job"], &job["tasks"][0]["task"]] {
                ids.push(id.as_str().context("an id")?.to_owned());
            }
        }
        // Whatever amber has to tell birch it has told: adverts go out at least this often.
        mesh.advert_seen("birch-01", "amber-01").await?;
        let mut canaries = bytes_of(&ALL);
        let raw: Vec<Vec<u8>> = ids
            .iter()
            .map(|id| (0..16).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect())
            .collect();
        canaries.extend(ids.iter().map(|id| id.as_bytes()));
        canaries.extend(raw.iter().map(Vec::as_slice));
        canaries.extend(ids.iter().map(|id| &id.as_bytes()[..8]));
        let found = looked_for(mesh, "birch-01", &canaries).await?;
        ensure!(found.is_empty(), "outside the studio: {found:#?}");
        let names: Vec<&str> = ALL.iter().copied().chain(ids.iter().map(String::as_str)).collect();
        if let Some(counts) = remembered(mesh, "birch-01", &names) {
            ensure!(counts.is_empty(), "in birch's memory: {counts:?}");
        }
        let log = mesh.node("birch-01").log();
        ensure!(!log.contains("Request::Offer") && !log.contains("offered"), "birch was offered nothing");
        Ok(())
    });
}

#[test]
fn people_of_one_machine_see_their_own() {
    run(async |mesh, dir| {
        mesh.add("amber-01", Comfy::simulated(&["--step-ms", "60"])).await?;
        let token = |name: &str| dir.join(format!("{name}.json")).display().to_string();
        for (name, role) in [(PERSON, "submit"), ("noor", "submit"), ("vera", "view"), ("olga", "operate")] {
            mesh.ok("amber-01", &["user", "add", name, "--role", role, "--out", &token(name)]).await?;
        }
        let slow = workflows::keyframe(CHECKPOINT, 7, 1000, 64).to_string();
        let workflow = file(dir, &format!("{LABEL}.json"), slow.as_bytes())?;
        let submit = ["--token-file", &token(PERSON), "submit", &workflow, "--reach", "machine", "--detach"];
        let job = mesh.ok("amber-01", &submit).await?;
        let job = job["job"].as_str().context("a job")?.to_owned();

        for (name, sees) in [(PERSON, true), ("noor", false), ("vera", false), ("olga", true)] {
            let file = token(name);
            let show = mesh.ok("amber-01", &["--token-file", &file, "show", &job]).await?;
            let jobs = mesh.cli("amber-01", &["--token-file", &file, "jobs"]).await?;
            ensure!(show["hidden"] == !sees, "{name}: {show:#}");
            ensure!(
                (show["label"] == LABEL) == sees && (show["person"] == PERSON) == sees,
                "{name}: {show:#}"
            );
            ensure!(jobs.stdout.contains(LABEL) == sees, "{name}: {}", jobs.stdout);
            ensure!(show["state"].is_string(), "how it stands is no secret: {show:#}");
            for verb in ["why", "logs"] {
                let answer = mesh.cli("amber-01", &["--token-file", &file, verb, &job]).await?;
                ensure!((answer.code == 0) == sees, "{name} {verb}: {answer:?}");
                ensure!(sees || answer.code == 4, "{name} {verb}: {answer:?}");
            }
        }
        for name in ["noor", "vera"] {
            let answer = mesh.cli("amber-01", &["--token-file", &token(name), "cancel", &job]).await?;
            ensure!(answer.code == 4, "{name}: {answer:?}");
        }
        mesh.ok("amber-01", &["--token-file", &token("olga"), "cancel", &job]).await?;
        mesh.ok("amber-01", &["user", "rm", "olga"]).await?;
        let gone = mesh.cli("amber-01", &["--token-file", &token("olga"), "jobs"]).await?;
        ensure!(gone.code == 4, "{gone:?}");
        Ok(())
    });
}
