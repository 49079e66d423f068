//! One attempt on one ComfyUI, from its first byte to the last trace.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use scenemesh_protocol::receipt::Wiped;
use scenemesh_protocol::task::{Failure, FailureClass, InputFile, ModelName};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::classify;
use super::client::{CallError, Client, Posted, Socket, Uploaded};
use super::collect::{self, What};
use super::deliver::Sink;
use super::follow::{self, Followed};
use super::hygiene::{self, Folders, Traces};
use super::inventory::Inventory;
use super::rewrite::{self, Names, Saving, Streamed};
use crate::executor::graph::Graph;
use crate::executor::{Outcome, Reporter, Run, Wipe};
use crate::store::Blobs;

/// Times one upload is tried where ComfyUI itself stumbles.
const UPLOADS: u32 = 3;

/// Everything one attempt needs.
pub(super) struct Attempt<'a> {
    pub client: &'a Client,
    pub store: &'a Blobs,
    pub inventory: &'a Inventory,
    pub folders: Option<&'a Folders>,
    pub saving: Saving,
    pub names: &'a Names,
    pub run: &'a Run,
    pub report: &'a Reporter,
    pub stop: CancellationToken,
}

pub(super) struct Finished {
    pub outcome: Outcome,
    /// What is loaded now if it went well.
    pub models: Vec<ModelName>,
    pub wipe: Option<Wipe>,
}

/// What ComfyUI already has of this prompt.
enum Already {
    Nothing,
    /// Posted by an earlier run of this node.
    Queued,
    Ended(Value),
}

impl Attempt<'_> {
    pub(super) async fn perform(self) -> Finished {
        let mut traces = Traces::default();
        let mut models = Vec::new();
        let mut sink = Sink::new(self.client, self.store, self.folders, self.run.most_output_bytes);
        let result = match self.work(&mut traces, &mut models, &mut sink).await {
            Ok((streamed, exec_ms)) => sink.finish(&streamed).await.map(|outputs| (outputs, exec_ms)),
            Err(failure) => {
                sink.discard().await;
                if traces.reached {
                    self.look_for_traces(&mut traces).await;
                }
                Err(failure)
            }
        };
        let wipe = if traces.reached {
            let mut tally =
                hygiene::clean(self.client, self.inventory, self.folders, self.names, &traces).await;
            if self.still_runs(&result).await {
                tally.left(Wiped::History, 1, "it does not react to an interrupt");
            }
            Some(tally.close(self.names, self.folders))
        } else {
            None
        };
        let outcome = match result {
            Ok((outputs, exec_ms)) => Outcome::Done { outputs, exec_ms },
            Err(failure) => Outcome::Failed(failure),
        };
        Finished { outcome, models, wipe }
    }

    /// Of a prompt that did not run to its end: it may have saved files by then.
    async fn look_for_traces(&self, traces: &mut Traces) {
        if let Ok(Some(entry)) = self.client.history(&self.names.prompt_id).await {
            (traces.history, traces.files) = (true, traces_of(&entry).files);
        }
    }

    /// A prompt that outlived its interrupt will still write what was just removed.
    async fn still_runs<T>(&self, result: &Result<T, Failure>) -> bool {
        let stopped =
            |failure: &Failure| matches!(failure.class, FailureClass::Cancelled | FailureClass::Timeout);
        if !result.as_ref().is_err_and(stopped) {
            return false;
        }
        let queue = self.client.queue().await.unwrap_or_default();
        queue.running.iter().any(|row| row.prompt_id == self.names.prompt_id)
    }

    async fn work(
        &self,
        traces: &mut Traces,
        models: &mut Vec<ModelName>,
        sink: &mut Sink<'_>,
    ) -> Result<(Streamed, u64), Failure> {
        let mut graph = Graph::parse(&self.run.graph)
            .map_err(|error| Failure::new(FailureClass::InvalidGraph, error.to_string()))?;
        let attached: Vec<String> = self.run.inputs.iter().map(|input| input.name.clone()).collect();
        let rules = &self.run.rules;
        rules.check(&graph, &self.run.extra_data, &attached)?;
        self.inventory.check(&graph, &attached)?;
        if self.run.full_hygiene && self.folders.is_none() {
            // Its offer said so too; the folders went out of reach since.
            let words = "the task insists on hygiene = full, and ComfyUI's folders cannot be reached here";
            return Err(Failure::new(FailureClass::Policy, words));
        }
        *models = graph.models();

        let already = match self.run.fresh {
            true => Already::Nothing,
            false => self.look_up().await.map_err(|error| died(&error))?,
        };
        traces.reached = true;
        let uploads = match &already {
            Already::Nothing => self.unless_stopped(self.upload_all(&mut traces.uploads)).await?,
            _ => {
                traces.uploads = u32::try_from(self.run.inputs.len()).unwrap_or(u32::MAX);
                BTreeMap::new()
            }
        };
        let streamed = rewrite::rewrite(&mut graph, self.inventory, self.names, &uploads, self.saving);
        let followed = match already {
            Already::Ended(entry) => {
                self.report.started().await;
                Followed { entry, measured_ms: 0 }
            }
            Already::Queued => {
                follow::Following::new(self, &self.names.prompt_id, graph.len(), &streamed)
                    .until_over(None, sink)
                    .await?
            }
            Already::Nothing => {
                // The socket first, or the first frames go nowhere. Without one, history tells all but progress.
                let socket = self.unless_stopped(self.socket()).await?;
                // As it goes out, by what holds now: between the grant and here there may have been hours.
                let uploaded: Vec<String> = uploads.values().cloned().collect();
                rules.check(&graph, &self.run.extra_data, &uploaded)?;
                let body = rewrite::prompt_body(&graph, &self.run.extra_data, self.names, self.run.previews)?;
                let prompt_id = self.post(&body).await?;
                follow::Following::new(self, &prompt_id, graph.len(), &streamed)
                    .until_over(socket, sink)
                    .await?
            }
        };
        (traces.history, traces.files) = (true, traces_of(&followed.entry).files);
        let exec_ms = match collect::ending(&followed.entry) {
            Some(collect::Ending::Success { exec_ms }) => exec_ms.unwrap_or(followed.measured_ms),
            Some(collect::Ending::Interrupted) => {
                // Not by us: whoever sits at the machine wants it back.
                return Err(Failure::new(
                    FailureClass::OwnerReturned,
                    "somebody interrupted the task in ComfyUI",
                ));
            }
            Some(collect::Ending::Error(data)) => return Err(classify::execution_error(&data)),
            None => followed.measured_ms,
        };
        let found = collect::outputs(&followed.entry);
        self.unless_stopped(sink.take_all(found)).await?;
        Ok((streamed, exec_ms))
    }

    /// Looks for the prompt before posting it: history, queue, and history again, since it may end in between.
    async fn look_up(&self) -> Result<Already, CallError> {
        let id = &self.names.prompt_id;
        if let Some(entry) = self.client.history(id).await? {
            return Ok(Already::Ended(entry));
        }
        let queue = self.client.queue().await?;
        if queue.running.iter().chain(&queue.pending).any(|row| row.prompt_id == *id) {
            return Ok(Already::Queued);
        }
        Ok(self.client.history(id).await?.map_or(Already::Nothing, Already::Ended))
    }

    async fn socket(&self) -> Result<Option<Socket>, Failure> {
        match self.client.socket(&self.names.client_id).await {
            Ok(socket) => Ok(Some(socket)),
            Err(error) => {
                tracing::debug!(%error, "no event socket; following by history alone");
                Ok(None)
            }
        }
    }

    /// Uploads all inputs; gives their names in literals with the names ComfyUI gave them.
    async fn upload_all(&self, begun: &mut u32) -> Result<BTreeMap<String, String>, Failure> {
        let mut uploads = BTreeMap::new();
        for (index, input) in self.run.inputs.iter().enumerate() {
            let name = rewrite::upload_name(index, &input.name);
            *begun += 1;
            let uploaded = self.upload(input, &name).await?;
            let literal = match uploaded.subfolder.as_str() {
                "" => uploaded.name,
                subfolder => format!("{}/{}", subfolder.replace('\\', "/"), uploaded.name),
            };
            uploads.insert(input.name.clone(), literal);
        }
        Ok(uploads)
    }

    async fn upload(&self, input: &InputFile, name: &str) -> Result<Uploaded, Failure> {
        let mut tries = 1..UPLOADS;
        let uploaded = loop {
            match self.upload_once(input, name).await? {
                // ComfyUI makes the folder, then the file in it; another node that shares this ComfyUI may have
                // removed the folder, empty as it was, in between.
                Err(CallError::Status { status: 500, .. }) if tries.next().is_some() => {}
                uploaded => break uploaded,
            }
        };
        uploaded.map_err(|error| match &error {
            CallError::Status { status: 413, .. } => Failure::new(
                FailureClass::Transfer,
                format!("an input of {} bytes is over ComfyUI's upload limit; start it with a larger --max-upload-size", input.bytes),
            ),
            CallError::Status { status: 507, .. } => Failure::new(FailureClass::DiskFull, error.to_string()),
            CallError::Unreachable { .. } => died(&error),
            _ => Failure::new(FailureClass::Transfer, error.to_string()),
        })
    }

    /// The outer error is of the input, the inner one of ComfyUI.
    async fn upload_once(
        &self,
        input: &InputFile,
        name: &str,
    ) -> Result<Result<Uploaded, CallError>, Failure> {
        let unreadable =
            |why: String| Failure::new(FailureClass::Transfer, format!("an input cannot be read: {why}"));
        let opener = self.store.open(input.root, &input.key).await;
        let opener = opener.map_err(|error| unreadable(error.to_string()))?;
        if opener.bytes() != input.bytes {
            return Err(unreadable(format!(
                "it has {} bytes, not the {} announced",
                opener.bytes(),
                input.bytes
            )));
        }
        // The body's stream can only end the request; why it ended is kept aside.
        let broken: Arc<OnceLock<String>> = Arc::default();
        let noted = broken.clone();
        let stream = futures::stream::try_unfold(opener, move |mut opener| {
            let noted = noted.clone();
            async move {
                let chunk = opener.next().await.map_err(|error| {
                    std::io::Error::other(noted.get_or_init(|| error.to_string()).clone())
                })?;
                Ok::<_, std::io::Error>(chunk.map(|chunk| (chunk, opener)))
            }
        });
        let body = reqwest::Body::wrap_stream(stream);
        let uploaded = self.client.upload("input", &self.names.folder(), name, body, input.bytes).await;
        match (broken.get(), uploaded) {
            (Some(why), Err(_)) => Err(unreadable(why.clone())),
            (_, uploaded) => Ok(uploaded),
        }
    }

    /// Posts the prompt. Not to be dropped halfway: it would be unknown whether it was accepted.
    async fn post(&self, body: &Value) -> Result<String, Failure> {
        if self.stop.is_cancelled() {
            return Err(cancelled());
        }
        let id = &self.names.prompt_id;
        match self.client.post_prompt(body).await {
            Ok(Posted::Accepted { prompt_id, node_errors }) => {
                // Before 0.3.45 ComfyUI chose the id itself.
                if node_errors.as_object().is_some_and(|errors| !errors.is_empty()) {
                    follow::stop_prompt(self.client, &prompt_id, follow::INTERRUPT).await;
                    return Err(classify::refused(&json!({ "node_errors": node_errors })));
                }
                Ok(prompt_id)
            }
            Ok(Posted::Refused(body)) => Err(classify::refused(&body)),
            Err(CallError::Status { status, body, .. }) => Err(Failure::new(
                FailureClass::Execution,
                format!("ComfyUI answered the prompt with status {status}: {}", classify::quote(&body)),
            )),
            Err(error) => match self.look_up().await {
                // The answer was lost, the prompt was not.
                Ok(Already::Queued | Already::Ended(_)) => Ok(id.clone()),
                _ => Err(died(&error)),
            },
        }
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(cancelled()),
            result = work => result,
        }
    }
}

/// The files that a history entry says its own prompt wrote.
pub(super) fn traces_of(entry: &Value) -> Traces {
    let cached = collect::cached_nodes(entry);
    let ours = collect::outputs(entry).into_iter().filter(|found| !cached.contains(&found.node));
    let files = ours.filter_map(|found| match found.what {
        What::File(file) | What::MaybeFile(file) => Some(file),
        What::Text(_) => None,
    });
    Traces { reached: true, history: !entry.is_null(), uploads: 0, files: files.collect() }
}

pub(super) fn cancelled() -> Failure {
    Failure::new(FailureClass::Cancelled, "cancelled while it ran")
}

pub(super) fn died(error: &CallError) -> Failure {
    Failure::new(FailureClass::ComfyuiDied, error.to_string())
}
