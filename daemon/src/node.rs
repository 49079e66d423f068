//! The one place where all modules meet: spawns them in dependency order and runs until told to stop.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use scenemesh_protocol::ids::BootId;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::supervisor::Supervisor;
use crate::{api, executor, gateway, gpu, membership, network, platform, scheduler, store};

/// How long tasks may take to end by themselves.
const GRACE: Duration = Duration::from_secs(12);

/// Exit status for a data directory, key files, a policy or lending file, gateway or addresses that cannot be used: starting again does not help.
const EXIT_CONFIG: u8 = 64;

/// Runs a node until `signal` resolves or one of its tasks fails.
///
/// # Errors
/// What stopped it, or why it did not start.
pub async fn run(mut config: Config, signal: impl Future<Output = ()>) -> Result<()> {
    let mut signal = std::pin::pin!(signal);
    let exit = CancellationToken::new();
    loop {
        let restart = CancellationToken::new();
        let mut stopped = false;
        let until = async {
            tokio::select! {
                () = &mut signal => stopped = true,
                () = exit.cancelled() => {}
                () = restart.cancelled() => {}
            }
        };
        let listened = run_once(config.clone(), &restart, &exit, until).await?;
        if stopped || exit.is_cancelled() || !restart.is_cancelled() {
            return Ok(());
        }
        tracing::info!("scenemeshd starts again, in place");
        config.network.stay(listened);
    }
}

/// One run, from the data directory to its end; gives where it listened.
async fn run_once(
    config: Config,
    restart: &CancellationToken,
    exit: &CancellationToken,
    signal: impl Future<Output = ()>,
) -> Result<network::Listening> {
    let supervisor = Supervisor::new(GRACE);
    let tasks = supervisor.tasks();
    let boot = BootId::random();

    let (store, replay) = store::open(&config.store, &tasks).await?;
    let keys = membership::keys::load_or_create(&config.dir).context("loading this node's keys")?;
    let me = keys.node.public().node();
    let policy = executor::policy::spawn(&config.dir, &tasks)?;
    let lending = scheduler::lend::keeper::spawn(&config.dir, &tasks)?;

    // Ports first: a daemon that cannot listen must not disturb anything.
    let api = api::bind(config.api).await?;
    // It also has the store keep what was uploaded, before anything is swept.
    let gateway = gateway::bind(config.gateway, &store, &tasks).await?;
    let gpu_config = gpu::Config::default();
    let look_at_gpus = gpu_config.look.clone();
    let gpus = gpu::spawn(gpu_config, Box::new(gpu::Nvml::default()), &tasks).await;
    let executor_config = executor::Config { owner: me.short(), ..config.executor };
    let (executor, executor_events) = executor::spawn(executor_config, store.blobs.clone(), &tasks)?;
    let identity = network::Identity { key: keys.node.clone() };
    let (network, events) = network::spawn(config.network, identity, boot, store.blobs.clone(), &tasks)?;

    let lend = config.scheduler.lend.clone();
    let membership = membership::spawn(
        membership::Config { restart: restart.clone(), ..membership::Config::at(&config.dir) },
        keys.clone(),
        store.clone(),
        network.clone(),
        events.roster,
        &replay,
        &tasks,
    )
    .await?;
    let scheduler = scheduler::spawn(
        config.scheduler,
        scheduler::Me { node: keys.node, kem: keys.kem, boot },
        scheduler::Ports {
            network: network.clone(),
            executor: executor.clone(),
            store: store.clone(),
            roster: membership.roster(),
            studio: membership.rules(),
            barred: membership.barred(),
            gpus: gpus.clone(),
            look_at_gpus,
            policy: policy.policy(),
            lending: lending.lending(),
            exit: exit.clone(),
        },
        scheduler::Inputs { network: events.tasks, executor: executor_events },
        &replay,
        &tasks,
    )?;
    catch_index_up(&replay).await?;
    drop(replay);

    let address = api.address();
    let listening = network.listening();
    let mut listened = network::Listening::default();
    let ports =
        api::Ports { me, scheduler, membership, network, executor, policy, lend, lending, gpus, store };
    let url = gateway.as_ref().and_then(gateway::Bound::url);
    if let Some(gateway) = gateway {
        let ports = gateway::Ports {
            me,
            scheduler: ports.scheduler.clone(),
            membership: ports.membership.clone(),
            network: ports.network.clone(),
            executor: ports.executor.clone(),
            gpus: ports.gpus.clone(),
            store: ports.store.clone(),
        };
        gateway.serve(ports, &tasks).await;
    }
    api.telling_gateway(url).serve(ports, &tasks)?;
    tracing::info!(node = %me, api = %address, "scenemeshd {} is up", env!("CARGO_PKG_VERSION"));

    let noted = async {
        signal.await;
        listened = listening.borrow().clone();
    };
    supervisor.run_until(noted).await?;
    tracing::info!("scenemeshd stopped");
    Ok(listened)
}

/// Lets every kind of record that is indexed into the index, as far as it lags behind the journal.
async fn catch_index_up(replay: &store::Replay) -> Result<()> {
    let caught_up = replay.index().finish().await.context("catching the index up with the journal")?;
    tracing::debug!(caught_up, "the index stands where the journal does");
    Ok(())
}

/// Resolves when the operator asks the daemon to stop.
pub async fn stop_signal() {
    platform::stop_signal().await;
}

/// The daemon's exit status for an error of [`run`].
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let bad_dir = matches!(error.downcast_ref(), Some(store::OpenError::Dir { .. }));
    let bad_keys = error.downcast_ref::<membership::KeysError>().is_some();
    let bad_address = error.downcast_ref::<network::NetworkError>().is_some();
    let bad_policy = error.downcast_ref::<executor::policy::BadFile>().is_some();
    let bad_lending = error.downcast_ref::<scheduler::lend::keeper::BadFile>().is_some();
    let bad_gateway = error.downcast_ref().is_some_and(gateway::GatewayError::is_configuration);
    if bad_gateway || bad_dir || bad_keys || bad_address || bad_policy || bad_lending {
        ExitCode::from(EXIT_CONFIG)
    } else {
        ExitCode::FAILURE
    }
}
