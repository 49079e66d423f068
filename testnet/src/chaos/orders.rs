//! What is submitted: jobs of ten tasks, each job with a name of its own, so that nobody submits one twice.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::chance::Chance;
use super::{DESKS, graph};
use crate::cluster::Cluster;
use crate::scenarios::graph_file;

const TASKS: u32 = 10;
/// Seconds of a task at pace 1, and sampling steps.
const STEPS: u64 = 20;

/// One job.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) desk: &'static str,
    /// What the job is called, and its workflow's file.
    pub(super) label: String,
    pub(super) first_seed: u64,
    pub(super) steps: u32,
    /// Its id, once somebody has said that it is accepted.
    pub(super) job: Option<String>,
    /// It was tried, and nobody said what came of it.
    doubtful: bool,
}

impl Order {
    pub(super) fn seeds(&self) -> impl Iterator<Item = u64> {
        self.first_seed..self.first_seed + u64::from(TASKS)
    }
}

#[derive(Debug)]
pub(super) struct Orders {
    dir: PathBuf,
    pub(super) all: Vec<Order>,
    pub(super) plate: PathBuf,
}

impl Orders {
    pub(super) fn new(dir: &Path, chance: &mut Chance, tasks: u32) -> Result<Self> {
        let plate = dir.join("plate.png");
        picture(&plate, chance.below(256))?;
        let mut orders = Self { dir: dir.to_owned(), all: Vec::new(), plate };
        for _ in 0..tasks.div_ceil(TASKS) {
            orders.add(chance);
        }
        Ok(orders)
    }

    /// One more job.
    pub(super) fn add(&mut self, chance: &mut Chance) {
        let number = self.all.len();
        let desk = DESKS[number % DESKS.len()];
        let steps = u32::try_from(1 + chance.below(STEPS)).unwrap_or(1);
        let first_seed = (number as u64 + 1) * 1000;
        let label = format!("job-{number:03}");
        self.all.push(Order { desk, label, first_seed, steps, job: None, doubtful: false });
    }

    pub(super) fn tasks(&self) -> usize {
        self.all.len() * TASKS as usize
    }

    /// Submits the next job of one of these desks, if there is one. A desk that dies under it is asked later what it knows.
    pub(super) async fn submit_next(&mut self, mesh: &Cluster, up: &[&str]) -> Result<()> {
        let next = self.all.iter().position(|order| order.job.is_none() && up.contains(&order.desk));
        let Some(at) = next else { return Ok(()) };
        let order = &mut self.all[at];
        if order.doubtful {
            let jobs = mesh.cli(order.desk, &["jobs", "--limit", "1000"]).await?;
            if jobs.code != 0 {
                return Ok(());
            }
            let mut known = jobs.json["jobs"].as_array().into_iter().flatten();
            let same = known.find(|job| job["label"] == order.label.as_str());
            order.job = same.and_then(|job| job["job"].as_str()).map(str::to_owned);
            if order.job.is_some() {
                return Ok(());
            }
        }
        let workflow = graph("plate.png", order.first_seed, order.steps);
        let workflow = graph_file(&self.dir, &format!("{}.json", order.label), &workflow)?;
        let input = format!("plate.png={}", self.plate.display());
        let count = TASKS.to_string();
        let arguments =
            ["submit", &workflow, "--input", &input, "--count", &count, "--reach", "pool", "--detach"];
        let answer = mesh.cli(order.desk, &arguments).await?;
        order.doubtful = true;
        if answer.code == 0 {
            order.job = Some(answer.json["job"].as_str().context("a job has an id")?.to_owned());
        }
        Ok(())
    }
}

fn picture(path: &Path, shade: u64) -> Result<()> {
    let (width, height) = (48_u32, 32_u32);
    let pixel = |at: u64| [at % 251, at / 7 % 253, shade].map(|part| u8::try_from(part).unwrap_or(0));
    let pixels: Vec<u8> = (0..u64::from(width * height)).flat_map(pixel).collect();
    let mut encoder = png::Encoder::new(std::fs::File::create(path)?, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    Ok(writer.finish()?)
}
