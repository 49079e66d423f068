//! The ComfyUIs around this node, configured or not: `init`, `join` and `doctor` tell of them.

use std::time::Duration;

use scenemesh_protocol::api::ComfyuiView;

use super::Node;
use crate::executor::{self, SlotState};
use crate::messages::{Lang, phrase};

/// Where ComfyUI listens unless told otherwise.
const USUAL: &str = "http://127.0.0.1:8188";
/// A ComfyUI on this machine answers at once, unless it is loading its nodes.
const PATIENCE: Duration = Duration::from_secs(3);

/// Those of the configuration, then the usual places that are not among them.
pub(super) async fn around(node: &Node, lang: Lang) -> Vec<ComfyuiView> {
    let slots = node.ports.executor.slots().borrow().clone();
    let mut found: Vec<ComfyuiView> = slots
        .iter()
        .map(|slot| ComfyuiView {
            url: slot.url.clone(),
            configured: true,
            version: Some(slot.comfyui_version.clone()).filter(|version| !version.is_empty()),
            trouble: match &slot.state {
                SlotState::NotReady { why } => Some(phrase(lang, why)),
                _ => None,
            },
        })
        .collect();
    let mut places = vec![USUAL.to_owned()];
    places.extend(node.comfyui_host.as_deref().map(as_url));
    for url in places {
        if found.iter().any(|known| same_place(&known.url, &url)) {
            continue;
        }
        let looked = tokio::time::timeout(PATIENCE, executor::look(&url)).await;
        let (version, trouble) = match looked {
            Ok(Ok(version)) => (Some(version), None),
            Ok(Err(why)) => (None, Some(phrase(lang, &why))),
            Err(_) => (None, Some(phrase(lang, &format!("{url} does not answer")))),
        };
        found.push(ComfyuiView { url, configured: false, version, trouble });
    }
    found
}

/// `COMFYUI_HOST` comes as a url, as `HOST:PORT` or as a host alone.
fn as_url(host: &str) -> String {
    let host = host.trim().trim_end_matches('/');
    if host.contains("://") {
        return host.to_owned();
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { format!("http://{host}") } else { format!("http://{host}:8188") }
}

fn same_place(one: &str, other: &str) -> bool {
    let plain = |url: &str| url.trim_end_matches('/').replace("//localhost:", "//127.0.0.1:");
    plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_variable_comes_in_many_forms() {
        assert_eq!(as_url("gpu-box"), "http://gpu-box:8188");
        assert_eq!(as_url("gpu-box:8200"), "http://gpu-box:8200");
        assert_eq!(as_url("https://gpu-box/comfy/"), "https://gpu-box/comfy");
        assert!(same_place("http://localhost:8188/", USUAL));
        assert!(!same_place("http://127.0.0.1:8189", USUAL));
    }
}
