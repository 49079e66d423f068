//! What a client may rely on when it talks to ComfyUI. Every check runs against the simulated one, and against the real one that
//! `SCENEMESH_COMFYUI_URL` names; frames and answers are compared with recordings of 0.3.64 in `testnet/data`.

pub(crate) mod judged_alike;
pub(crate) mod refusals;
pub(crate) mod subject;

use scenemesh_testnet::comfyui::Options;
use serde_json::{Value, json};

use judged_alike::prompts_are_judged_alike;
use refusals::{more_prompt_errors, prompt_errors};
use subject::{
    Heard, Subject, fresh, neutral, picture_graph, recorded, recorded_frames, recorded_history, sampler_graph,
};

/// Makes two tests of each check: `NAME::simulated` and `NAME::real`.
macro_rules! contract {
    ($($check:ident),* $(,)?) => { $(
        mod $check {
            use super::*;

            #[tokio::test]
            async fn simulated() {
                super::$check(&Subject::simulated(Options::default()).await).await;
            }

            #[tokio::test]
            async fn real() {
                if let Some(subject) = Subject::real().await {
                    super::$check(&subject).await;
                }
            }
        }
    )* };
}

contract!(
    answers_to_get,
    node_definitions,
    prompt_errors,
    more_prompt_errors,
    prompts_are_judged_alike,
    posts,
    uploads,
    masks,
    view,
    events_of_a_run,
    events_of_a_cached_run,
    legacy_previews,
    previews_with_metadata,
    temporary_outputs,
    streamed_outputs,
    animation_sound_and_text,
    execution_error,
    disk_counters_and_escapes,
    interrupt_by_id,
    interrupt_without_id,
    queue_and_history,
    prompt_ids_and_numbers,
    free_empties_the_cache,
    runs_without_a_client,
    one_socket_per_client,
);

async fn answers_to_get(subject: &Subject) {
    let strict = subject.is_recorded_version().await;
    for (path, recorded) in recorded("gets").as_object().unwrap() {
        let wanted = &recorded["response"].as_object().map_or(recorded, |_| &recorded["response"]);
        let later = ["/global_subgraphs", "/api/jobs", "/node_replacements", "/userdata?dir=workflows"]
            .contains(&path.as_str());
        if later && !strict {
            continue;
        }
        let answer = subject.get(path).await;
        assert_eq!(json!(answer.status), wanted["status"], "GET {path}");
        // Where the recorded body is an object, the answer has its keys.
        if let (Some(wanted), false) = (wanted["body"].as_object(), path.contains("object_info")) {
            for key in wanted.keys().filter(|key| !["bytes", "head_hex"].contains(&key.as_str())) {
                assert!(answer.body.get(key).is_some(), "GET {path} lacks {key}: {}", answer.body);
            }
        }
    }
    let stats = subject.get("/system_stats").await.body;
    let device = &stats["devices"][0];
    for key in ["name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free"] {
        assert!(device.get(key).is_some(), "{device}");
    }
    for (folder, paths) in subject.get("/internal/folder_paths").await.body.as_object().unwrap() {
        let paths = paths.as_array().unwrap();
        assert!(paths.iter().all(|path| path.as_str().unwrap().starts_with('/')), "{folder}: {paths:?}");
    }
    assert_eq!(subject.get("/api/models").await.body, subject.get("/models").await.body);
    assert!(subject.get("/history").await.body.is_object());
}

pub(crate) async fn node_definitions(subject: &Subject) {
    let all = subject.get("/api/object_info").await.body;
    let strict = subject.is_recorded_version().await;
    for (class, mut wanted) in recorded("object_info").as_object().unwrap().clone() {
        let mut given = all[&class].clone();
        if given.is_null() && !strict {
            continue;
        }
        assert_eq!(subject.get(&format!("/object_info/{class}")).await.body, json!({class.as_str(): given}));
        for group in ["required", "optional"] {
            for (input, spec) in
                wanted["input"].get_mut(group).and_then(Value::as_object_mut).into_iter().flatten()
            {
                for place in ["/0", "/1/options"] {
                    let Some(options) = spec
                        .pointer_mut(place)
                        .filter(|options| options.as_str().is_some_and(|name| name.starts_with('@')))
                    else {
                        continue;
                    };
                    let local = given.pointer_mut(&format!("/input/{group}/{input}{place}")).unwrap();
                    assert!(local.as_array().unwrap().iter().all(Value::is_string), "{class}.{input}");
                    (*options, *local) = (json!([]), json!([]));
                }
            }
        }
        if strict {
            assert_eq!(given, wanted, "{class}");
        } else {
            assert_eq!(given["output"], wanted["output"], "{class}");
        }
    }
}

async fn posts(subject: &Subject) {
    for (case, exchange) in recorded("posts").as_object().unwrap() {
        let wanted = &exchange["response"]["status"];
        let Some(path) = exchange["path"].as_str() else {
            let (name, value) = exchange["headers"].as_object().unwrap().iter().next().unwrap();
            let answer = subject.get_with("/queue", (name, value.as_str().unwrap())).await;
            assert_eq!(json!(answer.status), *wanted, "{case}");
            continue;
        };
        // Not on a server that others may be using.
        if subject.simulated.is_none() && case == "queue_clear" {
            continue;
        }
        let body = exchange.get("request").map(Value::to_string).unwrap_or_default();
        let answer = subject.post_text(path, body).await;
        assert_eq!(json!(answer.status), *wanted, "{case}");
    }
}

async fn uploads(subject: &Subject) {
    let name = fresh("upload");
    let file = format!("{name}.png");
    let upload = async |bytes: &[u8], fields: &[(&str, String)]| {
        let answer = subject.upload("/upload/image", &file, bytes, fields).await;
        assert_eq!(answer.status, 200);
        (
            answer.body["name"].as_str().unwrap().to_owned(),
            answer.body["subfolder"].clone(),
            answer.body["type"].clone(),
        )
    };
    let at = |name: &str, subfolder: &str, kind: &str| (name.to_owned(), json!(subfolder), json!(kind));
    let renamed = format!("{name} (1).png");
    assert_eq!(upload(b"one", &[]).await, at(&file, "", "input"));
    assert_eq!(upload(b"one", &[]).await, at(&file, "", "input"), "the same bytes are kept once");
    assert_eq!(upload(b"two", &[]).await, at(&renamed, "", "input"), "other bytes are renamed");
    assert_eq!(upload(b"two", &[]).await, at(&renamed, "", "input"), "and found again under the new name");
    assert_eq!(upload(b"three", &[("overwrite", "true".to_owned())]).await, at(&file, "", "input"));
    assert_eq!(
        upload(b"four", &[("subfolder", format!("{name}/1"))]).await,
        at(&file, &format!("{name}/1"), "input")
    );
    assert_eq!(upload(b"five", &[("type", "temp".to_owned())]).await, at(&file, "", "temp"));

    assert_eq!(subject.get(&format!("/view?filename={file}&type=input")).await.bytes, b"three");
    assert_eq!(
        subject.get(&format!("/view?filename={file}&type=input&subfolder={name}/1")).await.bytes,
        b"four"
    );
    assert_eq!(subject.get(&format!("/view?filename={name}%20(1).png%20[input]")).await.bytes, b"two");
    let listed = subject.get("/object_info/LoadImage").await.body["LoadImage"]["input"]["required"]["image"]
        [0]
    .clone();
    assert!(listed.as_array().unwrap().contains(&json!(file)));
    assert!(!listed.to_string().contains(&format!("{name}/1")), "the list has no subfolders");

    let escape = subject.upload("/upload/image", &file, b"x", &[("subfolder", "../../x".to_owned())]).await;
    assert_eq!(escape.status, 400);
    assert_eq!(
        subject.upload("/upload/image", &file, b"x", &[("type", "nowhere".to_owned())]).await.status,
        500
    );
    assert_eq!(subject.post_text("/upload/image", String::new()).await.status, 400);
}

async fn masks(subject: &Subject) {
    let name = fresh("mask");
    let ran = subject.run(&picture_graph(&name), false).await;
    let original = ran.outputs()["9"]["images"][0].clone();
    let file = format!("{name}.png");
    let mask =
        subject.get(&format!("/view?filename={}&channel=a", original["filename"].as_str().unwrap())).await;
    assert_eq!((mask.status, mask.content_type.as_str()), (200, "image/png"));
    let answer =
        subject.upload("/upload/mask", &file, &mask.bytes, &[("original_ref", original.to_string())]).await;
    assert_eq!((answer.status, &answer.body["name"]), (200, &json!(file)));
    let stored = subject.get(&format!("/view?filename={file}&type=input")).await;
    assert!(stored.bytes.windows(6).any(|part| part == b"prompt"), "the metadata of the original is kept");
}

async fn view(subject: &Subject) {
    let graph = picture_graph(&fresh("view"));
    let workflow = json!({"nodes": [], "note": "하늘"});
    let extra = json!({"prompt": graph, "client_id": fresh("view"), "extra_data": {"extra_pnginfo": {"workflow": workflow}}});
    let mut listener = subject.listen(extra["client_id"].as_str().unwrap()).await;
    let id = subject.post("/prompt", &extra).await.body["prompt_id"].as_str().unwrap().to_owned();
    listener.until_done(&id).await;
    let outputs = subject.get(&format!("/history/{id}")).await.body[&id]["outputs"].clone();
    let file = outputs["9"]["images"][0]["filename"].as_str().unwrap().to_owned();

    let whole = subject.get(&format!("/view?filename={file}&type=output&subfolder=")).await;
    assert_eq!((whole.status, whole.content_type.as_str()), (200, "image/png"));
    let reader = png::Decoder::new(std::io::Cursor::new(&whole.bytes)).read_info().unwrap();
    assert_eq!((reader.info().width, reader.info().height), (512, 288));
    let texts: Vec<(&str, Value)> = reader
        .info()
        .uncompressed_latin1_text
        .iter()
        .map(|chunk| (chunk.keyword.as_str(), serde_json::from_str(&chunk.text).unwrap()))
        .collect();
    assert_eq!(texts, [("prompt", graph), ("workflow", workflow)]);

    assert_eq!(subject.get(&format!("/api/view?filename={file}")).await.bytes, whole.bytes);
    assert_eq!(
        subject.get(&format!("/view?filename={file}&preview=webp;90")).await.content_type,
        "image/webp"
    );
    assert_eq!(
        subject.get(&format!("/view?filename={file}&preview=jpeg;80&channel=rgb")).await.content_type,
        "image/jpeg"
    );
    assert_eq!(subject.get(&format!("/view?filename={file}&channel=rgb")).await.content_type, "image/png");
    for (query, status) in [
        ("filename=none.png", 404),
        ("filename=/etc/passwd", 400),
        ("filename=../main.py", 400),
        ("filename=", 400),
        ("filename=a.png&type=nowhere", 400),
        ("filename=a.png&subfolder=../..", 403),
    ] {
        assert_eq!(subject.get(&format!("/view?{query}")).await.status, status, "{query}");
    }
}

async fn events_of_a_run(subject: &Subject) {
    let ran = subject.run(&picture_graph(&fresh("run")), false).await;
    assert_eq!(ran.neutral_frames(), recorded_frames("run-empty-invert"));
    assert_eq!(neutral(&ran.history[&ran.id]), recorded_history("run-empty-invert"));
}

async fn events_of_a_cached_run(subject: &Subject) {
    let graph = picture_graph(&fresh("cached"));
    let first = subject.run(&graph, false).await;
    let second = subject.run(&graph, false).await;
    assert_eq!(second.neutral_frames(), recorded_frames("run-empty-invert-cached"));
    assert_eq!(neutral(&second.history[&second.id]), recorded_history("run-empty-invert-cached"));
    assert_eq!(first.outputs(), second.outputs(), "nothing new was written");
}

async fn legacy_previews(subject: &Subject) {
    subject.sweep().await;
    let ran = subject.run(&sampler_graph(&subject.checkpoint().await, 42, 3), false).await;
    assert_eq!(ran.neutral_frames(), recorded_frames("run-ksampler-preview-legacy"));
    assert_eq!(neutral(&ran.history[&ran.id]), recorded_history("run-ksampler-preview-legacy"));
    for bytes in ran
        .frames
        .iter()
        .filter_map(|frame| if let Heard::Binary(bytes) = frame { Some(bytes) } else { None })
    {
        assert!(bytes[8..].starts_with(&[0xff, 0xd8]) && bytes.ends_with(&[0xff, 0xd9]), "a whole JPEG");
        let size =
            bytes[8..].windows(9).find(|part| part[..2] == [0xff, 0xc0]).map(|part| part[5..9].to_vec());
        assert_eq!(size, Some(vec![2, 0, 2, 0]), "enlarged to 512 by 512");
    }
}

async fn previews_with_metadata(subject: &Subject) {
    let checkpoint = subject.checkpoint().await;
    subject.run(&sampler_graph(&checkpoint, 42, 3), true).await;
    let ran = subject.run(&sampler_graph(&checkpoint, 43, 3), true).await;
    assert_eq!(ran.neutral_frames(), recorded_frames("run-ksampler-preview-metadata"));
    let binary = ran
        .frames
        .iter()
        .filter_map(|frame| if let Heard::Binary(bytes) = frame { Some(bytes) } else { None });
    for bytes in binary {
        let length = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
        let metadata: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let wanted = json!({
            "node_id": "3", "prompt_id": ran.id, "display_node_id": "3", "parent_node_id": null, "real_node_id": "3",
            "image_type": "image/jpeg",
        });
        assert_eq!(metadata, wanted);
        assert!(bytes[8 + length..].starts_with(&[0xff, 0xd8]));
    }
}

async fn temporary_outputs(subject: &Subject) {
    let mut graph = picture_graph(&fresh("temporary"));
    subject.run(&graph, false).await;
    graph["9"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}});
    let ran = subject.run(&graph, false).await;
    assert_eq!(ran.neutral_frames(), recorded_frames("run-preview-image"));
    let file = &ran.outputs()["9"]["images"][1];
    let query = format!("/view?filename={}&type=temp", file["filename"].as_str().unwrap());
    assert_eq!(subject.get(&query).await.status, 200);
}

async fn streamed_outputs(subject: &Subject) {
    if subject.get("/object_info/SaveImageWebsocket").await.body == json!({}) {
        return;
    }
    let mut graph = picture_graph(&fresh("stream"));
    graph["9"] = json!({"class_type": "SaveImageWebsocket", "inputs": {"images": ["2", 0]}});
    let ran = subject.run(&graph, false).await;
    assert_eq!(ran.neutral_frames(), recorded_frames("run-save-image-websocket"));
    assert_eq!(ran.outputs(), json!({}));
    let again = subject.run(&graph, false).await;
    assert_eq!(again.events("execution_cached")[0]["nodes"], json!(["1", "2"]), "it is never cached itself");
}

async fn animation_sound_and_text(subject: &Subject) {
    let name = fresh("media");
    let graph = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 8, "color": 7}},
        "2": {"class_type": "SaveAnimatedWEBP", "inputs": {
            "images": ["1", 0], "filename_prefix": name, "fps": 8.0, "lossless": false, "quality": 80, "method": "default",
        }},
        "3": {"class_type": "EmptyAudio", "inputs": {"duration": 0.25, "sample_rate": 44100, "channels": 2}},
        "4": {"class_type": "SaveAudio", "inputs": {"audio": ["3", 0], "filename_prefix": format!("audio/{name}")}},
        "5": {"class_type": "StringConcatenate", "inputs": {"string_a": "a", "string_b": name, "delimiter": "-"}},
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
    });
    let outputs = subject.run(&graph, false).await.outputs();
    let animation = json!({"images": [{"filename": format!("{name}_00001_.webp"), "subfolder": "", "type": "output"}], "animated": [true]});
    let sound = json!({"audio": [{"filename": format!("{name}_00001_.flac"), "subfolder": "audio", "type": "output"}]});
    assert_eq!(outputs["2"], animation);
    assert_eq!(outputs["4"], sound);
    assert_eq!(outputs["6"], json!({"text": [format!("a-{name}")]}));
    let webp = subject.get(&format!("/view?filename={name}_00001_.webp")).await;
    assert!(webp.bytes.starts_with(b"RIFF") && webp.content_type == "image/webp");
    let flac = subject.get(&format!("/view?filename={name}_00001_.flac&subfolder=audio")).await;
    assert!(flac.bytes.starts_with(b"fLaC"), "{}", flac.content_type);
}

async fn execution_error(subject: &Subject) {
    let answer = subject
        .upload("/upload/image", "broken.png", b"not a picture", &[("overwrite", "true".to_owned())])
        .await;
    assert_eq!(answer.status, 200);
    let graph = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "broken.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    });
    let ran = subject.run(&graph, false).await;
    assert_eq!(ran.neutral_frames(), recorded_frames("run-execution-error"));
    assert_eq!(neutral(&ran.history[&ran.id]), recorded_history("run-execution-error"));
}

async fn disk_counters_and_escapes(subject: &Subject) {
    let name = fresh("counter");
    let mut graph = picture_graph(&name);
    let mut names = Vec::new();
    for round in 0..2 {
        graph["1"]["inputs"]["color"] = json!(round);
        graph["9"]["inputs"]["filename_prefix"] = json!(format!("{name}/%width%/cut"));
        let outputs = subject.run(&graph, false).await.outputs();
        let images = outputs["9"]["images"].as_array().unwrap().clone();
        assert!(images.iter().all(|image| image["subfolder"] == format!("{name}/512")));
        names.extend(images.iter().map(|image| image["filename"].as_str().unwrap().to_owned()));
    }
    assert_eq!(names, ["cut_00001_.png", "cut_00002_.png", "cut_00003_.png", "cut_00004_.png"]);

    graph["9"]["inputs"]["filename_prefix"] = json!("../../x");
    let ran = subject.run(&graph, false).await;
    let error = &ran.events("execution_error")[0];
    assert_eq!(error["exception_type"], "Exception");
    let message = error["exception_message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "**** ERROR: Saving image outside the output folder is not allowed.\n full_output_folder: "
        ),
        "{message}"
    );
}

async fn interrupt_by_id(subject: &Subject) {
    let checkpoint = subject.checkpoint().await;
    subject.run(&sampler_graph(&checkpoint, 1, 1), false).await;
    let client_id = fresh("interrupt");
    let mut listener = subject.listen(&client_id).await;
    let id = subject.submit(&sampler_graph(&checkpoint, 44, 2000), &client_id).await;
    let mut frames = listener.until("progress").await;
    assert_eq!(subject.post("/interrupt", &json!({"prompt_id": "none"})).await.status, 200);
    frames.extend(listener.until("progress").await);
    assert_eq!(subject.post("/interrupt", &json!({"prompt_id": id})).await.status, 200);
    frames.extend(listener.until_done(&id).await);

    let history = subject.get(&format!("/history/{id}")).await.body;
    let ran = subject::Ran { id, frames, history };
    let passing = |frame: &Value| {
        frame["type"] == "progress" || frame["type"] == "progress_state" || frame.get("event").is_some()
    };
    let without_steps =
        |frames: Vec<Value>| frames.into_iter().filter(|frame| !passing(frame)).collect::<Vec<_>>();
    assert_eq!(without_steps(ran.neutral_frames()), without_steps(recorded_frames("run-interrupted")));
    let mut wanted = recorded_history("run-interrupted");
    wanted["prompt"][2]["3"]["inputs"]["steps"] = json!(2000);
    assert_eq!(neutral(&ran.history[&ran.id]), wanted);
}

async fn interrupt_without_id(subject: &Subject) {
    let checkpoint = subject.checkpoint().await;
    let (mine, other) = (fresh("mine"), fresh("other"));
    let mut listener = subject.listen(&mine).await;
    let id = subject.submit(&sampler_graph(&checkpoint, 45, 2000), &mine).await;
    listener.until("progress").await;
    let answer = subject.post("/interrupt", &json!({"client_id": other})).await;
    assert_eq!(answer.status, 200);
    let frames = listener.until_done(&id).await;
    assert!(frames.iter().any(|frame| frame.is("execution_interrupted")), "whoever asks, what runs is hit");
}

async fn queue_and_history(subject: &Subject) {
    let checkpoint = subject.checkpoint().await;
    let client_id = fresh("queue");
    let mut listener = subject.listen(&client_id).await;
    let long = sampler_graph(&checkpoint, 46, 2000);
    let running = subject.submit(&long, &client_id).await;
    listener.until("progress").await;
    let body = json!({
        "prompt": picture_graph(&client_id), "client_id": client_id, "extra_data": {"api_key_comfy_org": "secret", "kept": 1},
    });
    let pending = subject.post("/prompt", &body).await.body["prompt_id"].as_str().unwrap().to_owned();

    let queue = subject.get("/queue").await.body;
    let now = &queue["queue_running"][0];
    assert_eq!(now.as_array().unwrap().len(), 5);
    assert_eq!(
        (&now[1], &now[3], &now[4]),
        (&json!(running), &json!({"client_id": client_id}), &json!(["9"]))
    );
    assert_eq!(
        now[2]["3"]["inputs"]["denoise"].to_string(),
        "1.0",
        "literals are converted to their input's type"
    );
    let waiting = queue["queue_pending"].as_array().unwrap().iter().find(|row| row[1] == pending).unwrap();
    assert_eq!(waiting[3], json!({"api_key_comfy_org": "secret", "kept": 1, "client_id": client_id}));
    assert!(subject.get("/prompt").await.body["exec_info"]["queue_remaining"].as_u64().unwrap() >= 2);
    assert_eq!(subject.get(&format!("/history/{pending}")).await.body, json!({}));

    subject.post("/queue", &json!({"delete": [pending]})).await;
    assert!(!subject.get("/queue").await.body.to_string().contains(&pending));
    subject.post("/interrupt", &json!({"prompt_id": running})).await;
    listener.until_done(&running).await;
    let again = subject.post("/prompt", &body).await.body["prompt_id"].as_str().unwrap().to_owned();
    listener.until_done(&again).await;

    let newest = subject.get("/history?max_items=1").await.body;
    let entry = &newest[&again];
    assert_eq!(
        entry["prompt"][3],
        json!({"kept": 1, "client_id": client_id}),
        "keys of comfy.org are not kept"
    );
    assert_eq!(entry["status"]["status_str"], "success");
    subject.post("/history", &json!({"delete": [again]})).await;
    assert_eq!(subject.get(&format!("/history/{again}")).await.body, json!({}));
    let gone = subject.get("/view?filename=scene_001_cut_003_00001_.png").await;
    assert_eq!(gone.status, 200, "deleting the history deletes no file");
}

async fn prompt_ids_and_numbers(subject: &Subject) {
    let id = fresh("my-own-id-");
    let post = async |fields: Value| {
        let mut body = json!({"prompt": picture_graph(&id)});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        subject.post("/prompt", &body).await.body
    };
    if subject.is_recorded_version().await {
        assert_eq!(post(json!({"prompt_id": id})).await["prompt_id"], json!(id));
    }
    let first = post(json!({})).await["number"].as_i64().unwrap();
    assert_eq!(post(json!({})).await["number"], json!(first + 1));
    assert_eq!(post(json!({"front": true})).await["number"], json!(-first - 2));
    assert_eq!(post(json!({"number": 7})).await["number"].to_string(), "7.0");
    assert_eq!(post(json!({})).await["number"], json!(first + 3));
}

async fn free_empties_the_cache(subject: &Subject) {
    let graph = picture_graph(&fresh("free"));
    subject.run(&graph, false).await;
    let cached = subject.run(&graph, false).await.events("execution_cached")[0]["nodes"].clone();
    assert_eq!(cached, json!(["1", "2", "9"]));
    let answer = subject.post("/free", &json!({"unload_models": true, "free_memory": true})).await;
    assert_eq!(answer.status, 200);
    // The worker takes notice between two prompts: before the next one, or after it.
    let mut cached = Vec::new();
    for _ in 0..2 {
        cached.push(subject.run(&graph, false).await.events("execution_cached")[0]["nodes"].clone());
    }
    assert!(cached.contains(&json!([])), "{cached:?}");
}

/// Without a client id nobody is told of the run, but its progress goes to everyone.
async fn runs_without_a_client(subject: &Subject) {
    let bystander = fresh("bystander");
    let mut listener = subject.listen(&bystander).await;
    let answer =
        subject.post("/prompt", &json!({"prompt": sampler_graph(&subject.checkpoint().await, 47, 2)})).await;
    let id = answer.body["prompt_id"].as_str().unwrap().to_owned();
    // The end of a run of one's own comes after all that was said of the other.
    let own = subject.submit(&picture_graph(&bystander), &bystander).await;
    let frames = listener.until_done(&own).await;
    let of_it: Vec<&str> = frames
        .iter()
        .filter_map(Heard::text)
        .filter(|text| text["data"]["prompt_id"] == id)
        .map(|text| text["type"].as_str().unwrap())
        .collect();
    assert!(of_it.contains(&"progress") && of_it.contains(&"progress_state"), "{of_it:?}");
    assert!(of_it.iter().all(|kind| ["progress", "progress_state"].contains(kind)), "{of_it:?}");
    assert!(frames.iter().any(|frame| matches!(frame, Heard::Binary(_))), "and so do its previews");
    assert_eq!(subject.get(&format!("/history/{id}")).await.body[&id]["status"]["status_str"], "success");
}

/// A second socket with the same id replaces the first; and closing the first then silences the second.
async fn one_socket_per_client(subject: &Subject) {
    let client_id = fresh("twice");
    let mut first = subject.listen(&client_id).await;
    first.next().await;
    let mut second = subject.listen(&client_id).await;
    second.next().await;
    let id = subject.submit(&picture_graph(&client_id), &client_id).await;
    let heard = second.until_done(&id).await;
    assert!(heard.iter().any(|frame| frame.is("executed")));
    if !subject.is_recorded_version().await {
        return;
    }
    first.close().await;
    let witness_id = fresh("witness");
    let mut witness = subject.listen(&witness_id).await;
    let unheard = subject.submit(&picture_graph(&fresh("unheard")), &client_id).await;
    let own = subject.submit(&picture_graph(&witness_id), &witness_id).await;
    witness.until_done(&own).await;
    assert_eq!(subject.get(&format!("/history/{unheard}")).await.body[&unheard]["status"]["completed"], true);
    // The second socket was told nothing of it: the next thing it hears is the answer to its own close.
    second.close_unheard().await;
}
