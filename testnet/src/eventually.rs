//! Waiting for a fact: ask again until it holds, and say what was last seen when it does not.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// How long a fact may take on a loaded two-core machine before it is called false.
pub const PATIENCE: Duration = Duration::from_secs(60);

const ASK_EVERY: Duration = Duration::from_millis(25);

/// Asks `check` until it gives `Ok(Ok(fact))`; `Ok(Err(seen))` means not yet, and `seen` is shown if time runs out.
///
/// # Errors
/// When `check` fails for good, or the fact does not come about within `patience`.
pub async fn eventually_within<T, S, F, Fut>(patience: Duration, what: &str, mut check: F) -> Result<T>
where
    S: Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Result<T, S>>>,
{
    let deadline = Instant::now() + patience;
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        ticks.tick().await;
        match timeout_at(deadline, check()).await {
            Ok(Ok(Ok(fact))) => return Ok(fact),
            Ok(Ok(Err(seen))) => last = Some(seen),
            Ok(Err(error)) => return Err(error.context(format!("while waiting until {what}"))),
            Err(_) => bail!("not within {patience:?}: {what}; last seen: {last:#?}"),
        }
        if Instant::now() >= deadline {
            bail!("not within {patience:?}: {what}; last seen: {last:#?}");
        }
    }
}

/// [`eventually_within`] the usual patience.
///
/// # Errors
/// As there.
pub async fn eventually<T, S, F, Fut>(what: &str, check: F) -> Result<T>
where
    S: Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Result<T, S>>>,
{
    eventually_within(PATIENCE, what, check).await
}
