//! PURE: what clients ask of their own prompts.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use scenemesh_protocol::ids::JobId;
use serde_json::{Value, json};

use super::{Desk, Effect, Key, Prompt, Scope, State};
use crate::gateway::record::How;

/// How long a request to delete a running prompt is taken to be the one that an interrupt without a name means. Programs
/// that know only one queue send the two at once.
const MARKED_MS: u64 = 10_000;

/// Whom an interrupt or a clearing names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Named {
    Nobody,
    Prompt(String),
    Client(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Sorted {
    Created,
    Duration,
}

/// Which jobs of a list are wanted.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct Page {
    /// None: all.
    pub(in crate::gateway) status: Option<Vec<String>>,
    pub(in crate::gateway) workflow: Option<String>,
    pub(in crate::gateway) by: Sorted,
    pub(in crate::gateway) descending: bool,
    pub(in crate::gateway) limit: Option<usize>,
    pub(in crate::gateway) offset: usize,
}

impl Desk {
    /// Running prompts of the scope, then waiting ones, each in the order in which they came.
    pub(in crate::gateway) fn queue(&self, scope: &Scope) -> (Vec<Key>, Vec<Key>) {
        let mut live: Vec<&Prompt> = self.of(scope).filter(|prompt| prompt.is_live()).collect();
        live.sort_by_key(|prompt| (prompt.created_ms, &prompt.key));
        let (running, waiting): (Vec<&Prompt>, Vec<&Prompt>) =
            live.into_iter().partition(|prompt| prompt.is_running());
        let keys = |prompts: Vec<&Prompt>| prompts.into_iter().map(|prompt| prompt.key.clone()).collect();
        (keys(running), keys(waiting))
    }

    /// Ended prompts of the scope, oldest first.
    pub(in crate::gateway) fn history(&self, scope: &Scope) -> Vec<Key> {
        let mut over: Vec<(u64, &Key)> = self
            .of(scope)
            .filter(|prompt| !prompt.hidden)
            .filter_map(|prompt| match &prompt.state {
                State::Over(over) => Some((over.at_ms, &prompt.key)),
                State::Live(_) => None,
            })
            .collect();
        over.sort();
        over.into_iter().map(|(_, key)| key.clone()).collect()
    }

    /// A prompt of the scope that is in the queue or in the history.
    pub(in crate::gateway) fn find(&self, scope: &Scope, id: &str) -> Option<&Prompt> {
        let key = Key { scope: scope.clone(), id: Arc::from(id) };
        self.prompts.get(&key).map(|prompt| &**prompt).filter(|prompt| !prompt.hidden)
    }

    /// Jobs to cancel for an interrupt: what runs, of this scope alone. One that names nobody means the prompts that were
    /// just asked to be deleted, else the one that runs longest, where all are of one client.
    pub(in crate::gateway) fn interrupt(&mut self, scope: &Scope, named: &Named, now_ms: u64) -> Vec<JobId> {
        let nobody = *named == Named::Nobody;
        let marked = nobody.then(|| self.marked.remove(scope)).flatten();
        let marked = marked.filter(|(at, _)| now_ms.saturating_sub(*at) < MARKED_MS);
        let running = self.of(scope).filter(|prompt| prompt.is_running());
        match named {
            Named::Prompt(id) => {
                running.filter(|prompt| *prompt.key.id == **id).map(|prompt| prompt.job).collect()
            }
            Named::Client(client) => {
                let own = running.filter(|prompt| prompt.client.as_deref() == Some(client));
                own.map(|prompt| prompt.job).collect()
            }
            Named::Nobody => {
                if let Some((_, keys)) = marked {
                    let meant = running.filter(|prompt| keys.contains(&prompt.key));
                    return meant.map(|prompt| prompt.job).collect();
                }
                let mut running: Vec<&Prompt> = running.collect();
                running.sort_by_key(|prompt| (prompt.started_ms, &prompt.key));
                // Of several clients' nobody knows whose is meant.
                let one = running.iter().all(|prompt| prompt.client == running[0].client);
                running.first().filter(|_| one).map(|prompt| prompt.job).into_iter().collect()
            }
        }
    }

    /// Takes waiting prompts out of the queue, as if they had never been: their jobs, and who is told. Those that run stay,
    /// and are what an interrupt that follows means.
    pub(in crate::gateway) fn delete(
        &mut self,
        scope: &Scope,
        ids: &HashSet<String>,
        now_ms: u64,
    ) -> (Vec<JobId>, Vec<Effect>) {
        let named = |prompt: &&Prompt| ids.contains(&*prompt.key.id);
        let running = self.of(scope).filter(named).filter(|prompt| prompt.is_running());
        let running: Vec<Key> = running.map(|prompt| prompt.key.clone()).collect();
        if !running.is_empty() {
            let marked = self.marked.entry(scope.clone()).or_insert_with(|| (now_ms, Vec::new()));
            if now_ms.saturating_sub(marked.0) >= MARKED_MS {
                marked.1.clear();
            }
            marked.0 = now_ms;
            marked.1.extend(running);
        }
        let waiting = self.of(scope).filter(named).filter(|prompt| prompt.is_live() && !prompt.is_running());
        let waiting = waiting.map(|prompt| prompt.key.clone()).collect();
        self.take_out(waiting)
    }

    /// [`Self::delete`] of all that waits, or of all of one client.
    pub(in crate::gateway) fn clear(&mut self, scope: &Scope, named: &Named) -> (Vec<JobId>, Vec<Effect>) {
        let meant = |prompt: &&Prompt| match named {
            Named::Client(client) => prompt.client.as_deref() == Some(client),
            Named::Prompt(id) => *prompt.key.id == **id,
            Named::Nobody => true,
        };
        let waiting = self.of(scope).filter(meant).filter(|prompt| prompt.is_live() && !prompt.is_running());
        let waiting = waiting.map(|prompt| prompt.key.clone()).collect();
        self.take_out(waiting)
    }

    fn take_out(&mut self, keys: Vec<Key>) -> (Vec<JobId>, Vec<Effect>) {
        let (mut jobs, mut effects, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for key in keys {
            let Some(prompt) = self.prompts.get(&key) else { continue };
            jobs.push(prompt.job);
            told.push((key.scope.clone(), prompt.client.clone()));
            effects.push(self.forget(&key));
        }
        told.sort();
        told.dedup();
        for (scope, client) in told {
            effects.extend(self.status_of(&scope, client.as_deref()));
        }
        (jobs, effects)
    }

    /// A prompt of the scope that one of the new clients wants cancelled, running or not: its job, if it has not ended.
    pub(in crate::gateway) fn cancel(&mut self, scope: &Scope, id: &str) -> (Option<JobId>, Vec<Effect>) {
        match self.find(scope, id) {
            Some(prompt) if prompt.is_running() => (Some(prompt.job), Vec::new()),
            Some(prompt) if prompt.is_live() => {
                let key = prompt.key.clone();
                let (jobs, effects) = self.take_out(vec![key]);
                (jobs.first().copied(), effects)
            }
            _ => (None, Vec::new()),
        }
    }

    /// Takes ended prompts out of the history, all of the scope or these; gives their names.
    pub(in crate::gateway) fn hide(&mut self, scope: &Scope, ids: Option<&HashSet<String>>) -> Vec<Key> {
        let mut hidden = Vec::new();
        for prompt in self.prompts.values_mut().filter(|prompt| prompt.key.scope == *scope) {
            let meant = ids.is_none_or(|ids| ids.contains(&*prompt.key.id));
            if meant && !prompt.hidden && matches!(prompt.state, State::Over(_)) {
                prompt.hidden = true;
                hidden.push(prompt.key.clone());
            }
        }
        hidden
    }

    /// A page of `/api/jobs`, and how many there are in all.
    pub(in crate::gateway) fn jobs(&self, scope: &Scope, page: &Page) -> (Vec<Value>, usize) {
        let wanted = |prompt: &&Prompt| {
            !prompt.hidden
                && page.status.as_ref().is_none_or(|status| status.iter().any(|word| word == prompt.status()))
                && page.workflow.as_ref().is_none_or(|id| prompt.workflow.as_ref() == Some(id))
        };
        let mut all: Vec<&Prompt> = self.of(scope).filter(wanted).collect();
        let key = |prompt: &Prompt| match page.by {
            Sorted::Created => prompt.created_ms,
            Sorted::Duration => prompt.duration_ms(),
        };
        // Of one moment: in the order of their numbers, whichever way the list goes.
        all.sort_by_key(|prompt| prompt.number.as_i64());
        if page.descending {
            all.reverse();
            all.sort_by_key(|prompt| Reverse(key(prompt)));
        } else {
            all.sort_by_key(|prompt| key(prompt));
        }
        let count = all.len();
        let page = all.into_iter().skip(page.offset).take(page.limit.unwrap_or(usize::MAX));
        (page.map(Prompt::job_view).collect(), count)
    }
}

impl Prompt {
    fn status(&self) -> &'static str {
        match &self.state {
            State::Live(_) if self.is_running() => "in_progress",
            State::Live(_) => "pending",
            State::Over(over) => match over.how {
                How::Success => "completed",
                How::Error(_) => "failed",
                How::Interrupted(_) => "cancelled",
            },
        }
    }

    fn duration_ms(&self) -> u64 {
        match (&self.state, self.started_ms) {
            (State::Over(over), Some(started)) => over.at_ms.saturating_sub(started),
            _ => 0,
        }
    }

    /// As lists of jobs have it; what is not known is left out.
    pub(in crate::gateway) fn job_view(&self) -> Value {
        let mut view = json!({
            "id": *self.key.id, "status": self.status(), "priority": self.number, "create_time": self.created_ms,
            "outputs_count": 0, "previewable_outputs_count": 0,
        });
        if let Some(workflow) = &self.workflow {
            view["workflow_id"] = json!(workflow);
        }
        if let Some(started) = self.started_ms {
            view["execution_start_time"] = json!(started);
        }
        let State::Over(over) = &self.state else { return view };
        view["execution_end_time"] = json!(over.at_ms);
        view["outputs_count"] = json!(over.summary.outputs);
        view["previewable_outputs_count"] = json!(over.summary.previewable);
        if let Some(preview) = &over.summary.preview {
            let mut preview: Value = serde_json::from_str(preview).unwrap_or_default();
            if preview.get("filename").is_some() {
                preview["subfolder"] = json!(*self.key.id);
            }
            view["preview_output"] = preview;
        }
        if let How::Error(data) = &over.how {
            let mut data = data.clone();
            data["timestamp"] = json!(over.at_ms);
            view["execution_error"] = data;
        }
        view
    }
}
