//! A client of the local API that submits and waits over one warm connection, so that what is timed is the mesh.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use scenemesh_protocol::api::{API_FILE, ApiFile};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

pub(super) struct Submitter {
    http: reqwest::Client,
    api: ApiFile,
}

impl Submitter {
    pub(super) fn of(data_dir: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(data_dir.join(API_FILE)).context("reading where the daemon is")?;
        Ok(Self { http: reqwest::Client::new(), api: serde_json::from_str(&text)? })
    }

    /// Submits one task and gives the job's id.
    pub(super) async fn submit(&self, graph: &Value) -> Result<String> {
        self.ask(&json!({"label": "bench", "workflow": graph.to_string(), "count": 1})).await
    }

    pub(super) async fn submit_as(&self, graph: &Value, class: &str) -> Result<String> {
        self.ask(&json!({"label": "bench", "workflow": graph.to_string(), "count": 1, "class": class})).await
    }

    /// Submits many tasks that nobody is in a hurry for.
    pub(super) async fn submit_many(&self, graph: &Value, count: u32) -> Result<String> {
        let request =
            json!({"label": "bench", "workflow": graph.to_string(), "count": count, "class": "batch"});
        self.ask(&request).await
    }

    async fn ask(&self, request: &Value) -> Result<String> {
        let sent =
            self.http.post(format!("{}/v1/jobs", self.api.url)).bearer_auth(&self.api.token).json(request);
        let answer = sent.send().await?;
        let status = answer.status();
        let job: Value = answer.json().await?;
        ensure!(status.is_success(), "submitting gave {status}: {job}");
        Ok(job["job"].as_str().context("a job has an id")?.to_owned())
    }

    /// Waits until a job is done and gives it.
    pub(super) async fn done(&self, job: &str) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_mins(2);
        let mut ticks = interval(Duration::from_millis(1));
        while Instant::now() < deadline {
            ticks.tick().await;
            let shown = self.get(&format!("/v1/jobs/{job}")).await?.json::<Value>().await?;
            match shown["state"].as_str() {
                Some("done") => return Ok(shown),
                Some("failed" | "cancelled") => bail!("the render failed: {shown:#}"),
                _ => {}
            }
        }
        bail!("job {job} is not done after two minutes")
    }

    /// Reads the first output of a done job.
    pub(super) async fn output(&self, job: &Value) -> Result<usize> {
        let task = job["tasks"][0]["task"].as_str().context("a task has an id")?;
        Ok(self.get(&format!("/v1/tasks/{task}/outputs/0")).await?.error_for_status()?.bytes().await?.len())
    }

    async fn get(&self, path: &str) -> Result<reqwest::Response> {
        Ok(self.http.get(format!("{}{path}", self.api.url)).bearer_auth(&self.api.token).send().await?)
    }
}
