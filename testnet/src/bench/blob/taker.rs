//! The process at the other end, and how it is talked to: one JSON object a line, over its standard input and output.

use std::net::IpAddr;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use libp2p::Multiaddr;
use scenemesh_protocol::codec;
use scenemesh_protocol::ids::TaskId;
use scenemesh_protocol::lease::BlobRef;
use scenemesh_protocol::sealed::BlobKey;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, stdin};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout};

use super::end::{Effort, End, Side};
use super::{Place, SOON, raw};
use crate::talk::result;

/// Where the other end can be dialled.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct There {
    pub(super) raw: Multiaddr,
    pub(super) addresses: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    /// Be linked, and count from here on.
    Mark,
    /// Fetch and open this: root, size and key as they are encoded.
    Take { blob: Vec<u8> },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Marked,
    Took { send_s: f64, open_s: f64, opened: u64, cpu_s: f64, peak_mib: f64 },
}

/// The other end, from here.
pub(super) struct Taker {
    child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Taker {
    pub(super) async fn start(place: &Place) -> Result<(Self, There)> {
        let program = std::env::current_exe().context("finding this program's own path")?;
        let mut command = match &place.taker_namespace {
            None => Command::new(program),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
        };
        command.args(["bench", "blob-taker", "--listen", &place.taker.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("starting the other end")?;
        let questions = child.stdin.take().context("its input")?;
        let answers = BufReader::new(child.stdout.take().context("its output")?).lines();
        let mut taker = Self { child, questions, answers };
        let line = timeout(SOON, taker.line()).await.context("the other end does not start")??;
        let there = serde_json::from_str(&line)?;
        Ok((taker, there))
    }

    async fn line(&mut self) -> Result<String> {
        self.answers.next_line().await?.context("the other end is gone; it says why above")
    }

    /// However long it takes: a large blob on a slow line may take an hour.
    pub(super) async fn ask(&mut self, question: &Question) -> Result<Answer> {
        self.questions.write_all(format!("{}\n", serde_json::to_string(question)?).as_bytes()).await?;
        self.questions.flush().await?;
        Ok(serde_json::from_str(&self.line().await?)?)
    }

    /// Lets it go.
    pub(super) async fn end(mut self) -> Result<()> {
        drop(self.questions);
        let status = timeout(SOON, self.child.wait()).await.context("the other end does not end")??;
        ensure!(status.success(), "the other end: {status}");
        Ok(())
    }
}

/// `testnet bench blob-taker`: is the other end until its input ends.
///
/// # Errors
/// When it cannot listen, or the blob does not come.
pub(in crate::bench) async fn serve(listen: IpAddr) -> Result<()> {
    let (raw, _streams) = raw::take(listen).await?;
    let end = End::new(Side::Taker, listen).await?;
    let mut listening = end.network.listening();
    let on = timeout(SOON, listening.wait_for(|on| !on.main.is_empty())).await??.main.clone();
    result(&serde_json::to_string(&There { raw, addresses: on })?);
    let mut effort = None;
    let mut questions = BufReader::new(stdin()).lines();
    while let Some(line) = questions.next_line().await? {
        let answer = match serde_json::from_str(&line)? {
            Question::Mark => {
                end.meets(Side::Giver).await?;
                effort = Some(Effort::begin()?);
                Answer::Marked
            }
            Question::Take { blob } => {
                let Some(effort) = &effort else { bail!("asked to take before it was to count") };
                take(&end, &blob, effort).await?
            }
        };
        result(&serde_json::to_string(&answer)?);
    }
    end.supervisor.run_until(std::future::ready(())).await?;
    Ok(())
}

async fn take(end: &End, blob: &[u8], effort: &Effort) -> Result<Answer> {
    let (blob, key): (BlobRef, BlobKey) = codec::decode_body(blob, 1 << 10)?;
    let began = Instant::now();
    end.network.fetch(Side::Giver.id(), TaskId::from_bytes([5; 16]), 1, blob).await?;
    let send_s = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let mut opener = end.store.blobs.open(blob.root, &key).await?;
    let mut opened = 0;
    while let Some(piece) = opener.next().await? {
        opened += piece.len() as u64;
    }
    let open_s = began.elapsed().as_secs_f64();
    let (cpu_s, peak_mib) = effort.end()?;
    Ok(Answer::Took { send_s, open_s, opened, cpu_s, peak_mib })
}
