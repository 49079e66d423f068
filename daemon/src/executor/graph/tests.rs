use serde_json::json;

use super::*;

fn keyframe() -> Graph {
    Graph::from_value(json!({
        "3": {"class_type": "KSampler", "inputs": {"seed": 42, "model": ["4", 0], "steps": 8}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd\\tiny.safetensors"}},
        "6": {"class_type": "LoadImage", "inputs": {"image": "plate.png [input]"}},
        "12:7": {"class_type": "ADE_LoadAnimateDiffModel", "inputs": {"model_name": "mm.ckpt"}},
        "SaveAudio.0": {"class_type": "SaveAudioAdvanced", "inputs": {"format": "mp3", "format.quality": "V0"}},
    }))
    .unwrap()
}

#[test]
fn a_graph_keeps_its_order_and_survives_a_round_trip() {
    let bytes = br#"{"9":{"class_type":"B","inputs":{}},"10":{"class_type":"A","inputs":{"z":1,"a":2}}}"#;
    let graph = Graph::parse(bytes).unwrap();
    assert_eq!(graph.to_bytes(), bytes);
    assert_eq!(graph.classes(), ["A", "B"]);
}

#[test]
fn a_whole_prompt_body_is_unwrapped() {
    let graph = Graph::parse(br#"{"prompt": {"1": {"class_type": "X"}}, "client_id": "c"}"#).unwrap();
    assert_eq!(graph.to_bytes(), br#"{"1":{"class_type":"X","inputs":{}}}"#);
}

#[test]
fn the_editors_format_is_told_apart() {
    let error =
        Graph::parse(br#"{"last_node_id": 9, "nodes": [], "links": [], "version": 0.4}"#).unwrap_err();
    assert_eq!(error, GraphError::UiFormat);
    assert!(error.to_string().contains("Export (API)"), "{error}");
}

#[test]
fn what_is_not_a_graph_is_said_in_words() {
    let told = |bytes: &[u8]| Graph::parse(bytes).unwrap_err().to_string();
    assert!(told(b"{oops").starts_with("the workflow is not JSON"), "{}", told(b"{oops"));
    assert!(told(b"[1]").contains("not an object"));
    assert!(told(b"{}").contains("no nodes"));
    assert!(told(br#"{"1": {"inputs": {}}}"#).contains("node \"1\" has no class_type"));
    assert!(told(br#"{"1": {"class_type": "A", "inputs": [1]}}"#).contains("inputs of node \"1\""));
}

#[test]
fn limits_hold() {
    assert!(matches!(Graph::parse(&vec![b' '; MAX_BYTES + 1]), Err(GraphError::TooLarge { .. })));
    let many: Map<String, Value> =
        (0..=MAX_NODES).map(|i| (i.to_string(), json!({"class_type": "A"}))).collect();
    assert!(matches!(Graph::from_value(Value::Object(many)), Err(GraphError::TooManyNodes { .. })));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(Graph::parse(deep.as_bytes()), Err(GraphError::TooDeep));
}

#[test]
fn models_and_files_are_found_by_their_inputs() {
    let graph = keyframe();
    assert_eq!(
        graph.models(),
        [
            ModelName::new("animatediff_models", "mm.ckpt"),
            ModelName::new("checkpoints", "sd/tiny.safetensors")
        ]
    );
    let files = graph.file_inputs();
    assert_eq!(files.len(), 1);
    assert_eq!((files[0].node.as_str(), files[0].name()), ("6", "plate.png"));
}

#[test]
fn set_reaches_nodes_and_inputs_with_dots() {
    let mut graph = keyframe();
    graph.set("3.seed", json!(7)).unwrap();
    graph.set("12:7.model_name", json!("other.ckpt")).unwrap();
    graph.set("SaveAudio.0.format.quality", json!("128k")).unwrap();
    assert_eq!(graph.node("3").unwrap().inputs["seed"], json!(7));
    assert_eq!(graph.node("SaveAudio.0").unwrap().inputs["format.quality"], json!("128k"));
    assert_eq!(graph.node("SaveAudio.0").unwrap().inputs["format"], json!("mp3"));
}

#[test]
fn set_on_what_is_not_there_names_what_is() {
    let mut graph = keyframe();
    let told = |error: GraphError| error.to_string();
    let seed = told(graph.set("3.sed", json!(1)).unwrap_err());
    assert_eq!(seed, "node 3 (KSampler) has no input \"sed\"; its inputs are seed, model, steps");
    let node = told(graph.set("5.seed", json!(1)).unwrap_err());
    assert!(node.starts_with("the workflow has no node \"5\"; its nodes are 3 (KSampler)"), "{node}");
    assert!(matches!(graph.set("seed", json!(1)), Err(GraphError::BadPath { .. })));
}

#[test]
fn seeds_are_raised_wherever_they_are_literal() {
    let mut graph = Graph::from_value(json!({
        "1": {"class_type": "KSampler", "inputs": {"seed": u64::MAX}},
        "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}},
        "3": {"class_type": "KSampler", "inputs": {"seed": ["9", 0]}},
        "4": {"class_type": "Seed (rgthree)", "inputs": {"seed": -1}},
    }))
    .unwrap();
    assert_eq!(graph.add_to_seeds(2), 2);
    assert_eq!(graph.node("1").unwrap().inputs["seed"], json!(1));
    assert_eq!(graph.node("2").unwrap().inputs["noise_seed"], json!(7));
    assert_eq!(graph.node("4").unwrap().inputs["seed"], json!(-1));
}

#[test]
fn links_are_told_from_lists() {
    assert_eq!(as_link(&json!(["4", 1])), Some(("4", 1)));
    assert_eq!(as_link(&json!([4, 1])), None);
    assert_eq!(as_link(&json!(["4", 1, 2])), None);
    assert_eq!(as_link(&json!({"__value__": ["4", 1]})), None);
}

#[test]
fn depth_is_bounded_and_brackets_in_strings_are_not_depth() {
    let nested = |levels: usize| {
        let inside = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        Graph::parse(format!(r#"{{"1": {{"class_type": "X", "inputs": {{"a": {inside}}}}}}}"#).as_bytes())
    };
    assert!(nested(MAX_DEPTH - 3).is_ok());
    assert_eq!(nested(MAX_DEPTH - 2), Err(GraphError::TooDeep));
    assert_eq!(nested(100_000), Err(GraphError::TooDeep));
    let text = format!(r#"{{"1": {{"class_type": "X", "inputs": {{"text": "\"{}"}}}}}}"#, "[{".repeat(1000));
    assert!(Graph::parse(text.as_bytes()).is_ok());
}
