//! What the simulated ComfyUI does wrong on demand, and what it keeps for the tests that read it.

use scenemesh_testnet::comfyui::{Ended, LogEvent, Options, RunOutcome};
use serde_json::json;

use crate::comfyui_contract::subject::{Heard, Subject, picture_graph, sampler_graph};

const MODEL: &str = "tiny_sd15.safetensors";

async fn faulty(faults: &[&str]) -> Subject {
    let faults = faults.iter().map(|fault| fault.parse().unwrap()).collect();
    Subject::simulated(Options { faults, step_ms: 1, ..Options::default() }).await
}

#[tokio::test]
async fn equal_graphs_give_equal_files_on_two_machines_and_another_seed_another_picture() {
    let mut pictures = Vec::new();
    for seed in [1, 1, 2] {
        let subject = faulty(&[]).await;
        let ran = subject.run(&sampler_graph(MODEL, seed, 2), false).await;
        let file = ran.outputs()["9"]["images"][0]["filename"].as_str().unwrap().to_owned();
        let bytes = subject.get(&format!("/view?filename={file}")).await.bytes;
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pictures.push(pixels);
    }
    assert_eq!(pictures[0], pictures[1]);
    assert_ne!(pictures[0], pictures[2]);
}

#[tokio::test]
async fn the_log_tells_who_rendered_what_and_how_often() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runs.jsonl");
    let options = Options { log: Some(path.clone()), load_ms: 1, ..Options::default() };
    let subject = Subject::simulated(options).await;
    let ids = [
        subject.run(&sampler_graph(MODEL, 5, 3), false).await.id,
        subject.run(&sampler_graph(MODEL, 5, 3), false).await.id,
    ];
    let log = subject.simulated.as_ref().unwrap().log();
    log.until(|lines| {
        lines.iter().filter(|line| matches!(line.event, LogEvent::Finished { .. })).count() == 2
    })
    .await;
    let runs = log.runs();
    assert_eq!(runs.iter().map(|run| run.prompt_id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!(
        runs.iter().map(|run| (run.seed, run.steps)).collect::<Vec<_>>(),
        [(Some(5), 3), (Some(5), 0)],
        "the second was cached"
    );
    assert!(runs.iter().all(|run| run.finished.is_some_and(|(_, outcome)| outcome == RunOutcome::Success)));
    let loads = log.lines().iter().filter(|line| matches!(line.event, LogEvent::Loaded { .. })).count();
    assert_eq!(loads, 1, "the model stays warm");
    let written = std::fs::read_to_string(path).unwrap();
    assert_eq!(written.lines().count(), log.lines().len());
    assert!(written.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[tokio::test]
async fn success_is_told_before_the_history_has_it() {
    let subject = Subject::simulated(Options { history_lag_ms: 300, ..Options::default() }).await;
    let mut listener = subject.listen("lag").await;
    let id = subject.submit(&picture_graph("lag"), "lag").await;
    listener.until("execution_success").await;
    assert_eq!(subject.get(&format!("/history/{id}")).await.body, json!({}));
    listener.until_done(&id).await;
    assert_ne!(subject.get(&format!("/history/{id}")).await.body, json!({}));
}

#[tokio::test]
async fn a_stall_ends_with_an_interrupt() {
    let subject = faulty(&["stall@2"]).await;
    let mut listener = subject.listen("stall").await;
    let id = subject.submit(&sampler_graph(MODEL, 1, 4), "stall").await;
    let log = subject.simulated.as_ref().unwrap().log();
    log.until(|lines| lines.iter().any(|line| matches!(line.event, LogEvent::Struck { .. }))).await;
    assert_eq!(log.runs()[0].steps, 1);
    subject.post("/interrupt", &json!({"prompt_id": id})).await;
    let frames = listener.until_done(&id).await;
    assert!(frames.iter().any(|frame| frame.is("execution_interrupted")));
}

#[tokio::test]
async fn a_silent_socket_stays_open_while_the_work_goes_on() {
    let subject = faulty(&["silent@2"]).await;
    let mut listener = subject.listen("silent").await;
    let id = subject.submit(&sampler_graph(MODEL, 1, 4), "silent").await;
    listener.until("progress").await;
    let log = subject.simulated.as_ref().unwrap().log();
    log.until(|lines| lines.iter().any(|line| matches!(line.event, LogEvent::Finished { .. }))).await;
    assert_eq!(subject.get(&format!("/history/{id}")).await.body[&id]["status"]["completed"], true);
    let mut fresh = subject.listen("silent").await;
    assert!(fresh.next().await.is("status"), "a new socket hears again");
}

#[tokio::test]
async fn a_crash_cuts_every_connection() {
    let subject = faulty(&["crash@2"]).await;
    let mut listener = subject.listen("crash").await;
    subject.submit(&sampler_graph(MODEL, 1, 4), "crash").await;
    listener.until("progress").await;
    listener.until_cut().await;
    let simulated = subject.simulated.unwrap();
    assert_eq!(simulated.ended().await, Ended::Crashed);
    let addr = simulated.addr();
    simulated.stop().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn stopping_in_the_middle_of_a_run_leaves_nothing_running() {
    let mut subject = Subject::simulated(Options { step_ms: 60_000, ..Options::default() }).await;
    let mut listener = subject.listen("stop").await;
    subject.submit(&sampler_graph(MODEL, 1, 4), "stop").await;
    listener.until("executing").await;
    subject.simulated.take().unwrap().stop().await;
    listener.until_cut().await;
}

#[tokio::test]
async fn out_of_memory_and_a_full_disk_are_errors_of_the_real_kind() {
    let subject = faulty(&["oom@1*1", "disk-full*1"]).await;
    let error = subject.run(&sampler_graph(MODEL, 1, 4), false).await.events("execution_error")[0].clone();
    assert_eq!(
        (&error["exception_type"], &error["node_type"]),
        (&json!("torch.OutOfMemoryError"), &json!("KSampler"))
    );
    assert!(error["exception_message"].as_str().unwrap().contains("ran out of memory on your GPU"));
    let error = subject.run(&picture_graph("disk"), false).await.events("execution_error")[0].clone();
    assert_eq!((&error["exception_type"], &error["node_type"]), (&json!("OSError"), &json!("SaveImage")));
    assert!(
        error["exception_message"].as_str().unwrap().starts_with("[Errno 28] No space left on device: '")
    );
    let ran = subject.run(&picture_graph("disk"), false).await;
    assert_eq!(ran.history[&ran.id]["status"]["completed"], true, "it struck once");
}

#[tokio::test]
async fn lies_black_pictures_and_cut_files_are_saved_as_if_all_were_well() {
    for (fault, well_formed) in [("lie", true), ("black", true), ("corrupt", false)] {
        let subject = faulty(&[fault]).await;
        let file = subject.run(&picture_graph("lie"), false).await.outputs()["9"]["images"][0]["filename"]
            .as_str()
            .unwrap()
            .to_owned();
        let bytes = subject.get(&format!("/view?filename={file}")).await.bytes;
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![1; reader.output_buffer_size().unwrap()];
        assert_eq!(reader.next_frame(&mut pixels).is_ok(), well_formed, "{fault}");
        let uniform = pixels.chunks(3).all(|pixel| pixel == &pixels[..3]);
        assert_eq!(uniform, fault == "black", "{fault}");
    }
}

#[tokio::test]
async fn garbage_missing_paths_and_missing_classes_are_what_they_say() {
    let subject = faulty(&["garbage*2", "no-folder-paths"]).await;
    let answer = subject.get("/object_info").await;
    assert_eq!((answer.status, answer.body.is_null()), (200, true));
    assert!(subject.get("/history").await.body.is_null());
    assert!(subject.get("/history").await.body.is_object(), "it was told to do so twice");
    assert_eq!(subject.get("/internal/folder_paths").await.status, 404);
    let argv = subject.get("/system_stats").await.body["system"]["argv"].to_string();
    assert!(!argv.contains("base-directory"), "{argv}");

    let options = Options {
        without: vec!["KSampler".to_owned()],
        with: vec!["RunShell".to_owned()],
        ..Options::default()
    };
    let subject = Subject::simulated(options).await;
    assert_eq!(subject.get("/object_info/KSampler").await.body, json!({}));
    let ran = subject.run(&json!({"1": {"class_type": "RunShell", "inputs": {}}}), false).await;
    assert_eq!(ran.outputs(), json!({"1": {"text": ["RunShell"]}}));
}

#[tokio::test]
async fn an_upload_can_be_the_last_thing_it_does() {
    let subject = faulty(&["die-mid-upload"]).await;
    let mut listener = subject.listen("upload").await;
    let request = subject.try_upload("a.png", &[0; 1 << 20]).await;
    assert!(request.is_err(), "{request:?}");
    listener.until_cut().await;
    assert_eq!(subject.simulated.unwrap().ended().await, Ended::Crashed);
}

#[tokio::test]
async fn a_wedged_machine_hears_no_interrupt() {
    let subject = faulty(&["wedge"]).await;
    let mut listener = subject.listen("wedge").await;
    let id = subject.submit(&picture_graph("wedge"), "wedge").await;
    listener.until("executing").await;
    subject.post("/interrupt", &json!({"prompt_id": id})).await;
    let queue = subject.get("/queue").await.body;
    assert_eq!(queue["queue_running"][0][1], json!(id));
    subject.simulated.unwrap().set_faults(Vec::new());
    assert!(
        !matches!(listener.until_cut().await.last(), Some(Heard::Text(text)) if text["type"] == "execution_interrupted")
    );
}
