//! Runs against a ComfyUI that does what real ones have been seen to do.

use futures::FutureExt;
use futures::future::BoxFuture;
use scenemesh_protocol::advert::Hygiene;
use scenemesh_protocol::task::FailureClass;
use serde_json::json;

use super::stub::Stub;
use super::*;
use crate::executor::comfyui::{prompt_id, testing};

/// A bench on a stub that plays `on_prompt` for every prompt it accepts.
async fn against(
    on_prompt: impl Fn(Stub, String) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> (Bench, Stub) {
    let supervisor = Supervisor::new(Duration::from_secs(20));
    let stub = Stub::start(&supervisor.tasks(), on_prompt).await;
    let bench =
        Bench::on(supervisor, EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() }).await;
    (bench, stub)
}

fn nothing(_: Stub, _: String) -> BoxFuture<'static, ()> {
    async {}.boxed()
}

/// A graph that saves to disk even where files cannot be removed.
fn video() -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 8.0}},
        "9": {"class_type": "SaveVideo", "inputs": {"video": ["2", 0], "filename_prefix": "v", "format": "auto",
            "codec": "auto"}},
    })
}

#[tokio::test]
async fn history_may_come_after_success() {
    let (mut bench, stub) = against(|stub, id| {
        async move {
            stub.until(|state| state.sockets > 0).await;
            stub.run(&id);
            stub.frame("executing", json!({"node": "9", "prompt_id": id}));
            stub.frame("execution_success", json!({"prompt_id": id}));
            // Not before the first look at history found nothing.
            stub.with(|state| state.nonsense = 2);
            stub.until(|state| state.nonsense == 0).await;
            stub.finish(&id);
        }
        .boxed()
    })
    .await;
    let view = bench.ready().await;
    assert_eq!(view.hygiene, Hygiene::Partial, "nobody has seen the stub's folders");
    let run = run_of(&video());
    let id = prompt_id(run.task, 1);
    let story = bench.perform(run).await;
    assert_eq!(story.started, 1);
    let Outcome::Done { outputs, exec_ms } = story.outcome else { panic!("it is done") };
    assert_eq!((outputs.len(), exec_ms), (1, 250));
    let wipe = story.wipe.expect("it was in ComfyUI");
    assert_eq!((wipe.hygiene, wipe.wiped(Wiped::History)), (Hygiene::Partial, 1));
    assert_eq!(wipe.left, [WipeCount { what: Wiped::Outputs, count: 1 }], "the folders are out of reach");
    assert_eq!(bench.open(&outputs[0]).await, b"\x89PNG picture");
    stub.with(|state| {
        assert_eq!(state.posted.len(), 1);
        assert_eq!(state.posted[0]["prompt_id"], json!(id));
        assert!(state.history.is_empty());
    });
    bench.stop().await;
}

#[tokio::test]
async fn a_silent_socket_is_made_up_for_by_history_and_queue() {
    let (mut bench, _stub) = against(|stub, id| {
        async move {
            stub.with(|state| {
                let row = state.pending.remove(&id).unwrap();
                state.running.insert(id.clone(), row);
            });
            stub.finish(&id);
        }
        .boxed()
    })
    .await;
    bench.ready().await;
    let story = bench.perform(run_of(&video())).await;
    assert_eq!(story.done().0.len(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_socket_that_stays_silent_is_opened_anew() {
    let (mut bench, _stub) = against(|stub, id| {
        async move {
            stub.until(|state| state.sockets == 1).await;
            stub.run(&id);
            stub.until(|state| state.sockets == 2).await;
            stub.frame("progress", json!({"value": 3, "max": 8, "node": "2", "prompt_id": id}));
            stub.finish(&id);
        }
        .boxed()
    })
    .await;
    bench.ready().await;
    let story = bench.perform(run_of(&video())).await;
    assert!(story.progress.iter().any(|(node, step, ..)| (node.as_str(), *step) == ("2", 3)));
    bench.stop().await;
}

#[tokio::test]
async fn a_crash_in_the_middle_is_noticed_and_parks_the_slot() {
    let (mut bench, _stub) = against(|stub, id| {
        async move {
            stub.until(|state| state.sockets > 0).await;
            stub.run(&id);
            stub.crash();
        }
        .boxed()
    })
    .await;
    bench.ready().await;
    let run = run_of(&video());
    let failure = bench.perform(run.clone()).await.failed();
    assert_eq!(failure.class, FailureClass::ComfyuiDied, "{failure}");
    assert!(bench.not_ready().await.contains("is ComfyUI running there?"));
    let refused = bench.executor.run(run).await.unwrap_err();
    assert!(matches!(refused, RunError::NotReady { .. }), "{refused}");
    bench.stop().await;
}

#[tokio::test]
async fn what_is_no_comfyui_never_becomes_ready() {
    let supervisor = Supervisor::new(Duration::from_secs(20));
    let stub = Stub::start(&supervisor.tasks(), nothing).await;
    stub.with(|state| state.object_info = Some("<html>".into()));
    let bench =
        Bench::on(supervisor, EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() }).await;
    let why = bench.not_ready().await;
    assert!(why.starts_with("GET /object_info at http://127.0.0.1:"), "{why}");
    assert!(why.contains("the answer is not what ComfyUI says"), "{why}");
    stub.with(|state| state.object_info = None);
    bench.ready().await;
    bench.stop().await;
}

#[tokio::test]
async fn definitions_are_kept_as_they_came_unless_they_are_huge() {
    let supervisor = Supervisor::new(Duration::from_secs(20));
    let stub = Stub::start(&supervisor.tasks(), nothing).await;
    let said = super::super::comfyui::testing::OBJECT_INFO;
    let bench =
        Bench::on(supervisor, EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() }).await;
    let view = bench.ready().await;
    assert_eq!(view.inventory.definitions, said);
    bench.stop().await;

    let supervisor = Supervisor::new(Duration::from_secs(20));
    let stub = Stub::start(&supervisor.tasks(), nothing).await;
    let huge = said.to_owned() + &" ".repeat(crate::executor::MOST_DEFINITIONS);
    stub.with(|state| state.object_info = Some(huge));
    let bench =
        Bench::on(supervisor, EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() }).await;
    let view = bench.ready().await;
    assert!(view.inventory.definitions.is_empty() && view.inventory.has_class("KSampler"));
    bench.stop().await;
}

#[tokio::test]
async fn garbage_answers_are_waited_out() {
    let (mut bench, _stub) = against(|stub, id| {
        async move {
            stub.until(|state| state.sockets > 0).await;
            stub.run(&id);
            stub.with(|state| state.nonsense = 3);
            stub.finish(&id);
        }
        .boxed()
    })
    .await;
    bench.ready().await;
    assert_eq!(bench.perform(run_of(&video())).await.done().0.len(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_cancel_takes_only_our_prompt_out_of_the_queue() {
    let (mut bench, stub) = against(nothing).await;
    stub.with(|state| state.running.insert("theirs".into(), json!([0, "theirs", {}, {}, []])));
    bench.ready().await;
    let run = run_of(&video());
    let (task, id) = (run.task, prompt_id(run.task, 1));
    bench.executor.run(run).await.unwrap();
    stub.until(|state| state.pending.contains_key(&id)).await;
    bench.executor.cancel(task, 1).await;
    assert_eq!(bench.story().await.failed().class, FailureClass::Cancelled);
    stub.with(|state| {
        assert_eq!(state.unqueued[0], json!({"delete": [id]}));
        assert_eq!(state.interrupted, Vec::<Value>::new());
        assert!(state.running.contains_key("theirs"));
    });
    bench.stop().await;
}

#[tokio::test]
async fn a_cancel_interrupts_our_prompt_by_its_id() {
    let (mut bench, stub) = against(|stub, id| async move { stub.run(&id) }.boxed()).await;
    bench.ready().await;
    let run = run_of(&video());
    let (task, id) = (run.task, prompt_id(run.task, 1));
    bench.executor.run(run).await.unwrap();
    stub.until(|state| state.running.contains_key(&id)).await;
    bench.executor.cancel(task, 2).await;
    bench.executor.cancel(task, 1).await;
    assert_eq!(bench.story().await.failed().class, FailureClass::Cancelled);
    stub.with(|state| {
        assert_eq!(state.interrupted[0], json!({"prompt_id": id}));
        assert!(state.history.is_empty(), "the interrupted prompt's history is removed too");
    });
    bench.stop().await;
}

#[tokio::test]
async fn a_prompt_that_is_nowhere_is_lost_not_done() {
    let (mut bench, _stub) = against(|stub, id| {
        async move {
            stub.with(|state| state.pending.remove(&id));
        }
        .boxed()
    })
    .await;
    bench.ready().await;
    let failure = bench.perform(run_of(&video())).await.failed();
    assert_eq!(failure.class, FailureClass::ComfyuiDied);
    assert!(failure.detail.contains("neither in ComfyUI's queue nor in its history"), "{failure}");
    bench.ready().await;
    bench.stop().await;
}

#[tokio::test]
async fn history_cleared_by_somebody_else_does_not_lose_the_result() {
    let (mut bench, _stub) = against(|stub, id| {
        async move {
            stub.until(|state| state.sockets > 0).await;
            stub.run(&id);
            stub.with(|state| {
                state.files.insert("v.mp4".into(), b"moving".to_vec());
                state.running.remove(&id);
            });
            let output = json!({"images": [{"filename": "v.mp4", "type": "output"}], "animated": [true]});
            stub.frame("executed", json!({"node": "9", "output": output, "prompt_id": id}));
            stub.frame("execution_success", json!({"prompt_id": id}));
        }
        .boxed()
    })
    .await;
    bench.ready().await;
    let (outputs, _) = bench.perform(run_of(&video())).await.done();
    assert_eq!(bench.open(&outputs[0]).await, b"moving");
    bench.stop().await;
}

#[tokio::test]
async fn an_attempt_that_was_posted_before_is_not_posted_again() {
    let (mut bench, stub) = against(nothing).await;
    bench.ready().await;
    let run = run_of(&video());
    stub.finish(&prompt_id(run.task, 1));
    assert_eq!(bench.perform(run).await.done().0.len(), 1);

    let queued = run_of(&video());
    let id = prompt_id(queued.task, 1);
    stub.with(|state| state.running.insert(id.clone(), json!([0, id, {}, {}, []])));
    bench.executor.run(queued).await.unwrap();
    assert!(matches!(bench.next().await, Event::Started { .. }));
    stub.finish(&id);
    assert_eq!(bench.story().await.done().0.len(), 1);
    stub.with(|state| assert_eq!(state.posted, Vec::<Value>::new()));
    bench.stop().await;
}

#[tokio::test]
async fn what_cannot_have_been_posted_is_not_looked_for() {
    let (mut bench, stub) = against(|stub, id| async move { stub.finish(&id) }.boxed()).await;
    bench.ready().await;
    let fresh = Run { fresh: true, ..run_of(&video()) };
    stub.finish(&prompt_id(fresh.task, 1));
    assert_eq!(bench.perform(fresh).await.done().0.len(), 1);
    stub.with(|state| assert_eq!(state.posted.len(), 1));
    bench.stop().await;
}

#[tokio::test]
async fn out_of_memory_is_told_apart() {
    let (mut bench, _stub) = against(|stub, id| {
        async move {
            let data = json!({"node_id": "3", "node_type": "KSampler", "exception_type": "torch.OutOfMemoryError",
                "exception_message": "Allocation on device"});
            let status = json!({"status_str": "error", "completed": false, "messages": [["execution_error", data]]});
            stub.end(&id, json!({"outputs": {}, "status": status}));
        }
        .boxed()
    })
    .await;
    bench.ready().await;
    let failure = bench.perform(run_of(&video())).await.failed();
    assert_eq!(failure.class, FailureClass::OutOfMemory);
    assert_eq!(failure.detail, "node 3 (KSampler): torch.OutOfMemoryError: Allocation on device");
    bench.stop().await;
}

#[tokio::test]
async fn a_task_over_its_time_is_stopped() {
    let (mut bench, stub) = against(|stub, id| async move { stub.run(&id) }.boxed()).await;
    bench.ready().await;
    let run = Run { time_limit: Duration::from_millis(20), ..run_of(&video()) };
    assert_eq!(bench.perform(run).await.failed().class, FailureClass::Timeout);
    stub.with(|state| assert!(state.running.is_empty()));
    bench.stop().await;
}

#[tokio::test]
async fn a_prompt_that_does_not_react_keeps_its_slot_from_new_work() {
    let (mut bench, stub) = against(|stub, id| async move { stub.run(&id) }.boxed()).await;
    bench.ready().await;
    stub.with(|state| state.wedged = true);
    let run = Run { time_limit: Duration::from_millis(20), ..run_of(&video()) };
    let id = prompt_id(run.task, 1);
    assert_eq!(bench.perform(run).await.failed().class, FailureClass::Timeout);
    let why = bench.not_ready().await;
    assert!(why.starts_with("a stopped task still runs in ComfyUI"), "{why}");
    stub.with(|state| state.wedged = false);
    bench.ready().await;
    stub.with(|state| assert!(!state.running.contains_key(&id) && state.history.is_empty()));
    bench.stop().await;
}

#[tokio::test]
async fn a_stopping_node_stops_its_prompt() {
    // The stub belongs to another supervisor: it is still there when the node stops.
    let other = Supervisor::new(Duration::from_secs(20));
    let stub = Stub::start(&other.tasks(), |stub, id| async move { stub.run(&id) }.boxed()).await;
    let bench = Bench::attached(EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() }).await;
    bench.ready().await;
    let run = run_of(&video());
    let id = prompt_id(run.task, 1);
    bench.executor.run(run).await.unwrap();
    stub.until(|state| state.running.contains_key(&id)).await;
    bench.stop().await;
    stub.with(|state| assert_eq!(state.interrupted[0], json!({"prompt_id": id})));
}

#[tokio::test]
async fn the_graph_follows_the_name_that_an_upload_got() {
    let (mut bench, stub) = against(|stub, id| async move { stub.finish(&id) }.boxed()).await;
    bench.ready().await;
    let mut graph = video();
    graph["1"] = json!({"class_type": "LoadImage", "inputs": {"image": "plate.png [input]"}});
    let input = bench.seal("plate.png", b"bytes of a plate").await;
    let inputs = vec![input];
    let run = Run { inputs, ..run_of(&graph) };
    let folder = format!("scenemesh/{}-{}-1", bench.owner, run.task.short());
    bench.perform(run).await.done();
    stub.with(|state| {
        let name = format!("{folder}/renamed input0.png");
        assert_eq!(state.posted[0]["prompt"]["1"]["inputs"]["image"], json!(name));
        assert_eq!(state.files[&name], b"bytes of a plate");
        let prefix = state.posted[0]["prompt"]["9"]["inputs"]["filename_prefix"].as_str().unwrap();
        let post = prefix.strip_prefix(&format!("{folder}/")).and_then(|rest| rest.strip_suffix("/v"));
        assert!(post.is_some_and(|post| post.len() == 8 && !post.contains('/')), "{prefix}");
    });
    bench.stop().await;
}

#[tokio::test]
async fn an_input_that_is_not_here_fails_before_anything_is_posted() {
    let (mut bench, stub) = against(nothing).await;
    bench.ready().await;
    let mut graph = video();
    graph["1"] = json!({"class_type": "LoadImage", "inputs": {"image": "plate.png"}});
    let mut input = bench.seal("plate.png", b"bytes").await;
    bench.blobs.remove(input.root).await.unwrap();
    let gone = bench.perform(Run { inputs: vec![input.clone()], ..run_of(&graph) }).await.failed();
    assert_eq!(gone.class, FailureClass::Transfer);
    input = bench.seal("plate.png", b"bytes").await;
    input.bytes += 1;
    let short = bench.perform(Run { inputs: vec![input], ..run_of(&graph) }).await.failed();
    assert_eq!(short.detail, "an input cannot be read: it has 5 bytes, not the 6 announced");
    stub.with(|state| assert_eq!(state.posted, Vec::<Value>::new()));
    bench.stop().await;
}

#[tokio::test]
async fn where_files_would_stay_pictures_come_over_the_socket() {
    let (mut bench, stub) = against(|stub, id| {
        async move {
            stub.until(|state| state.sockets > 0).await;
            stub.run(&id);
            stub.frame("executing", json!({"node": "3", "prompt_id": id}));
            stub.picture(b"\x89PNG a preview");
            stub.frame("executing", json!({"node": "9", "prompt_id": id}));
            stub.picture(b"\x89PNG a result");
            stub.frame("execution_success", json!({"prompt_id": id}));
            let status = json!({"status_str": "success", "messages": []});
            stub.end(&id, json!({"outputs": {}, "status": status}));
        }
        .boxed()
    })
    .await;
    bench.ready().await;
    let story = bench.perform(Run { previews: true, ..run_of(&testing::ksampler()) }).await;
    assert_eq!(story.previews, [("image/png", bytes::Bytes::from_static(b"\x89PNG a preview"))]);
    let (outputs, left) = story.done();
    assert_eq!(left, Vec::new());
    assert_eq!(outputs[0].filename, "scene_001_cut_003_00001_.png");
    assert_eq!(bench.open(&outputs[0]).await, b"\x89PNG a result");
    stub.with(|state| assert_eq!(state.posted[0]["prompt"]["9"]["class_type"], json!("SaveImageWebsocket")));
    bench.stop().await;
}

#[tokio::test]
async fn preflight_needs_no_server() {
    let (bench, stub) = against(nothing).await;
    bench.ready().await;
    let mut graph = testing::ksampler();
    graph["4"]["inputs"]["ckpt_name"] = json!("nope.safetensors");
    let told = |graph: &Value| bench.executor.preflight(SlotId(0), graph.to_string().as_bytes(), &[]);
    assert_eq!(told(&graph).unwrap_err().class, FailureClass::MissingModelOrClass);
    assert_eq!(told(&json!({"nodes": [], "links": []})).unwrap_err().class, FailureClass::InvalidGraph);
    assert!(told(&testing::ksampler()).is_ok());
    stub.with(|state| assert_eq!(state.posted, Vec::<Value>::new()));
    bench.stop().await;
}

/// A supervisor, a stub with folders of its own, and those folders.
pub(super) async fn with_folders(
    on_prompt: impl Fn(Stub, String) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> (Supervisor, Stub, tempfile::TempDir) {
    let supervisor = Supervisor::new(Duration::from_secs(20));
    let stub = Stub::start(&supervisor.tasks(), on_prompt).await;
    let dir = tempfile::tempdir().unwrap();
    for folder in ["input", "output", "temp"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    stub.with(|state| state.base = Some(dir.path().to_owned()));
    (supervisor, stub, dir)
}

pub(super) fn everything_in(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        found.push(entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            found.extend(everything_in(&entry.path()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn folders_are_proved_and_left_as_they_were() {
    let (supervisor, stub, dir) = with_folders(|stub, id| async move { stub.finish(&id) }.boxed()).await;
    let before = everything_in(dir.path());
    let endpoint = EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() };
    let mut bench = Bench::on(supervisor, endpoint).await;
    assert_eq!(bench.ready().await.hygiene, Hygiene::Full);
    let mut graph = video();
    graph["1"] = json!({"class_type": "LoadImage", "inputs": {"image": "plate.png"}});
    let input = bench.seal("plate.png", b"bytes").await;
    let (_, left) = bench.perform(Run { inputs: vec![input], ..run_of(&graph) }).await.done();
    assert_eq!(left, Vec::new());
    assert_eq!(everything_in(dir.path()), before);
    bench.stop().await;
}

#[tokio::test]
async fn leftovers_of_an_earlier_run_are_swept_and_others_kept() {
    let (supervisor, stub, dir) = with_folders(|stub, id| async move { stub.finish(&id) }.boxed()).await;
    for tag in ["amber-aaaaaaaa-1", "amber-bbbbbbbb-1", "birch-aaaaaaaa-1"] {
        let folder = dir.path().join("output/scenemesh").join(tag);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("x.png"), "x").unwrap();
    }
    // The second is still being rendered: it may be asked for again, so it goes only after a while.
    let row = |tag: &str| json!([0, tag, {}, {"scenemesh": tag}, []]);
    stub.with(|state| {
        state.running.insert("amber-bbbbbbbb-1".into(), row("amber-bbbbbbbb-1"));
        state.pending.insert("birch-cccccccc-1".into(), row("birch-cccccccc-1"));
    });
    let endpoint = EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() };
    let bench = Bench::owned_by("amber".into(), supervisor, endpoint).await;
    bench.ready().await;
    assert!(!dir.path().join("output/scenemesh/amber-aaaaaaaa-1").exists());
    bench.until_probed(|| !dir.path().join("output/scenemesh/amber-bbbbbbbb-1").exists()).await;
    stub.with(|state| {
        assert_eq!(state.interrupted[0], json!({"prompt_id": "amber-bbbbbbbb-1"}));
        assert!(state.running.is_empty() && state.pending.contains_key("birch-cccccccc-1"));
    });
    assert!(dir.path().join("output/scenemesh/birch-aaaaaaaa-1/x.png").exists());
    bench.stop().await;
}

#[tokio::test]
async fn memory_counts_as_free_when_it_was_seen_to_go() {
    let (bench, stub) = against(nothing).await;
    stub.with(|state| state.held_mib = Some(9000));
    bench.ready().await;
    let freed = bench.executor.free(SlotId(0)).await;
    assert_eq!(freed.verdict, Verdict::Freed);
    let used = |memory: Option<Memory>| memory.map(|memory| memory.used_mib);
    assert_eq!((used(freed.before), used(freed.after)), (Some(10_000), Some(1100)));
    stub.with(|state| (state.held_mib, state.keeps_cache) = (Some(9000), true));
    assert_eq!(bench.executor.free(SlotId(0)).await.verdict, Verdict::StillHeld, "200 is no proof");
    stub.with(|state| state.held_mib = None);
    let silent = bench.executor.free(SlotId(0)).await;
    assert!(matches!(silent.verdict, Verdict::Unknown { .. }), "{silent:?}");
    assert_eq!(stub.with(|state| state.freed), 3, "it was asked each time");
    bench.stop().await;
}

#[tokio::test]
async fn a_prompt_from_before_a_restart_is_gone_before_memory_is_asked_back() {
    let (mut bench, stub) = against(|stub, id| async move { stub.run(&id) }.boxed()).await;
    bench.ready().await;
    stub.with(|state| state.held_mib = Some(9000));
    let run = run_of(&video());
    let (task, id) = (run.task, prompt_id(run.task, 1));
    bench.executor.run(run).await.unwrap();
    assert!(matches!(bench.next().await, Event::Started { .. }));
    // Another daemon of the same name: it posted nothing, and is asked before it has looked.
    let supervisor = Supervisor::new(Duration::from_secs(20));
    let endpoint = EndpointConfig { url: stub.url.clone(), ..EndpointConfig::default() };
    let again = Bench::owned_by(bench.owner.clone(), supervisor, endpoint).await;
    let early = again.executor.free(SlotId(0)).await;
    assert!(matches!(early.verdict, Verdict::Stuck { .. }), "not yet known to be unwanted: {early:?}");
    again.executor.cancel(task, 1).await;
    let freed = again.executor.free(SlotId(0)).await;
    assert_eq!(freed.verdict, Verdict::Freed, "{freed:?}");
    let interrupted = stub.with(|state| state.interrupted.iter().any(|body| body["prompt_id"] == json!(id)));
    assert!(interrupted);
    again.stop().await;
    bench.stop().await;
}
