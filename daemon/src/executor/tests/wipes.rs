//! What is removed after a run, what is not, and that both are said.

use futures::FutureExt;
use scenemesh_protocol::task::FailureClass;
use serde_json::json;

use super::stub::Stub;
use super::traps::{everything_in, with_folders};
use super::*;

/// A graph of one picture and a video of it: node 9 writes a file.
fn graph() -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 7}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "shot"}},
    })
}

/// Writes node 9's file as the graph asks, and remembers the picture.
fn render(stub: &Stub, id: &str) {
    let (base, prefix) = stub.with(|state| {
        let posted = state.posted.iter().rev().find(|body| body["prompt_id"] == id).unwrap();
        let prefix = posted["prompt"]["9"]["inputs"]["filename_prefix"].as_str().map(str::to_owned);
        (state.base.clone(), prefix)
    });
    if let (Some(base), Some(prefix)) = (base, prefix) {
        let folder = base.join("output").join(&prefix);
        std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
        std::fs::write(folder.with_file_name("out_00001_.png"), "a picture").unwrap();
        stub.with(|state| state.files.insert("out_00001_.png".into(), b"a picture".to_vec()));
        let images = json!([{"filename": "out_00001_.png", "type": "output",
            "subfolder": prefix.rsplit_once('/').unwrap().0}]);
        stub.execute(id);
        stub.with(|state| state.history.get_mut(id).unwrap()["outputs"] = json!({"9": {"images": images}}));
    } else {
        stub.execute(id);
    }
}

async fn rendering() -> (Bench, Stub, tempfile::TempDir) {
    let (supervisor, stub, dir) = with_folders(|stub, id| async move { render(&stub, &id) }.boxed()).await;
    let endpoint = EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() };
    let bench = Bench::owned_by("amber".into(), supervisor, endpoint).await;
    assert_eq!(bench.ready().await.hygiene, Hygiene::Full);
    (bench, stub, dir)
}

fn count(what: Wiped, count: u32) -> WipeCount {
    WipeCount { what, count }
}

#[tokio::test]
async fn full_hygiene_empties_the_cache_and_proves_it() {
    let (mut bench, stub, dir) = rendering().await;
    let before = everything_in(dir.path());
    let mut graph = graph();
    graph["2"] = json!({"class_type": "LoadImage", "inputs": {"image": "plate.png"}});
    let input = bench.seal("plate.png", b"bytes").await;
    let run = Run { full_hygiene: true, inputs: vec![input], ..run_of(&graph) };
    let wipe = bench.perform(run).await.wipe.unwrap();
    let each = [Wiped::History, Wiped::Inputs, Wiped::Outputs, Wiped::Cache];
    assert_eq!(wipe.wiped, each.map(|what| count(what, 1)));
    assert_eq!((wipe.hygiene, wipe.left), (Hygiene::Full, Vec::new()));
    assert_eq!(everything_in(dir.path()), before);
    stub.with(|state| {
        assert!(!state.cache.contains("7"), "the task's picture is gone: {:?}", state.cache);
        assert!(state.history.is_empty(), "the proofs are forgotten: {:?}", state.history.keys());
        assert_eq!(state.posted.len(), 3);
    });
    bench.stop().await;
}

#[tokio::test]
async fn a_cache_that_stays_is_said_to_stay() {
    let (mut bench, stub, dir) = rendering().await;
    stub.with(|state| state.keeps_cache = true);
    let story = bench.perform(Run { full_hygiene: true, ..run_of(&graph()) }).await;
    assert!(matches!(story.outcome, Outcome::Done { .. }));
    assert_eq!(story.wipe.unwrap().left, [count(Wiped::Cache, 1)]);
    stub.with(|state| assert!(state.history.is_empty()));
    assert!(everything_in(dir.path()).iter().all(|name| !name.contains("amber")));
    bench.stop().await;
}

#[tokio::test]
async fn a_failed_run_is_wiped_and_counted_too() {
    let (supervisor, stub, dir) = with_folders(|stub, id| {
        async move {
            render(&stub, &id);
            stub.with(|state| {
                let status = json!({"status_str": "error", "messages": [["execution_error",
                    {"exception_type": "ValueError", "exception_message": "no", "node_id": "9"}]]});
                state.history.get_mut(&id).unwrap()["status"] = status;
            });
        }
        .boxed()
    })
    .await;
    let before = everything_in(dir.path());
    let endpoint = EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() };
    let mut bench = Bench::on(supervisor, endpoint).await;
    bench.ready().await;
    let story = bench.perform(run_of(&graph())).await;
    let wipe = story.wipe.clone().unwrap();
    assert_eq!(story.failed().class, FailureClass::Execution);
    assert_eq!(wipe.wiped, [count(Wiped::History, 1), count(Wiped::Outputs, 1)]);
    assert_eq!((wipe.left, everything_in(dir.path())), (Vec::new(), before));
    bench.stop().await;
}

#[tokio::test]
async fn a_task_that_insists_on_full_does_not_run_where_files_would_stay() {
    let (supervisor, stub, _dir) = with_folders(|stub, id| async move { render(&stub, &id) }.boxed()).await;
    stub.with(|state| state.base = None);
    let endpoint = EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() };
    let mut bench = Bench::on(supervisor, endpoint).await;
    assert_eq!(bench.ready().await.hygiene, Hygiene::Partial);
    let story = bench.perform(Run { full_hygiene: true, ..run_of(&graph()) }).await;
    assert_eq!(story.wipe, None, "nothing went there");
    let failure = story.failed();
    assert_eq!(failure.class, FailureClass::Policy);
    assert!(failure.detail.contains("hygiene = full"), "{failure}");
    stub.with(|state| assert_eq!(state.posted, Vec::<Value>::new()));
    bench.stop().await;
}

#[tokio::test]
async fn an_upload_whose_folder_another_node_removed_is_sent_again() {
    let (mut bench, stub, _dir) = rendering().await;
    let mut graph = graph();
    graph["2"] = json!({"class_type": "LoadImage", "inputs": {"image": "plate.png"}});
    let input = bench.seal("plate.png", b"bytes").await;
    stub.with(|state| state.stumbles = 2);
    let (outputs, left) = bench.perform(Run { inputs: vec![input.clone()], ..run_of(&graph) }).await.done();
    assert_eq!((outputs.len(), left), (1, Vec::new()));
    stub.with(|state| state.stumbles = 3);
    let failure = bench.perform(Run { inputs: vec![input], ..run_of(&graph) }).await.failed();
    assert_eq!(failure.class, FailureClass::Transfer);
    bench.stop().await;
}

#[tokio::test]
async fn a_cache_that_a_killed_node_still_owed_is_emptied_before_the_slot_is_ready() {
    let (supervisor, stub, dir) = with_folders(|stub, id| async move { render(&stub, &id) }.boxed()).await;
    let before = everything_in(dir.path());
    let owed = dir.path().join("temp/scenemesh/amber-aaaaaaaa-1-full");
    std::fs::create_dir_all(owed).unwrap();
    stub.with(|state| state.cache.insert("7".into()));
    let endpoint = EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() };
    let bench = Bench::owned_by("amber".into(), supervisor, endpoint).await;
    bench.ready().await;
    stub.with(|state| {
        assert!(!state.cache.contains("7") && state.history.is_empty());
    });
    assert_eq!(everything_in(dir.path()), before);
    bench.stop().await;
}
