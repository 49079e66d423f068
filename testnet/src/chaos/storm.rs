//! Who dies when: one victim is chosen at a time and killed in the phase that is due; beside that links and ComfyUIs go.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::chance::Chance;
use super::orders::Orders;
use super::{DESKS, RENDERERS};
use crate::cluster::Cluster;
use crate::talk::say;

/// A part of a task's life, and where in it somebody dies.
#[derive(Debug)]
pub(super) struct Phase {
    pub(super) name: &'static str,
    points: &'static [Point],
}

/// What is waited for, and at whom.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// A record of the requester, just before or just after it is on disk.
    Requester(&'static str, &'static str),
    Renderer(&'static str, &'static str),
    /// The ComfyUI beside a renderer says so.
    Comfy(&'static str),
}

/// Records that mark the phases. A result is fetched between the record of its wipe, which comes with the news that it is
/// finished, and its own.
pub(super) const PHASES: [Phase; 6] = [
    Phase {
        name: "grant",
        points: &[
            Point::Requester("requester.granted", "before"),
            Point::Requester("requester.granted", "after"),
            Point::Renderer("renderer.accepted", "before"),
            Point::Requester("requester.accepted", "before"),
        ],
    },
    Phase {
        name: "upload",
        points: &[Point::Renderer("renderer.accepted", "after"), Point::Comfy("uploaded")],
    },
    Phase { name: "sampling", points: &[Point::Comfy("step")] },
    Phase {
        name: "finished",
        points: &[Point::Renderer("renderer.sealed", "before"), Point::Renderer("renderer.sealed", "after")],
    },
    Phase {
        name: "fetch",
        points: &[
            Point::Requester("requester.wiped", "before"),
            Point::Requester("requester.wiped", "after"),
            Point::Requester("requester.stored", "before"),
        ],
    },
    Phase {
        name: "ack",
        points: &[
            Point::Requester("requester.stored", "after"),
            Point::Renderer("renderer.dropped", "before"),
            Point::Renderer("renderer.dropped", "after"),
        ],
    },
];

/// How long a point may take to come before another one is tried.
const POINT_PATIENCE: Duration = Duration::from_secs(20);
/// Between two words of how many jobs are still open.
const QUIET: Duration = Duration::from_secs(30);
/// How long a whole storm may take.
const STORM_PATIENCE: Duration = Duration::from_mins(40);
/// A task under which ComfyUI dies three times fails, as it should: here it never does that often.
const CRASHES: u32 = 2;

/// Who died in one phase.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Killed {
    requester: u32,
    renderer: u32,
    both: u32,
}

impl Killed {
    pub(super) fn ends(self) -> [u32; 3] {
        [self.requester, self.renderer, self.both]
    }

    fn moments(self) -> u32 {
        self.ends().iter().sum()
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) phases: [Killed; PHASES.len()],
    pub(super) cuts: u32,
    pub(super) crashes: u32,
    /// Kills of daemons beside which a ComfyUI was.
    pub(super) renderers: u32,
}

impl Tally {
    /// Daemons that were killed.
    pub(super) fn kills(self) -> u32 {
        self.phases.iter().map(|killed| killed.moments() + killed.both).sum()
    }
}

#[derive(Debug)]
struct Armed {
    phase: usize,
    point: Point,
    node: &'static str,
    since: Instant,
    /// Lines of its kind in the ComfyUI's log by then.
    seen: usize,
}

#[derive(Debug)]
pub(super) struct Storm {
    chance: Chance,
    kills: u32,
    tally: Tally,
    armed: Option<Armed>,
    /// Daemons that are down, and until when.
    down: BTreeMap<&'static str, Instant>,
    cut: Option<(&'static str, Instant)>,
    crashed: Option<(&'static str, Instant)>,
    next_cut: Instant,
    next_arming: Instant,
}

impl Storm {
    pub(super) fn new(chance: Chance, kills: u32) -> Self {
        let now = Instant::now();
        Self {
            chance,
            kills,
            tally: Tally::default(),
            armed: None,
            down: BTreeMap::new(),
            cut: None,
            crashed: None,
            next_cut: now,
            next_arming: now,
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Until every phase had its kills and every job has ended, by its desk's word.
    pub(super) async fn rage(&mut self, mesh: &mut Cluster, orders: &mut Orders) -> Result<()> {
        let until = Instant::now() + STORM_PATIENCE;
        let mut ticks = interval(Duration::from_millis(20));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = Instant::now();
        loop {
            ticks.tick().await;
            ensure!(
                Instant::now() < until,
                "the storm did not end within {STORM_PATIENCE:?}: {:?}",
                self.tally
            );
            self.raise(mesh).await?;
            self.strike(mesh).await?;
            if self.rages() {
                self.arm(mesh)?;
                self.disturb(mesh).await?;
            }
            let up: Vec<&str> = DESKS.into_iter().filter(|desk| !self.down.contains_key(desk)).collect();
            orders.submit_next(mesh, &up).await?;
            let submitted = orders.all.iter().all(|order| order.job.is_some());
            if !submitted || looked.elapsed() < Duration::from_millis(500) {
                continue;
            }
            looked = Instant::now();
            let open = open_jobs(mesh, orders, &up).await?;
            if self.rages() {
                if open <= DESKS.len() {
                    orders.add(&mut self.chance);
                }
            } else if open == 0 {
                return Ok(());
            } else if self.armed.is_none() && self.cut.is_none() && up.len() == DESKS.len() {
                say(&format!("the storm is over, {open} jobs are open"));
                looked = Instant::now() + QUIET;
            }
        }
    }

    /// Whether some phase has not had its kills.
    fn rages(&self) -> bool {
        self.tally.phases.iter().any(|killed| killed.moments() < self.kills)
    }

    /// Starts, heals and revives whatever was down for long enough.
    async fn raise(&mut self, mesh: &mut Cluster) -> Result<()> {
        let now = Instant::now();
        let due: Vec<_> =
            self.down.iter().filter(|(_, until)| **until <= now).map(|(node, _)| *node).collect();
        for node in due {
            mesh.start(node).await?;
            self.down.remove(node);
        }
        if let Some((node, _)) = self.cut.take_if(|(_, until)| *until <= now) {
            mesh.node(node).wire().into_iter().for_each(crate::proxy::Proxy::heal);
        }
        if let Some((node, _)) = self.crashed.take_if(|(_, until)| *until <= now) {
            mesh.restart_comfy(node).await?;
        }
        Ok(())
    }

    /// Chooses where somebody dies next: in the phase that had fewest.
    fn arm(&mut self, mesh: &Cluster) -> Result<()> {
        let now = Instant::now();
        if self.armed.is_some() || now < self.next_arming {
            return Ok(());
        }
        let fewest = self.tally.phases.iter().map(|killed| killed.moments()).min().unwrap_or_default();
        let due: Vec<usize> =
            (0..PHASES.len()).filter(|phase| self.tally.phases[*phase].moments() == fewest).collect();
        let Some(phase) = self.chance.pick(&due).copied() else { return Ok(()) };
        let Some(point) = self.chance.pick(PHASES[phase].points).copied() else { return Ok(()) };
        let from: &[&'static str] = if matches!(point, Point::Requester(..)) { &DESKS } else { &RENDERERS };
        let up: Vec<&'static str> =
            from.iter().copied().filter(|node| !self.down.contains_key(node)).collect();
        let Some(node) = self.chance.pick(&up).copied() else { return Ok(()) };
        let seen = match point {
            Point::Requester(record, when) | Point::Renderer(record, when) => {
                mesh.halt_at(node, Some((record, when)))?;
                0
            }
            Point::Comfy(event) => count(&mesh.node(node).comfy_log(), event),
        };
        self.armed = Some(Armed { phase, point, node, since: now, seen });
        Ok(())
    }

    /// Kills whoever has come to its point, or the other end, or both.
    async fn strike(&mut self, mesh: &mut Cluster) -> Result<()> {
        let Some(armed) = &self.armed else { return Ok(()) };
        let there = match armed.point {
            Point::Comfy(event) => count(&mesh.node(armed.node).comfy_log(), event) > armed.seen,
            _ => mesh.node(armed.node).is_halted(),
        };
        if !there {
            if armed.since.elapsed() > POINT_PATIENCE {
                mesh.halt_at(armed.node, None)?;
                // It may stand still by now: then it is found so at the next look.
                if !mesh.node(armed.node).is_halted() {
                    self.armed = None;
                }
            }
            return Ok(());
        }
        let (phase, point, node) = (armed.phase, armed.point, armed.node);
        self.armed = None;
        let at_requester = matches!(point, Point::Requester(..));
        let other = if at_requester { busiest(mesh) } else { DESKS.get(chosen(&mut self.chance)).copied() };
        let other = other.filter(|other| *other != node && !self.down.contains_key(other));
        let killed = &mut self.tally.phases[phase];
        let mut victims = vec![node];
        match (self.chance.below(3), other) {
            (0, Some(other)) => {
                victims.push(other);
                killed.both += 1;
            }
            // One that stands still is killed, whoever else is: nobody would let it go on.
            (1, Some(other)) if matches!(point, Point::Comfy(_)) => {
                victims = vec![other];
                killed.requester += 1;
            }
            _ if at_requester => killed.requester += 1,
            _ => killed.renderer += 1,
        }
        for victim in victims {
            mesh.kill(victim).await?;
            mesh.halt_at(victim, None)?;
            self.tally.renderers += u32::from(RENDERERS.contains(&victim));
            self.down.insert(victim, Instant::now() + self.chance.span(50, 2500));
        }
        self.next_arming = Instant::now() + self.chance.span(100, 800);
        Ok(())
    }

    /// Cuts a link now and then, for longer than a lease at times, and lets a ComfyUI die.
    async fn disturb(&mut self, mesh: &mut Cluster) -> Result<()> {
        let now = Instant::now();
        if self.cut.is_none() && now >= self.next_cut {
            let nodes: Vec<&'static str> = DESKS[..2].iter().chain(&RENDERERS).copied().collect();
            if let Some(node) = self.chance.pick(&nodes).copied() {
                mesh.node(node).wire().into_iter().for_each(crate::proxy::Proxy::cut);
                let long = if self.chance.one_in(5) { 20_000 } else { 3_000 };
                self.cut = Some((node, now + self.chance.span(100, long)));
                self.tally.cuts += 1;
                self.next_cut = now + self.chance.span(2_000, 10_000);
            }
        }
        let crashes = self.crashed.is_none() && self.tally.crashes < CRASHES && self.chance.one_in(400);
        if let Some(node) = self.chance.pick(&RENDERERS).copied().filter(|_| crashes) {
            mesh.kill_comfy(node).await?;
            self.crashed = Some((node, now + self.chance.span(500, 3_000)));
            self.tally.crashes += 1;
        }
        Ok(())
    }
}

fn chosen(chance: &mut Chance) -> usize {
    usize::try_from(chance.below(DESKS.len() as u64)).unwrap_or_default()
}

fn count(log: &[Value], event: &str) -> usize {
    log.iter().filter(|line| line["event"] == event).count()
}

/// The renderer whose ComfyUI did something last.
fn busiest(mesh: &Cluster) -> Option<&'static str> {
    let last = |node: &str| mesh.node(node).comfy_log().last().and_then(|line| line["at_us"].as_u64());
    RENDERERS.into_iter().max_by_key(|node| last(node))
}

/// Jobs that have not ended, as far as the desks that are up know.
async fn open_jobs(mesh: &Cluster, orders: &Orders, up: &[&str]) -> Result<usize> {
    let mut open = orders.all.iter().filter(|order| !up.contains(&order.desk)).count();
    for desk in up {
        let jobs = mesh.cli(desk, &["jobs", "--active"]).await?;
        let listed = jobs.json["jobs"].as_array().map_or(1, Vec::len);
        open += if jobs.code == 0 { listed } else { 1 };
    }
    Ok(open)
}
