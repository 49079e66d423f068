//! The demo: two studios, three machines, four keyframes, one power cut; every picture arrives.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::Instant;

use crate::cluster::{Cluster, Comfy};
use crate::eventually::eventually_within;
use crate::program::Programs;
use crate::scenarios::{graph_file, outputs, png_pixels};
use crate::talk::{result, say};
use crate::workflows;

mod real;

/// `testnet demo`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Leave the mesh up and say how to talk to it
    #[arg(long)]
    keep: bool,
    /// Use these two or three ComfyUIs instead of simulated ones, the first beside the first machine and so on
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    comfyui: Vec<String>,
    /// Checkpoint that the keyframes are sampled with; each ComfyUI must hold it
    #[arg(long, value_name = "NAME", default_value = "base.safetensors")]
    checkpoint: String,
    /// Where the pictures go
    #[arg(long, value_name = "DIR", default_value = "demo-output")]
    out: PathBuf,
}

const TASKS: usize = 4;
const STEPS: u32 = 20;
/// The machine that submits.
const DESK: &str = MACHINES[0].name;
/// Longest time for a part of the story: a real ComfyUI may load a checkpoint from a slow disk, or sample on a processor.
const PATIENCE: Duration = Duration::from_mins(20);

struct Machine {
    name: &'static str,
    studio: &'static str,
    gpu: &'static str,
    vram_mib: &'static str,
    step_ms: &'static str,
}

/// Unequal on purpose: a pool is never of one kind.
const MACHINES: [Machine; 3] = [
    Machine {
        name: "amber-01",
        studio: "amber",
        gpu: "NVIDIA GeForce RTX 4090",
        vram_mib: "24576",
        step_ms: "110",
    },
    Machine { name: "amber-02", studio: "amber", gpu: "NVIDIA RTX A6000", vram_mib: "49152", step_ms: "170" },
    Machine {
        name: "birch-01",
        studio: "birch",
        gpu: "NVIDIA GeForce RTX 3090",
        vram_mib: "24576",
        step_ms: "190",
    },
];

/// Runs the demo.
///
/// # Errors
/// When any part of the story does not come true.
pub async fn run(options: Options) -> Result<()> {
    let began = Instant::now();
    let side = real::check(&options.comfyui, &options.checkpoint).await?;
    let home = tempfile::Builder::new()
        .prefix("scenemesh-demo-")
        .tempdir()
        .context("making a directory for the mesh")?;
    let mut mesh = Cluster::new(Programs::this_binary()?, home.path());
    let mut story = Story::default();

    start_machines(&mut mesh, &options).await?;
    story.tell(if options.comfyui.is_empty() {
        "three machines came up, each beside a ComfyUI (simulated: no GPU is used, the pictures are computed gradients)".into()
    } else {
        format!("three machines came up, {} of them beside a real ComfyUI", options.comfyui.len())
    });

    mesh.found("amber-01", "aurora", "amber").await?;
    story.tell("amber-01 founded the pool aurora for studio amber (`scenemesh init`)".into());
    mesh.admit("amber-01", "amber-02", None).await?;
    mesh.admit("amber-01", "birch-01", Some("birch")).await?;
    mesh.all_up().await?;
    story.tell(
        "amber-02 joined studio amber, birch-01 founded studio birch, by one-use invites; all see each other"
            .into(),
    );

    let graph = workflows::keyframe(&options.checkpoint, 20_260, STEPS, side);
    let graph = graph_file(home.path(), "keyframe.json", &graph)?;
    let count = TASKS.to_string();
    let job = mesh.ok(DESK, &["submit", &graph, "--count", &count, "--reach", "pool", "--detach"]).await?;
    let id = job["job"].as_str().context("a submitted job has an id")?.to_owned();
    story.tell(format!("amber-01 submitted job {}: {TASKS} keyframes, reach pool", &id[..8]));

    let mut screen = Screen::new();
    let victim = sampling_elsewhere(&mesh, &id, &mut screen).await?;
    mesh.kill(&victim).await?;
    screen.say(&format!("    {victim} loses power (SIGKILL) in the middle of sampling"));
    story.tell(format!("{victim} was killed while sampling; its lease ran out and its task went elsewhere"));

    let done = finished(&mesh, &id, &mut screen).await?;
    screen.clear();
    let pictures = fetch(&mesh, &id, &options.out).await?;
    story.tell(format!("all {TASKS} tasks finished: {}", who_rendered(&done)));
    let attempts: u64 = tasks(&done).filter_map(|task| task["attempts"].as_u64()).sum();
    story.tell(format!("{attempts} attempts in all, every result accepted once"));
    check_pictures(&pictures)?;
    mesh.start(&victim).await?;
    let beside = comfyui_of(&mesh, &options, &victim).context("the machine that was killed has a ComfyUI")?;
    real::is_clean(&beside).await?;
    story.tell(format!("{victim} came back, and nothing of its old task is left in its ComfyUI"));
    story.tell(format!(
        "{} different pictures decoded, written to {}",
        pictures.len(),
        options.out.display()
    ));
    story.tell(format!(
        "that took {:.1} s from the first process to the last picture",
        began.elapsed().as_secs_f64()
    ));

    story.print();
    for picture in &pictures {
        result(&picture.display().to_string());
    }
    if options.keep { keep(&mesh).await } else { Ok(()) }
}

#[derive(Default)]
struct Story {
    lines: Vec<String>,
}

impl Story {
    fn tell(&mut self, line: String) {
        say(&format!("  · {line}"));
        self.lines.push(line);
    }

    fn print(&self) {
        say("");
        say("The story");
        for (at, line) in self.lines.iter().enumerate() {
            say(&format!("{:>3}. {line}", at + 1));
        }
        say("");
    }
}

async fn start_machines(mesh: &mut Cluster, options: &Options) -> Result<()> {
    for (at, machine) in MACHINES.iter().enumerate() {
        let comfy = match options.comfyui.get(at) {
            Some(url) => Comfy::At(url.clone()),
            None if !options.comfyui.is_empty() => Comfy::Absent,
            None => Comfy::simulated(&[
                "--gpu",
                machine.gpu,
                "--vram-mib",
                machine.vram_mib,
                "--step-ms",
                machine.step_ms,
                "--model",
                &format!("checkpoints/{}", options.checkpoint),
            ]),
        };
        let beside = match &comfy {
            Comfy::Simulated(_) => format!("{} (simulated)", machine.gpu),
            Comfy::At(url) => url.clone(),
            Comfy::Absent => "no ComfyUI".into(),
        };
        mesh.add(machine.name, comfy).await?;
        say(&format!("    {:<9} studio {:<6} {beside}", machine.name, machine.studio));
    }
    Ok(())
}

fn comfyui_of(mesh: &Cluster, options: &Options, name: &str) -> Option<String> {
    let at = MACHINES.iter().position(|machine| machine.name == name)?;
    options.comfyui.get(at).cloned().or_else(|| mesh.node(name).comfy_url().map(str::to_owned))
}

fn tasks(job: &Value) -> impl Iterator<Item = &Value> {
    job["tasks"].as_array().into_iter().flatten()
}

fn node_name(task: &Value) -> Option<&str> {
    task["node"].as_str()
}

/// Shows progress until a machine other than the submitting one is well into sampling, and gives its name.
async fn sampling_elsewhere(mesh: &Cluster, id: &str, screen: &mut Screen) -> Result<String> {
    let screen = std::cell::RefCell::new(screen);
    eventually_within(PATIENCE, "another machine is well into sampling", || async {
        let job = mesh.ok(DESK, &["show", id]).await?;
        screen.borrow_mut().show(&job);
        ensure!(
            job["state"] != "failed" && job["state"] != "done",
            "the job ended before another machine was seen at work: {job:#}"
        );
        let half_way = |task: &&Value| {
            let far = task["progress"]["step"].as_u64() >= Some(u64::from(STEPS) / 3);
            far && task["state"] == "running" && node_name(task) != Some(DESK)
        };
        Ok(tasks(&job).find(half_way).and_then(node_name).map(str::to_owned).ok_or(job.clone()))
    })
    .await
}

async fn finished(mesh: &Cluster, id: &str, screen: &mut Screen) -> Result<Value> {
    let screen = std::cell::RefCell::new(screen);
    eventually_within(PATIENCE, "all four tasks are done", || async {
        let job = mesh.ok(DESK, &["show", id]).await?;
        screen.borrow_mut().show(&job);
        ensure!(job["state"] != "failed", "the job failed: {job:#}");
        Ok(if job["state"] == "done" { Ok(job) } else { Err(job) })
    })
    .await
}

async fn fetch(mesh: &Cluster, id: &str, out: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let fetched = mesh.ok(DESK, &["fetch", id, "--out", &out.display().to_string()]).await?;
    Ok(outputs(&fetched))
}

fn who_rendered(job: &Value) -> String {
    let mut by_node: BTreeMap<&str, usize> = BTreeMap::new();
    for name in tasks(job).filter_map(node_name) {
        *by_node.entry(name).or_default() += 1;
    }
    by_node.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn check_pictures(pictures: &[PathBuf]) -> Result<()> {
    ensure!(pictures.len() == TASKS, "{} pictures arrived, not {TASKS}", pictures.len());
    let mut seen = BTreeMap::new();
    for picture in pictures {
        let (_, _, pixels) = png_pixels(picture)?;
        if let Some(twin) = seen.insert(*pixels.as_bytes(), picture) {
            anyhow::bail!("{} and {} show the same picture", twin.display(), picture.display());
        }
    }
    Ok(())
}

async fn keep(mesh: &Cluster) -> Result<()> {
    let program = std::env::current_exe()?;
    say("The mesh stays up until Ctrl-C. Talk to it, for example:");
    for node in mesh.nodes() {
        let gap = program.display();
        say(&format!("    {gap} scenemesh --data-dir {} peers", node.dir.display()));
    }
    tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")
}

/// Live progress: bars on a terminal, a line per change elsewhere.
struct Screen {
    bars: Option<(MultiProgress, Vec<ProgressBar>)>,
    last: Vec<String>,
}

impl Screen {
    fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            let style = ProgressStyle::with_template("    {prefix:<9} {bar:24} {pos:>2}/{len} {msg}")
                .expect("the template is well-formed");
            let bars = (0..TASKS)
                .map(|at| {
                    let bar = all.add(ProgressBar::new(u64::from(STEPS)).with_style(style.clone()));
                    bar.set_prefix(format!("frame {at}"));
                    // All of them from the start: lines that appear later would leave copies behind.
                    bar.set_message("waiting");
                    bar.tick();
                    bar
                })
                .collect();
            (all, bars)
        });
        Self { bars, last: vec![String::new(); TASKS] }
    }

    fn show(&mut self, job: &Value) {
        for (at, task) in tasks(job).take(TASKS).enumerate() {
            let state = task["state"].as_str().unwrap_or_default();
            let doing = node_name(task).map_or_else(|| state.to_owned(), |node| format!("{state} on {node}"));
            let step = task["progress"]["step"].as_u64().unwrap_or(0);
            if let Some((_, bars)) = &self.bars {
                bars[at].set_position(if state == "done" { u64::from(STEPS) } else { step });
                bars[at].set_message(doing);
                continue;
            }
            let line = format!("    frame {at}: {doing}");
            if self.last[at] != line {
                say(&line);
                self.last[at] = line;
            }
        }
    }

    fn say(&self, line: &str) {
        match &self.bars {
            Some((all, _)) => drop(all.println(line)),
            None => say(line),
        }
    }

    fn clear(&mut self) {
        if let Some((all, bars)) = self.bars.take() {
            bars.iter().for_each(ProgressBar::abandon);
            drop(all);
        }
    }
}
