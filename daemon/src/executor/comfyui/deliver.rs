//! Carries results from ComfyUI into sealed blobs, as they stream.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use scenemesh_protocol::task::{Failure, FailureClass, OutputFile, OutputKind};

use super::client::{CallError, Client, FileRef};
use super::collect::{Found, What};
use super::hygiene::Folders;
use super::rewrite::Streamed;
use super::run::died;
use crate::store::{BlobError, Blobs, Sealer};

/// The outputs of one attempt.
pub(super) struct Sink<'a> {
    client: &'a Client,
    store: &'a Blobs,
    outputs: Vec<OutputFile>,
    names: BTreeSet<String>,
    /// Directories of this machine, which texts that travel do not name.
    places: Vec<String>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(client: &'a Client, store: &'a Blobs, folders: Option<&Folders>) -> Self {
        let places = folders.map(|folders| places(&folders.all())).unwrap_or_default();
        Self { client, store, outputs: Vec::new(), names: BTreeSet::new(), places }
    }

    /// Seals everything a history entry names.
    pub(super) async fn take_all(&mut self, found: Vec<Found>) -> Result<(), Failure> {
        for Found { node, kind, what } in found {
            match what {
                What::Text(text) => {
                    let name = format!("text_{}.txt", self.outputs.len() + 1);
                    let text = without_places(text, &self.places);
                    self.take_bytes(&node, kind, &name, text.as_bytes()).await?;
                }
                What::File(file) => {
                    if !self.take_file(&node, kind, &file).await? {
                        let detail = format!("ComfyUI no longer has an output of node {node} that it named");
                        return Err(Failure::new(FailureClass::Transfer, detail));
                    }
                }
                What::MaybeFile(file) => {
                    self.take_file(&node, kind, &file).await?;
                }
            }
        }
        Ok(())
    }

    /// Seals a picture that came over the socket; `name` is what the user called it.
    pub(super) async fn take_picture(
        &mut self,
        node: &str,
        name: &str,
        format: &str,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let number = self.outputs.iter().filter(|output| output.node == node).count() + 1;
        let extension =
            if format == "image/jpeg" { "jpg" } else { format.rsplit('/').next().unwrap_or("bin") };
        self.take_bytes(node, OutputKind::Image, &format!("{name}_{number:05}_.{extension}"), bytes).await
    }

    /// All outputs, in the order in which they came.
    ///
    /// # Errors
    /// When a node that streams has delivered nothing: the socket was down, and there is no file to fall back to.
    pub(super) async fn finish(self, streamed: &Streamed) -> Result<Vec<OutputFile>, Failure> {
        let silent = streamed.keys().find(|node| self.outputs.iter().all(|output| output.node != **node));
        match silent {
            Some(node) => {
                let node = node.clone();
                self.discard().await;
                let detail = format!("the pictures of node {node} were lost with ComfyUI's event socket");
                Err(Failure::new(FailureClass::Transfer, detail))
            }
            None => Ok(self.outputs),
        }
    }

    /// Gives back the space of what was sealed for an attempt that failed.
    pub(super) async fn discard(self) {
        for output in self.outputs {
            if let Err(error) = self.store.remove(output.root).await {
                tracing::debug!(%error, "removing a result of a failed attempt");
            }
        }
    }

    /// Whether ComfyUI has the file.
    async fn take_file(&mut self, node: &str, kind: OutputKind, file: &FileRef) -> Result<bool, Failure> {
        let Some(mut response) = self.client.view(file).await.map_err(|error| lost(&error))? else {
            return Ok(false);
        };
        let mut sealer = self.store.seal();
        while let Some(chunk) = self.client.chunk(&mut response).await.map_err(|error| lost(&error))? {
            sealer.write(&chunk).await.map_err(|error| unsealed(&error))?;
        }
        self.keep(node, kind, &file.filename, sealer).await?;
        Ok(true)
    }

    async fn take_bytes(
        &mut self,
        node: &str,
        kind: OutputKind,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let mut sealer = self.store.seal();
        sealer.write(bytes).await.map_err(|error| unsealed(&error))?;
        self.keep(node, kind, name, sealer).await
    }

    async fn keep(
        &mut self,
        node: &str,
        kind: OutputKind,
        name: &str,
        sealer: Sealer,
    ) -> Result<(), Failure> {
        let sealed = sealer.finish().await.map_err(|error| unsealed(&error))?;
        let filename = self.unused(node, name);
        self.outputs.push(OutputFile {
            node: node.to_owned(),
            kind,
            filename,
            root: sealed.root,
            key: sealed.key.clone(),
            bytes: sealed.bytes,
        });
        Ok(())
    }

    /// Two nodes may save under one name into different folders; the results go into one.
    fn unused(&mut self, node: &str, name: &str) -> String {
        let plain: String =
            node.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
        let mut candidate = name.to_owned();
        let mut count = 1;
        while !self.names.insert(candidate.clone()) {
            candidate =
                if count == 1 { format!("{plain}_{name}") } else { format!("{plain}-{count}_{name}") };
            count += 1;
        }
        candidate
    }
}

/// ComfyUI's folders, and what they lie in.
fn places(folders: &[&Path]) -> Vec<String> {
    let parents = folders.iter().filter_map(|folder| folder.parent());
    // A folder in the root would hide every slash.
    let all = folders.iter().copied().chain(parents).filter(|folder| folder.parent().is_some());
    let mut all: Vec<String> = all.filter_map(Path::to_str).map(str::to_owned).collect();
    all.sort_by_key(|place| std::cmp::Reverse(place.len()));
    all.dedup();
    all
}

/// A text as a node shows it, without the directories of the machine that it ran on.
fn without_places(text: String, places: &[String]) -> String {
    places.iter().fold(text, |text, place| text.replace(place.as_str(), "…"))
}

fn lost(error: &CallError) -> Failure {
    if error.is_refused() { died(error) } else { Failure::new(FailureClass::Transfer, error.to_string()) }
}

fn unsealed(error: &BlobError) -> Failure {
    let full = match error {
        BlobError::Quota { .. } | BlobError::NoSpace { .. } => true,
        BlobError::Io { source, .. } => {
            matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        }
        _ => false,
    };
    let class = if full { FailureClass::DiskFull } else { FailureClass::Transfer };
    Failure::new(class, format!("a result cannot be stored: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn texts_that_travel_do_not_name_directories_of_this_machine() {
        let folders = ["/srv/kim/comfy/input", "/srv/kim/comfy/output", "/scratch"].map(Path::new);
        let places = places(&folders);
        let text =
            "saved /srv/kim/comfy/output/a.png, model /srv/kim/comfy/models/m, /scratch/x; 1/2".to_owned();
        let expected = "saved …/a.png, model …/models/m, …/x; 1/2";
        assert_eq!(without_places(text, &places), expected);
    }
}
