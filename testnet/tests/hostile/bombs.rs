//! Small messages that promise something huge.

use anyhow::{Context, Result, bail, ensure};
use futures::AsyncReadExt;
use scenemesh_testnet::cluster::Cluster;
use scenemesh_testnet::hostile::blobs::{Blob, manifest, root};
use scenemesh_testnet::hostile::bytes::{Writer, frame, frame_that_says, kind, send};
use scenemesh_testnet::hostile::envelope::seal;
use scenemesh_testnet::hostile::keys::Key;
use scenemesh_testnet::hostile::link::{blob_of, must_fail};
use scenemesh_testnet::hostile::member::Member;
use scenemesh_testnet::hostile::requester::Order;
use scenemesh_testnet::hostile::task::{GrantReply, Outcome};
use scenemesh_testnet::workflows;
use tokio::time::timeout;

use crate::renderers::{ends_done, granted, painter};
use crate::{AMBER, mallory, memory_mib, renders, still_works, tell};

/// More than honest work of a test ever takes, less than any bomb promises.
const ROOM_MIB: u64 = 96;

/// Runs an attack and checks that amber's memory did not grow by more than [`ROOM_MIB`].
async fn without_growth<T>(mesh: &Cluster, attack: impl Future<Output = Result<T>>) -> Result<T> {
    let before = memory_mib(mesh, AMBER)?;
    let outcome = attack.await?;
    let after = memory_mib(mesh, AMBER)?;
    ensure!(after < before + ROOM_MIB, "memory grew from {before} to {after} MiB");
    Ok(outcome)
}

#[test]
fn frame_lengths_that_promise_gigabytes_are_refused_on_every_verb() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            let amber = peer.host();
            without_growth(mesh, async {
                for verb in kind::CONTROL {
                    let answer = peer.say(&amber, &frame_that_says(verb, u32::MAX, b"x")).await?;
                    let (_, words) = answer.declined().with_context(|| format!("{verb:#06x}: {answer:?}"))?;
                    ensure!(words.contains("limit"), "{verb:#06x} says why: {words}");
                }
                let mut stream = peer.link.control().open(&amber, &blob_of(&peer.me.pool)).await?;
                send(&mut stream, &frame_that_says(kind::BLOB_GET, u32::MAX, b"x")).await?;
                let mut rest = Vec::new();
                let ended = timeout(std::time::Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
                ensure!(ended.is_ok() && rest.is_empty(), "the blob stream is closed without a word");
                for verb in kind::PORCH {
                    let answer =
                        peer.porch.ask_raw(&Key::random(), &frame_that_says(verb, u32::MAX, b"x")).await?;
                    ensure!(answer.declined().is_some(), "{verb:#06x} at the porch: {answer:?}");
                }
                Ok(())
            })
            .await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn counts_that_promise_more_than_there_is_are_refused_on_every_verb() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            let amber = peer.host();
            without_growth(mesh, async {
                for verb in kind::CONTROL.into_iter().filter(|verb| *verb != kind::GOODBYE) {
                    let answer = peer.say(&amber, &frame(verb, &[0xff; 400])).await?;
                    ensure!(answer.declined().is_some(), "{verb:#06x}: {answer:?}");
                }
                // A well-formed beginning, then a list of 2^60.
                let offer = Writer::new().raw(&[1; 32]).u64(1 << 60).done();
                let answer = peer.ask(&amber, kind::OFFER, &offer).await?;
                ensure!(answer.declined().is_some(), "an offer of 2^60 classes: {answer:?}");
                let adverts = peer.ask(&amber, kind::ADVERTS, &Writer::new().u64(1 << 60).done()).await?;
                ensure!(adverts.declined().is_some(), "2^60 adverts: {adverts:?}");
                for verb in kind::PORCH {
                    let answer = peer.porch.ask_raw(&Key::random(), &frame(verb, &[0xff; 400])).await?;
                    ensure!(answer.declined().is_some(), "{verb:#06x} at the porch: {answer:?}");
                }
                Ok(())
            })
            .await?;
            peer.greet(&amber).await?;
            still_works(mesh, dir).await
        })
    });
}

/// Grants an order as it is and gives how it ended: refused at once, or failed.
async fn ends_badly(peer: &mut Member, order: &Order) -> Result<String> {
    let amber = peer.host();
    let claim = peer.claim_of(&amber, &order.offer).await?;
    let grant = peer.grant_for(&amber, claim, order)?;
    how_it_ends(peer, order, &grant).await
}

async fn how_it_ends(
    peer: &mut Member,
    order: &Order,
    grant: &scenemesh_testnet::hostile::requester::Grant,
) -> Result<String> {
    let amber = peer.host();
    let reply = peer.grant(&amber, grant).await?;
    peer.withdraw(&amber, &order.offer).await?;
    if let GrantReply::Rejected { refusal, failure } = reply {
        return Ok(format!("{refusal:?} {failure:?}"));
    }
    match peer.finished(grant).await?.0.outcome {
        Outcome::Failed { class, detail } => Ok(format!("failed ({class}): {detail}")),
        Outcome::Done { .. } => bail!("it was rendered"),
    }
}

#[test]
fn a_manifest_of_2_to_the_60_bytes_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let honest = Blob::seal(b"a plate")?;
            without_growth(mesh, async {
                // Said openly, in the terms and in the task.
                let huge = Blob { bytes: 1 << 60, ..honest.clone() };
                peer.shelve(huge.root, &huge);
                let graph = workflows::image_to_image("plate.png");
                let mut order = Order::new(&graph, &[("plate.png", &huge)])?;
                order.roots = vec![(huge.root, 1 << 60)];
                let words = ends_badly(&mut peer, &order).await?;
                println!("2^60 bytes in the terms: {words}");
                // Said only by the manifest, under its own true root.
                let body = manifest(1 << 60, &[[7; 32]]);
                let lying = Blob { root: root(&body), manifest: body, ..honest.clone() };
                peer.shelve(lying.root, &lying);
                let order = Order::new(&graph, &[("plate.png", &lying)])?;
                let words = ends_badly(&mut peer, &order).await?;
                println!("2^60 bytes in the manifest: {words}");
                Ok(())
            })
            .await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_graph_nested_100000_deep_is_refused() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let deep = 100_000;
            let nested = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
            let graph = format!(r#"{{"1":{{"class_type":"EmptyImage","inputs":{{"width":{nested}}}}}}}"#);
            let order = Order::raw(graph.into_bytes(), vec!["EmptyImage".into()], &[]);
            let words = without_growth(mesh, ends_badly(&mut peer, &order)).await?;
            println!("nested: {words}");
            let extra = Order::new(&workflows::tiny(3), &[])?;
            let mut spec = extra.spec.clone();
            spec.extra_data = nested.into_bytes();
            let words = without_growth(mesh, ends_badly(&mut peer, &Order { spec, ..extra })).await?;
            println!("nested extra data: {words}");
            renders(&peer).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_graph_of_a_hundred_thousand_nodes_is_refused_or_bounded() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut peer = mallory(mesh).await?;
            let amber = peer.host();
            let nodes =
                (0..100_000).map(|id| format!(r#""{id}":{{"class_type":"EmptyImage","inputs":{{}}}}"#));
            let graph = format!("{{{}}}", nodes.collect::<Vec<_>>().join(","));
            let order = Order::raw(graph.into_bytes(), vec!["EmptyImage".into()], &[]);
            let payload = Blob::seal(&order.spec.encode())?;
            peer.shelve(payload.root, &payload);
            let order = Order { roots: vec![(payload.root, payload.sealed_bytes())], ..order };
            let claim = peer.claim_of(&amber, &order.offer).await?;
            let as_blob = Writer::new().u32(1).raw(&payload.root).raw(&payload.key).u64(payload.bytes).done();
            let header = peer.header_for(&amber, &order)?;
            let envelope = seal(header, &as_blob, &peer.me.key, &peer.kem_of(&amber)?)?;
            let grant = peer.grant_around(claim, &order, envelope)?;
            let words = how_it_ends(&mut peer, &order, &grant).await?;
            println!("many nodes: {words}");
            renders(&peer).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_result_of_2_to_the_60_bytes_is_discarded() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let mut cheat = painter(mesh, "amber-02").await?;
            let (job, held) = granted(mesh, dir, &mut cheat, None).await?;
            let body = manifest(1 << 60, &[[7; 32]]);
            let lying = Blob { root: root(&body), manifest: body, bytes: 1 << 60, ..Blob::seal(b"little")? };
            cheat.shelve(lying.root, &lying);
            let result = cheat.result_of(&held, &lying)?;
            without_growth(mesh, async {
                cheat.announces(&held.from, &result).await?;
                ensure!(!cheat.acked().await?, "it is not stored");
                Ok(())
            })
            .await?;
            let mut honest = painter(mesh, "amber-03").await?;
            honest.claims_an_offer().await?;
            let held = honest.takes_a_grant().await?;
            ends_done(mesh, &mut honest, &held, &job).await?;
            still_works(mesh, dir).await
        })
    });
}

#[test]
fn a_stranger_is_told_nothing_in_answer_to_garbage() {
    tell(|mesh, dir| {
        Box::pin(async move {
            let peer = mallory(mesh).await?;
            for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], b"SM\x01\x01"] {
                let answer = peer.porch.ask_raw(&Key::random(), bytes).await;
                must_fail(
                    "garbage at the porch",
                    answer.and_then(|answer| {
                        ensure!(answer.declined().is_none(), "declined");
                        Ok(answer)
                    }),
                )?;
            }
            still_works(mesh, dir).await
        })
    });
}
