//! Whole schedulers over real stores, networks and executors; only ComfyUI is a brush that paints what it is told.

mod forgetting;
mod leaving;
mod policy;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::ids::{BootId, JobId, NodeId};
use scenemesh_protocol::keys::{KemSecret, SecretKey};
use scenemesh_protocol::roster::{
    Consent, Member, Roles, Roster, Settings, SettingsChain, SignedRecord, Studio,
};
use scenemesh_protocol::signed::Signed;
use scenemesh_protocol::studio::StudioRules;
use scenemesh_protocol::task::{Class, InputFile, OnSuspect, OutputFile, OutputKind, Reach};
use tempfile::TempDir;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::executor::{self, Backend, DeviceReading, Outcome, Probe, Reporter, Run, RunEnd};
use crate::network::{self, Identity, Network, RosterView};
use crate::scheduler::{
    self, Config, Id, Inputs, JobSpec, JobState, JobView, Me, Needs, Ports, Scheduler, StageSpec, SubmitError,
};
use crate::store::{self, Blobs, Store};
use crate::supervisor::Supervisor;

mod reach;

/// Nothing here takes this long; a test that does has failed.
const SOON: Duration = Duration::from_secs(60);

/// A ComfyUI whose picture is its graph, followed by its inputs. Each needs a permit.
struct Brush {
    blobs: Blobs,
    permits: Arc<Semaphore>,
}

impl Brush {
    async fn paint(&self, run: &Run, report: &Reporter) -> Outcome {
        report.started().await;
        report.progress("1".into(), (1, 2), (0, 1));
        self.permits.acquire().await.unwrap().forget();
        let mut picture = run.graph.clone();
        for input in &run.inputs {
            let mut opener = self.blobs.open(input.root, &input.key).await.unwrap();
            while let Some(piece) = opener.next().await.unwrap() {
                picture.extend_from_slice(&piece);
            }
        }
        let mut sealer = self.blobs.seal();
        sealer.write(&picture).await.unwrap();
        let sealed = sealer.finish().await.unwrap();
        let output = OutputFile {
            node: "1".into(),
            kind: OutputKind::Image,
            filename: "picture.png".into(),
            root: sealed.root,
            key: sealed.key,
            bytes: sealed.bytes,
        };
        Outcome::Done { outputs: vec![output], exec_ms: 7 }
    }
}

impl Backend for Brush {
    fn url(&self) -> String {
        "brush:".into()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<Probe, String>> {
        let classes = ["KSampler", "LoadImage", "SaveImage"].map(String::from).to_vec();
        let device = DeviceReading { name: "brush".into(), kind: "cuda".into(), ..DeviceReading::default() };
        let probe = Probe {
            inventory: Arc::new(executor::Inventory::of(classes, Vec::new())),
            warm: Vec::new(),
            devices: vec![device],
            comfyui_version: "0".into(),
            hygiene: Hygiene::Full,
            others_queued: 0,
        };
        async move { Ok(probe) }.boxed()
    }

    fn run<'a>(
        &'a mut self,
        run: &'a Run,
        report: &'a Reporter,
        stop: CancellationToken,
    ) -> BoxFuture<'a, RunEnd> {
        async move {
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => Outcome::Failed(scenemesh_protocol::task::Failure::new(
                    scenemesh_protocol::task::FailureClass::Cancelled,
                    "cancelled",
                )),
                outcome = self.paint(run, report) => outcome,
            };
            RunEnd::from(outcome)
        }
        .boxed()
    }
}

/// Keys of a machine and the place where it lives; its daemon comes and goes.
struct House {
    dir: TempDir,
    node: SecretKey,
    kem: KemSecret,
    brushes: usize,
    permits: Arc<Semaphore>,
}

struct Daemon {
    scheduler: Scheduler,
    network: Network,
    store: Store,
    supervisor: Supervisor,
    studio: watch::Sender<Arc<StudioRules>>,
    lending: scheduler::lend::keeper::Keeper,
    exit: CancellationToken,
    _roster: watch::Sender<Option<Arc<Roster>>>,
    _gpus: watch::Sender<Arc<Vec<crate::gpu::GpuReading>>>,
}

impl House {
    fn new(brushes: usize) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            node: SecretKey::generate(),
            kem: KemSecret::generate(),
            brushes,
            permits: Arc::new(Semaphore::new(0)),
        }
    }

    fn id(&self) -> NodeId {
        self.node.public().node()
    }

    async fn start(&self, roster: Option<&Arc<Roster>>) -> Daemon {
        self.start_with(roster, &StudioRules::default()).await
    }

    async fn start_with(&self, roster: Option<&Arc<Roster>>, rules: &StudioRules) -> Daemon {
        let supervisor = Supervisor::new(Duration::from_secs(5));
        let tasks = supervisor.tasks();
        let config = store::Config { reserve: 0, ..store::Config::at(self.dir.path()) };
        let (store, replay) = store::open(&config, &tasks).await.unwrap();
        let boot = BootId::random();
        let free = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        let config =
            network::Config { listen: free.clone(), porch: free, mdns: false, ..network::Config::default() };
        let identity = Identity { key: self.node.clone() };
        let (network, events) = network::spawn(config, identity, boot, store.blobs.clone(), &tasks).unwrap();
        let brush = || -> Box<dyn Backend> {
            Box::new(Brush { blobs: store.blobs.clone(), permits: self.permits.clone() })
        };
        let backends = (0..self.brushes).map(|_| brush()).collect();
        let (executor, runs) = executor::spawn_with(backends, &tasks);
        let (roster_sender, roster_seen) = watch::channel(roster.cloned());
        // Nobody is ever shut out; a closed channel keeps its last value.
        let (_, barred) = watch::channel(Arc::default());
        let (gpus_sender, gpus) = watch::channel(Arc::default());
        let (studio_sender, studio) = watch::channel(Arc::new(rules.clone()));
        let policy = executor::policy::spawn(self.dir.path(), &tasks).unwrap().policy();
        let lending = scheduler::lend::keeper::spawn(self.dir.path(), &tasks).unwrap();
        let exit = CancellationToken::new();
        let ports = Ports {
            network: network.clone(),
            executor,
            store: store.clone(),
            roster: roster_seen,
            studio,
            barred,
            gpus,
            look_at_gpus: Arc::default(),
            policy,
            lending: lending.lending(),
            exit: exit.clone(),
        };
        let inputs = Inputs { network: events.tasks, executor: runs };
        let me = Me { node: self.node.clone(), kem: self.kem.clone(), boot };
        let scheduler = scheduler::spawn(Config::default(), me, ports, inputs, &replay, &tasks).unwrap();
        if let Some(roster) = roster {
            let members = roster.members(0).map(|member| (member.node.node(), member.studio)).collect();
            network.set_roster(RosterView { digest: roster.digest(), members, parting: Arc::default() });
            network.start(roster.pool()).await.unwrap();
        }
        Daemon {
            scheduler,
            network,
            store,
            supervisor,
            studio: studio_sender,
            lending,
            exit,
            _roster: roster_sender,
            _gpus: gpus_sender,
        }
    }
}

impl Daemon {
    async fn stop(self) {
        self.supervisor.run_until(std::future::ready(())).await.unwrap();
    }

    async fn knows(&self, other: NodeId, daemon: &Self) {
        let mut listening = daemon.network.listening();
        let main = listening.wait_for(|on| !on.main.is_empty()).await.unwrap().main.clone();
        self.network.add_addresses(other, main).await;
    }

    /// Waits until the job is like this.
    async fn until(&self, job: JobId, what: impl Fn(&JobView) -> bool) -> JobView {
        let mut news = self.scheduler.events();
        let found = async {
            loop {
                let view = self.scheduler.show(job).await.unwrap();
                if what(&view) {
                    return view;
                }
                if let Err(broadcast::error::RecvError::Closed) = news.recv().await {
                    panic!("the scheduler is gone");
                }
            }
        };
        match tokio::time::timeout(SOON, found).await {
            Ok(view) => view,
            Err(_) => panic!("never came: {:#?}", self.scheduler.show(job).await),
        }
    }

    async fn done(&self, job: JobId) -> JobView {
        let view = self.until(job, |view| view.state.is_over()).await;
        assert_eq!(view.state, JobState::Done, "{view:#?}");
        view
    }

    async fn picture(&self, view: &JobView, task: usize) -> Vec<u8> {
        let output = &view.tasks[task].outputs[0];
        let mut opener = self.store.blobs.open(output.root, &output.key).await.unwrap();
        let mut picture = Vec::new();
        while let Some(piece) = opener.next().await.unwrap() {
            picture.extend_from_slice(&piece);
        }
        picture
    }

    async fn sealed_input(&self, name: &str, bytes: &[u8]) -> InputFile {
        let mut sealer = self.store.blobs.seal();
        sealer.write(bytes).await.unwrap();
        let sealed = sealer.finish().await.unwrap();
        InputFile { name: name.into(), root: sealed.root, key: sealed.key, bytes: sealed.bytes }
    }
}

/// A pool in which every house is a studio of its own.
fn pool(houses: &[&House]) -> Arc<Roster> {
    pool_with_admins(houses).0
}

fn pool_with_admins(houses: &[&House]) -> (Arc<Roster>, Vec<SecretKey>) {
    let admins: Vec<SecretKey> = houses.iter().map(|_| SecretKey::generate()).collect();
    let studios: Vec<Studio> =
        (0..).zip(&admins).map(|(n, admin)| Studio::found(&format!("studio {n}"), admin.public())).collect();
    let genesis = Settings::genesis("pool", studios[0].clone(), 1);
    let mut chain = SettingsChain::found(&genesis, &admins[0]).unwrap();
    let mut signers = vec![0];
    for (n, studio) in studios.iter().enumerate().skip(1) {
        let mut next = chain.current().next(2);
        next.studios.push(studio.clone());
        let mut signed = scenemesh_protocol::roster::SignedSettings::new(&next, &admins[signers[0]]);
        for signer in &signers[1..] {
            signed.sign(&admins[*signer]);
        }
        chain.append(signed).unwrap();
        signers.push(n);
    }
    let mut roster = Roster::new(chain);
    for ((house, admin), studio) in houses.iter().zip(&admins).zip(&studios) {
        let (pool, kem) = (roster.pool(), house.kem.public());
        let member = Member {
            pool,
            studio: studio.id,
            node: house.node.public(),
            kem,
            consent: Consent { pool, studio: studio.id, kem }.sign(&house.node),
            name: studio.name.replace("studio", "machine"),
            roles: Roles::ALL,
            version: 1,
            issued_ms: 1,
            not_after_ms: None,
        };
        roster.add(&SignedRecord::Member(Signed::new(&member, admin))).unwrap();
    }
    (Arc::new(roster), admins)
}

fn spec(graph: &str, count: u32, reach: Reach) -> JobSpec {
    JobSpec {
        label: "test".into(),
        person: "somebody".into(),
        stages: vec![stage(graph, count)],
        class: Class::Normal,
        reach,
        project: None,
        needs: Needs::default(),
        on_suspect: OnSuspect::Keep,
        keep_on: crate::scheduler::KeepOn::Anybody,
        previews: false,
        full_hygiene: false,
        time_limit: Duration::from_mins(1),
    }
}

fn stage(graph: &str, count: u32) -> StageSpec {
    StageSpec {
        graph: graph.as_bytes().to_vec(),
        extra_data: br#"{"auth_token_comfy_org":"secret","extra_pnginfo":{}}"#.to_vec(),
        count,
        ..StageSpec::default()
    }
}

fn with_input(input: InputFile, graph: &str, count: u32, reach: Reach) -> JobSpec {
    let stages = vec![StageSpec { inputs: vec![input], ..stage(graph, count) }];
    JobSpec { stages, ..spec(graph, count, reach) }
}

fn sampler(note: &str) -> String {
    format!(r#"{{"1":{{"class_type":"KSampler","inputs":{{"seed":40,"note":"{note}"}}}}}}"#)
}

/// Whether any file under here holds these bytes.
fn is_written_under(dir: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_written_under(&path, needle);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_alone_renders_for_itself() {
    let house = House::new(2);
    house.permits.add_permits(10);
    let daemon = house.start(None).await;
    let job = daemon.scheduler.submit(spec(&sampler("alone"), 3, Reach::Machine)).await.unwrap();
    let view = daemon.done(job).await;
    for (n, seed) in [(0, "40"), (1, "41"), (2, "42")] {
        let picture = String::from_utf8(daemon.picture(&view, n).await).unwrap();
        assert!(picture.contains(&format!("\"seed\":{seed}")), "{picture}");
    }
    assert_eq!(view.tasks[0].node_name, "this machine");
    assert_eq!(daemon.scheduler.why(Id::Job(job)).await.unwrap().to_string(), "all 3 tasks are done");
    let log = daemon.scheduler.log(Id::Task { job, task: view.tasks[0].task }).await;
    assert!(log.iter().any(|line| line.line.to_string().starts_with("granted to this machine")), "{log:#?}");
    let short = view.tasks[1].task.to_string();
    assert_eq!(daemon.scheduler.resolve(&short[..20]).await, Ok(Id::Task { job, task: view.tasks[1].task }));

    // All of it is still there after a restart.
    daemon.stop().await;
    let daemon = house.start(None).await;
    let again = daemon.scheduler.show(job).await.unwrap();
    assert_eq!(again.state, JobState::Done);
    assert!(!daemon.picture(&again, 2).await.is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_studio_renders_for_another_and_learns_nothing_lasting() {
    let (asks, renders) = (House::new(0), House::new(1));
    renders.permits.add_permits(10);
    let roster = pool(&[&asks, &renders]);
    let (here, there) = (asks.start(Some(&roster)).await, renders.start(Some(&roster)).await);
    here.knows(renders.id(), &there).await;
    there.knows(asks.id(), &here).await;

    let input = here.sealed_input("face.png", b"canary of the input").await;
    let graph =
        r#"{"1":{"class_type":"LoadImage","inputs":{"image":"face.png","note":"canary of the graph"}}}"#;
    let missing = here.scheduler.submit(spec(graph, 1, Reach::Pool)).await.unwrap_err();
    assert!(matches!(&missing, SubmitError::MissingInput { name } if name == "face.png"), "{missing}");
    let job = with_input(input, graph, 2, Reach::Pool);
    let job = here.scheduler.submit(job).await.unwrap();
    let view = here.done(job).await;
    assert_eq!(view.tasks[0].node_name, "machine 1");
    let picture = here.picture(&view, 1).await;
    assert!(picture.ends_with(b"canary of the input"));

    // Its copy goes with the ack, the inputs with the attempt, and nothing was ever written in the clear.
    let mut load = there.scheduler.load();
    tokio::time::timeout(SOON, load.wait_for(|load| load.idle)).await.unwrap().unwrap();
    let gone = async {
        while there.store.blobs.used_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
    for canary in [&b"canary of the graph"[..], b"canary of the input", b"somebody", b"face.png"] {
        assert!(!is_written_under(renders.dir.path(), canary), "{}", String::from_utf8_lossy(canary));
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_graph_travels_as_a_blob() {
    let (asks, renders) = (House::new(0), House::new(1));
    renders.permits.add_permits(10);
    let roster = pool(&[&asks, &renders]);
    let (here, there) = (asks.start(Some(&roster)).await, renders.start(Some(&roster)).await);
    here.knows(renders.id(), &there).await;
    let graph = sampler(&"x".repeat(3 << 20));
    let job = here.scheduler.submit(spec(&graph, 1, Reach::Pool)).await.unwrap();
    let view = here.done(job).await;
    assert!(here.picture(&view, 0).await.len() > 3 << 20);
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_may_restart_while_it_renders() {
    let (asks, renders) = (House::new(0), House::new(1));
    let roster = pool(&[&asks, &renders]);
    let (mut here, mut there) = (asks.start(Some(&roster)).await, renders.start(Some(&roster)).await);
    here.knows(renders.id(), &there).await;
    let job = here.scheduler.submit(spec(&sampler("long"), 1, Reach::Pool)).await.unwrap();
    let running = |view: &JobView| view.tasks[0].state == scheduler::TaskPhase::Running;
    here.until(job, running).await;

    here.stop().await;
    here = asks.start(Some(&roster)).await;
    here.knows(renders.id(), &there).await;
    there.stop().await;
    there = renders.start(Some(&roster)).await;
    there.knows(asks.id(), &here).await;
    here.knows(renders.id(), &there).await;
    renders.permits.add_permits(10);
    let view = here.done(job).await;
    assert_eq!(view.tasks[0].attempts, 1);
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_the_brush() {
    let (asks, renders) = (House::new(0), House::new(1));
    let roster = pool(&[&asks, &renders]);
    let (here, there) = (asks.start(Some(&roster)).await, renders.start(Some(&roster)).await);
    here.knows(renders.id(), &there).await;
    let job = here.scheduler.submit(spec(&sampler("never"), 1, Reach::Pool)).await.unwrap();
    here.until(job, |view| view.tasks[0].progress.is_some()).await;
    assert_eq!(here.scheduler.cancel(Id::Job(job).into()).await, 1);
    here.until(job, |view| view.state == JobState::Cancelled).await;
    let mut load = there.scheduler.load();
    tokio::time::timeout(SOON, load.wait_for(|load| load.idle && load.slots_free == 1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(here.scheduler.retry(Id::Job(job).into()).await, 1);
    renders.permits.add_permits(1);
    here.done(job).await;
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_job_is_refused_in_words() {
    let house = House::new(0);
    let daemon = house.start(None).await;
    let refused = async |spec| daemon.scheduler.submit(spec).await.unwrap_err().to_string();
    let none = spec(&sampler("x"), 0, Reach::Machine);
    assert_eq!(refused(none).await, "a job of 0 tasks: between 1 and 10000 are allowed");
    assert!(refused(spec("not json", 1, Reach::Machine)).await.contains("JSON"));
    let stray = daemon.sealed_input("stray.png", b"x").await;
    let stray = with_input(stray, &sampler("x"), 1, Reach::Machine);
    assert!(refused(stray).await.starts_with("no node of the workflow names the input \"stray.png\""));
    let job = daemon.scheduler.submit(spec(&sampler("x"), 1, Reach::Machine)).await.unwrap();
    let why = daemon.scheduler.why(Id::Job(job)).await.unwrap().to_string();
    assert_eq!(why, "no node takes it now: this machine has no ComfyUI ready");
    daemon.stop().await;
}

/// Takes every byte that the disk has left.
#[cfg(target_os = "linux")]
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    let mut piece = 64 << 10;
    while piece > 0 {
        if file.write_all(&vec![0; piece]).is_err() {
            piece /= 2;
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_nothing_is_promised_meanwhile() {
    use crate::store::JournalError;
    let test = "scheduler::tests::live::a_full_disk_is_told_and_nothing_is_promised_meanwhile";
    let Some(disk) = crate::store::tests::on_a_small_disk(test, "16m") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let house = House { dir: tempfile::tempdir_in(&disk).unwrap(), ..House::new(1) };
        let daemon = house.start(None).await;
        let job = daemon.scheduler.submit(spec(&sampler("held"), 2000, Reach::Machine)).await.unwrap();
        daemon.until(job, |view| view.tasks[0].progress.is_some()).await;
        // Longer than what is left of the journal's last page.
        let late = || spec(&sampler(&"late ".repeat(10_000)), 1, Reach::Machine);

        let filler = disk.join("filler");
        fill(&filler);
        let refused = daemon.scheduler.submit(late()).await.unwrap_err();
        assert!(matches!(refused, SubmitError::Journal(JournalError::NoSpace { .. })), "{refused}");
        // A cancel cannot be written down either: it is not confirmed, and nobody else has to wait for it.
        let mut cancel = Box::pin(daemon.scheduler.cancel(Id::Job(job).into()));
        assert!(futures::poll!(&mut cancel).is_pending());
        for _ in 0..3 {
            let refused = tokio::time::timeout(SOON, daemon.scheduler.submit(late())).await.unwrap();
            assert!(
                matches!(refused, Err(SubmitError::Journal(JournalError::NoSpace { .. }))),
                "{refused:?}"
            );
            let asked = daemon.scheduler.jobs();
            assert_eq!(tokio::time::timeout(SOON, asked).await.unwrap().len(), 1);
        }
        assert!(futures::poll!(&mut cancel).is_pending());

        std::fs::remove_file(filler).unwrap();
        assert_eq!(tokio::time::timeout(SOON, cancel).await.unwrap(), 2000);
        daemon.until(job, |view| view.state == JobState::Cancelled).await;
        daemon.stop().await;
        let daemon = house.start(None).await;
        assert_eq!(daemon.scheduler.show(job).await.unwrap().state, JobState::Cancelled);
        assert_eq!(daemon.scheduler.jobs().await.len(), 1);
        daemon.stop().await;
    });
}
