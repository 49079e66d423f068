//! The baseline: a tiny render asked of a ComfyUI as any client would, over `/prompt`, `/ws` and `/view`.

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use scenemeshd::clock;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub(super) struct Direct {
    http: reqwest::Client,
    url: String,
    client: String,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Direct {
    pub(super) async fn at(url: &str) -> Result<Self> {
        Self::named(url, "scenemesh-bench").await
    }

    /// One of several clients at once.
    pub(super) async fn named(url: &str, client: &str) -> Result<Self> {
        let socket = format!("{}/ws?clientId={client}", url.replacen("http", "ws", 1));
        let (socket, _) = connect_async(socket).await.context("opening ComfyUI's socket")?;
        Ok(Self { http: reqwest::Client::new(), url: url.to_owned(), client: client.to_owned(), socket })
    }

    /// Renders a graph and says when its previews came, in microseconds since the Unix epoch.
    pub(super) async fn watch(&mut self, graph: &Value) -> Result<Vec<u64>> {
        let (_, previews) = self.follow(graph).await?;
        Ok(previews)
    }

    /// Renders a graph and reads its first picture; gives its size.
    pub(super) async fn render(&mut self, graph: &Value) -> Result<usize> {
        let (id, _) = self.follow(graph).await?;
        let history: Value = self.http.get(format!("{}/history/{id}", self.url)).send().await?.json().await?;
        let outputs = history[&id]["outputs"].as_object().context("outputs in the history")?;
        let image =
            outputs.values().find_map(|node| node["images"].get(0)).context("an image in the history")?;
        let part = |name: &str| image[name].as_str().unwrap_or_default().to_owned();
        let query =
            [("filename", part("filename")), ("subfolder", part("subfolder")), ("type", part("type"))];
        let picture = self.http.get(format!("{}/view", self.url)).query(&query).send();
        length(picture.await?.error_for_status()?).await
    }

    /// The prompt's id once it is over, and when binary frames came until then.
    async fn follow(&mut self, graph: &Value) -> Result<(String, Vec<u64>)> {
        let mut previews = Vec::new();
        let body = json!({"prompt": graph, "client_id": self.client});
        let accepted: Value = self
            .http
            .post(format!("{}/prompt", self.url))
            .json(&body)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let id = accepted["prompt_id"].as_str().context("ComfyUI gives a prompt id")?.to_owned();
        loop {
            let frame = self.socket.next().await.context("ComfyUI's socket closed")??;
            let Message::Text(text) = frame else {
                previews.extend(frame.is_binary().then(clock::wall_us));
                continue;
            };
            let frame: Value = serde_json::from_str(&text)?;
            let data = &frame["data"];
            if data["prompt_id"] != id.as_str() {
                continue;
            }
            match frame["type"].as_str() {
                Some("executing") if data["node"].is_null() => break,
                Some("execution_error") => bail!("the direct render failed: {data}"),
                _ => {}
            }
        }
        Ok((id, previews))
    }
}

/// Reads an answer to its end; gives its bytes.
pub(super) async fn length(mut answer: reqwest::Response) -> Result<usize> {
    let mut got = 0;
    while let Some(chunk) = answer.chunk().await? {
        got += chunk.len();
    }
    Ok(got)
}
