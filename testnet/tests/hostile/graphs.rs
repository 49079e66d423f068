//! A graph is code: one hostile graph of every denied family, sent by a member that speaks the protocol itself.

use anyhow::{Result, bail, ensure};
use scenemesh_testnet::hostile::requester::Order;
use scenemesh_testnet::hostile::task::{GrantReply, OfferReply};
use serde_json::{Value, json};

use crate::{mallory, renders, still_works, tell};

/// A class of each family that no renderer runs for others, with what its graph would do.
fn families() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("paths", "VHS_LoadVideoPath", json!({"video": "/home/kim/client.mov"})),
        ("code", "IPAdapterLoadEmbeds", json!({"embeds": "evil.ipadpt"})),
        ("partner", "OpenAIChatNode", json!({"prompt": "hello"})),
        ("install", "ETN_Translate", json!({"text": "lang:zz hello"})),
        ("others", "LoadImageSetFromFolderNode", json!({"folder": "clients"})),
        ("models", "CheckpointSave", json!({"filename_prefix": "stolen"})),
        ("hang", "RegexMatch", json!({"string": "aaaaaaaaaaaaaaaaaaaaaaa!", "regex_pattern": "(a+)+$"})),
        ("unlisted", "SomebodysShellNode", json!({"command": "rm -rf /"})),
    ]
}

/// Strings that lead elsewhere in a class that is allowed.
fn escapes() -> Vec<(&'static str, Value)> {
    let save = |prefix: &str| {
        json!({
            "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
        })
    };
    let load = |image: &str| {
        json!({
            "1": {"class_type": "LoadImage", "inputs": {"image": image}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
        })
    };
    vec![
        ("an absolute path", save("/etc/cron.d/x")),
        ("a way up", save("../../x")),
        ("a drive", save("C:\\Windows\\x")),
        ("a share", save("\\\\host\\share\\x")),
        ("another's output", load("ComfyUI_00001_.png [output]")),
        ("an address", load("http://127.0.0.1:8188/view?filename=x.png")),
    ]
}

#[test]
fn a_hostile_graph_of_every_denied_family_is_refused_at_the_offer_and_at_the_grant() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let amber = peer.host();
            renders(&peer).await?;
            for (family, class, inputs) in families() {
                let graph = json!({"1": {"class_type": class, "inputs": inputs}});
                let order = Order::new(&graph, &[])?;
                let OfferReply::Refused(refusal) = peer.offer(&amber, &order.offer).await? else {
                    bail!("{family}: {class} was not refused at the offer");
                };
                ensure!(!refusal.detail.contains('/'), "{family}: the refusal names no path: {refusal:?}");
                // The shape says something harmless, the sealed graph does not.
                let honest = Order::new(&scenemesh_testnet::workflows::tiny(1), &[])?;
                let order = Order { offer: honest.offer, ..order };
                rejected(&mut peer, &order, family).await?;
            }
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn strings_that_lead_elsewhere_are_refused_in_allowed_classes_too() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            renders(&peer).await?;
            for (what, graph) in escapes() {
                let order = Order::new(&graph, &[])?;
                rejected(&mut peer, &order, what).await?;
            }
            still_works(mesh, dir).await
        })
    });
}

/// Grants an order; it must be turned down before anything runs.
async fn rejected(
    peer: &mut scenemesh_testnet::hostile::member::Member,
    order: &Order,
    what: &str,
) -> Result<()> {
    let amber = peer.host();
    let claim = peer.claim_of(&amber, &order.offer).await?;
    let grant = peer.grant_for(&amber, claim, order)?;
    let reply = peer.grant(&amber, &grant).await?;
    peer.withdraw(&amber, &order.offer).await?;
    let GrantReply::Rejected { refusal, failure } = reply else {
        bail!("{what}: the grant was accepted");
    };
    ensure!(failure.is_some(), "{what}: the graph itself is at fault: {refusal:?}");
    Ok(())
}
