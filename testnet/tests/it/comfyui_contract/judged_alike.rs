//! The gateway judges a prompt before any ComfyUI sees it: in the same words, whatever is wrong.

use std::sync::Arc;
use std::time::Duration;

use scenemesh_protocol::advert::Inventory;
use scenemeshd::executor::definitions::Definitions;
use scenemeshd::gateway::catalog::{Catalog, Offering, Verdict};
use scenemeshd::messages::Lang;
use serde_json::{Map, Value, json};
use tokio::time::{interval, timeout};

use super::subject::{Subject, neutral, picture_graph, recorded, sampler_graph};

const SOON: Duration = Duration::from_mins(1);

/// A pool of one node: the ComfyUI under test.
async fn pool_of(subject: &Subject) -> (Catalog, Vec<String>) {
    let info = subject.get("/object_info").await;
    let files = info.body["LoadImage"]["input"]["required"]["image"][0].as_array().unwrap();
    let files = files.iter().map(|file| file.as_str().unwrap().to_owned()).collect();
    let definitions = Definitions::read(&info.bytes).unwrap();
    let mut classes: Vec<String> = info.body.as_object().unwrap().keys().cloned().collect();
    classes.sort();
    let offering = Offering {
        node: "amber".into(),
        inventory: Arc::new(Inventory { classes, models: Vec::new() }),
        definitions: Some(Arc::new(definitions)),
    };
    (Catalog::of(vec![offering]), files)
}

/// What a client would hear: status, `error`, `node_errors`.
fn told(catalog: &Catalog, files: &[String], prompt: &Map<String, Value>) -> (u16, Value) {
    match catalog.validate(prompt, None, &|name| files.iter().any(|file| file == name)) {
        Verdict::Fine { node_errors, .. } => (200, json!({"node_errors": node_errors})),
        Verdict::Refused(refusal) => (400, refusal.body(prompt, Lang::En)),
        Verdict::Unjudged => panic!("the node has told everything"),
    }
}

pub(crate) async fn prompts_are_judged_alike(subject: &Subject) {
    let checkpoint = subject.checkpoint().await;
    let (catalog, files) = pool_of(subject).await;
    let recorded = recorded("prompt-errors");
    let recorded = recorded.as_object().unwrap().iter().filter_map(|(case, exchange)| {
        let prompt = exchange["request"].get("prompt")?.as_object()?.clone();
        Some((case.clone(), Value::Object(prompt)))
    });
    let mut cases: Vec<(String, Value)> = recorded.collect();
    assert!(cases.len() > 8, "the recordings hold prompts");
    cases.extend(more_cases().into_iter().map(|(case, prompt)| (case.to_owned(), prompt)));
    cases.push(("a good picture".into(), picture_graph("judged")));
    cases.push(("a good sampler".into(), sampler_graph(&checkpoint, 1, 2)));
    for (case, prompt) in cases {
        let text = prompt.to_string().replace("tiny_sd15.safetensors", &checkpoint);
        let prompt: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let mut answer = subject.post("/prompt", &json!({"prompt": prompt})).await;
        let (status, mut said) = told(&catalog, &files, &prompt);
        assert_eq!(status, answer.status, "{case}: {said}\nComfyUI: {}", answer.body);
        for part in ["error", "node_errors"] {
            let (said, theirs) = (&mut said[part].take(), &mut answer.body[part].take());
            if case == IN_ANY_ORDER {
                forget_dependents(said);
                forget_dependents(theirs);
            }
            assert_eq!(neutral(said), neutral(theirs), "{case}: {part}");
        }
        if let Some(id) = answer.body["prompt_id"].as_str() {
            is_over(subject, id).await;
        }
    }
}

/// Core takes outputs in the order of a Python set, which differs from start to start; an output that comes later is said to
/// depend on the mistakes of those before it too.
const IN_ANY_ORDER: &str = "mistakes of two outputs";

fn forget_dependents(node_errors: &mut Value) {
    for (_, errors) in node_errors.as_object_mut().into_iter().flatten() {
        let dependents = errors.as_object_mut().and_then(|errors| errors.remove("dependent_outputs"));
        assert!(dependents.is_some_and(|dependents| dependents.is_array()), "each names its outputs");
    }
}

/// Whoever comes next finds the queue empty.
async fn is_over(subject: &Subject, id: &str) {
    // Where jobs can be cancelled, nobody needs to wait for this one.
    subject.post(&format!("/api/jobs/{id}/cancel"), &json!({})).await;
    let over = timeout(SOON, async {
        let mut looks = interval(Duration::from_millis(50));
        while subject.get("/queue").await.body.to_string().contains(id) {
            looks.tick().await;
        }
    });
    over.await.expect("what was accepted ends");
}

/// Mistakes without a recording.
fn more_cases() -> Vec<(&'static str, Value)> {
    let save = |source: Value| json!({"class_type": "SaveImage", "inputs": {"images": source, "filename_prefix": "x"}});
    let empty = |colour: Value| json!({"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": colour}});
    let with = |colour: Value| json!({"1": empty(colour), "2": save(json!(["1", 0]))});
    vec![
        (
            "no such file",
            json!({"1": {"class_type": "LoadImage", "inputs": {"image": "no such file.png"}}, "2": save(json!(["1", 0]))}),
        ),
        ("not a number", with(json!("red"))),
        ("null", with(json!(null))),
        ("numeric text", with(json!(" 255 "))),
        ("a fraction where a whole number goes", with(json!(3.7))),
        ("truth", with(json!(true))),
        ("an object", with(json!({"r": 1}))),
        ("wrapped", with(json!({"__value__": 7}))),
        ("below the least", with(json!(-1))),
        ("a link of one", json!({"1": empty(json!(0)), "2": save(json!(["1"]))})),
        ("an output that is not there", json!({"1": empty(json!(0)), "2": save(json!(["1", 5]))})),
        ("an output from the end", json!({"1": empty(json!(0)), "2": save(json!(["1", -1]))})),
        ("an output that is no number", json!({"1": empty(json!(0)), "2": save(json!(["1", "0"]))})),
        ("a node that is a number", json!({"1": empty(json!(0)), "2": save(json!([1, 0]))})),
        ("no class", json!({"1": {"inputs": {}}})),
        ("no inputs", json!({"1": {"class_type": "PreviewAny"}})),
        (
            "a long list",
            json!({"1": {"class_type": "KSampler", "inputs": {"sampler_name": "nope"}},
                "2": {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0]}}, "3": save(json!(["2", 0]))}),
        ),
        (
            "a short list",
            json!({"1": empty(json!(0)), "2": {"class_type": "ImageScaleBy", "inputs":
                {"image": ["1", 0], "upscale_method": "it's", "scale_by": 2}}, "3": save(json!(["2", 0]))}),
        ),
        (
            "two outputs on one mistake",
            json!({"1": empty(json!(-1)), "2": save(json!(["1", 0])), "3": save(json!(["1", 0]))}),
        ),
        (
            IN_ANY_ORDER,
            json!({"1": empty(json!(-1)), "2": save(json!(["1", 0])), "3": empty(json!("x")), "4": save(json!(["3", 0])),
                "5": empty(json!(1)), "6": save(json!(["5", 0]))}),
        ),
        (
            "a leftover that nobody needs",
            json!({"1": empty(json!(0)), "2": save(json!(["1", 0])), "3": {"class_type": "ImageInvert", "inputs": {}}}),
        ),
    ]
}
