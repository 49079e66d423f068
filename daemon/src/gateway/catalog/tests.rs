//! Pools of a few nodes with a handful of classes.

use super::*;
use crate::executor::MOST_DEFINITIONS;
use crate::executor::definitions::BadDefinitions;
use crate::messages::Lang;

fn checkpoints(names: &[&str]) -> Value {
    json!({"input": {"required": {"ckpt_name": [names, {"tooltip": "which"}]}}, "output": ["MODEL", "CLIP", "VAE"],
        "output_node": false})
}

fn save() -> Value {
    json!({"input": {"required": {"images": ["IMAGE", {}], "filename_prefix": ["STRING", {"default": "x"}]},
        "hidden": {"prompt": "PROMPT"}}, "output": [], "output_node": true})
}

fn paint() -> Value {
    json!({"input": {"required": {"steps": ["INT", {"min": 1, "max": 100}], "cfg": ["FLOAT", {"max": 100.0}]},
        "optional": {"model": ["MODEL"], "under": ["IMAGE"], "how": [["oil", "ink"]]}}, "output": ["IMAGE"],
        "output_node": false})
}

fn node(name: &str, definitions: Value, models: &[(&str, &str)]) -> Offering {
    let definitions = Definitions::read(definitions.to_string().as_bytes()).unwrap();
    let names = definitions.iter().map(|(class, _)| class.clone()).collect();
    Offering { definitions: Some(Arc::new(definitions)), ..named(name, names, models) }
}

fn named(name: &str, mut classes: Vec<String>, models: &[(&str, &str)]) -> Offering {
    classes.sort();
    let mut models: Vec<ModelName> =
        models.iter().map(|(folder, name)| ModelName::new(*folder, name)).collect();
    models.sort();
    Offering { node: name.into(), inventory: Arc::new(Inventory { classes, models }), definitions: None }
}

/// `amber` has one checkpoint, `birch` another and a class of its own.
fn pool() -> Catalog {
    let amber = json!({"Save": save(), "Checkpoint": checkpoints(&["film/a.ckpt"]), "Paint": paint()});
    let birch = json!({"Paint": paint(), "Checkpoint": checkpoints(&["film\\a.ckpt", "film\\b.ckpt"]),
        "Save": save(), "Frame": paint()});
    Catalog::of(vec![
        node("amber", amber, &[("checkpoints", "film/a.ckpt")]),
        node("birch", birch, &[("checkpoints", "film\\b.ckpt"), ("embeddings", "glow.v2.pt")]),
    ])
}

fn graph(change: impl FnOnce(&mut Value)) -> Map<String, Value> {
    let mut graph = json!({
        "1": {"class_type": "Checkpoint", "inputs": {"ckpt_name": "film/a.ckpt"}},
        "2": {"class_type": "Paint", "inputs": {"steps": 8, "cfg": 7.5, "model": ["1", 0]}},
        "3": {"class_type": "Save", "inputs": {"images": ["2", 0], "filename_prefix": "shot"}},
    });
    change(&mut graph);
    let Value::Object(graph) = graph else { panic!("a graph is an object") };
    graph
}

fn judge(catalog: &Catalog, graph: &Map<String, Value>) -> Verdict {
    catalog.validate(graph, None, &|_| false)
}

fn refused(catalog: &Catalog, graph: &Map<String, Value>) -> Value {
    match judge(catalog, graph) {
        Verdict::Refused(refusal) => refusal.body(graph, Lang::En),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn options_are_those_of_all_nodes_and_classes_keep_their_order() {
    let catalog = pool();
    let classes: Vec<_> = catalog.object_info().keys().map(String::as_str).collect();
    assert_eq!(classes, ["Save", "Checkpoint", "Paint", "Frame"]);
    let shown = &catalog.class("Checkpoint")["Checkpoint"]["input"]["required"]["ckpt_name"];
    assert_eq!(
        *shown,
        json!([["film/a.ckpt", "film/b.ckpt"], {"tooltip": "which"}]),
        "V1 shape, one spelling"
    );
    assert_eq!(catalog.class("Save")["Save"], save(), "verbatim");
    assert_eq!(catalog.class("NoSuchClass"), json!({}));
}

#[test]
fn a_class_is_shown_as_most_nodes_have_it_and_else_as_the_first() {
    let mut newer = paint();
    newer["input"]["required"]["depth"] = json!(["INT", {}]);
    let of = |list: &[&Value]| {
        let nodes = list.iter().map(|paint| node("n", json!({"Paint": paint}), &[])).collect();
        Catalog::of(nodes).class("Paint")["Paint"].clone()
    };
    assert_eq!(of(&[&paint(), &newer]), paint());
    assert_eq!(of(&[&newer, &paint()]), newer);
    assert_eq!(of(&[&paint(), &newer, &newer]), newer);
}

#[test]
fn a_newer_combo_keeps_its_shape() {
    let upscale = |name: &str| {
        json!({"Up": {"input": {"required": {"model_name": ["COMBO", {"multiselect": false, "options": [name]}]}},
            "output": []}})
    };
    let catalog = Catalog::of(vec![node("a", upscale("x2"), &[]), node("b", upscale("x4"), &[])]);
    let shown = &catalog.class("Up")["Up"]["input"]["required"]["model_name"];
    assert_eq!(*shown, json!(["COMBO", {"multiselect": false, "options": ["x2", "x4"]}]));
}

#[test]
fn a_node_that_tells_only_names_adds_its_models() {
    let amber = json!({"Checkpoint": checkpoints(&["a.ckpt"])});
    let cedar = named("cedar", vec!["Checkpoint".into()], &[("checkpoints", "c.ckpt")]);
    let dune = named("dune", vec![], &[("checkpoints", "d.ckpt")]);
    let catalog = Catalog::of(vec![node("amber", amber, &[("checkpoints", "a.ckpt")]), cedar, dune]);
    let shown = &catalog.class("Checkpoint")["Checkpoint"]["input"]["required"]["ckpt_name"][0];
    assert_eq!(*shown, json!(["a.ckpt", "c.ckpt"]), "dune has no class that loads its own");
}

#[test]
fn models_are_listed_by_folder() {
    let catalog = pool();
    assert_eq!(catalog.folders(), ["checkpoints", "embeddings"]);
    assert_eq!(catalog.models("checkpoints").unwrap(), ["film/a.ckpt", "film/b.ckpt"]);
    assert_eq!(catalog.models("nope"), None);
    assert_eq!(catalog.embeddings(), ["glow.v2"]);
}

#[test]
fn what_lies_in_a_machines_input_folder_is_not_shown() {
    let load = json!({"LoadImage": {"input": {"required": {"image": [["secret.png"], {"image_upload": true}]}},
        "output": ["IMAGE"]}, "Custom": {"input": {"required": {"clip": [["private.mov"], {"video_upload": true}]}},
        "output": []}});
    let catalog = Catalog::of(vec![node("amber", load, &[])]);
    let text = Value::Object(catalog.object_info().clone()).to_string();
    assert!(!text.contains("secret") && !text.contains("private"), "{text}");
}

#[test]
fn partner_classes_are_nobodys() {
    let info = json!({"Paid": {"input": {}, "output": [], "api_node": true}, "Save": save()});
    assert_eq!(Catalog::of(vec![node("amber", info, &[])]).class("Paid"), json!({}));
}

#[test]
fn definitions_are_read_within_bounds() {
    let read = |text: &str| Definitions::read(text.as_bytes()).map(|_| ());
    let deep = format!(r#"{{"A": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    for text in ["", "[]", "null", "<html>", r#"{"error": "no"}"#, r#"{"A": []}"#, "{", &deep] {
        let refused = read(text).unwrap_err();
        assert!(matches!(refused, BadDefinitions::Unreadable { .. }), "{text:.40}: {refused}");
    }
    let large = " ".repeat(MOST_DEFINITIONS + 1);
    assert_eq!(read(&large), Err(BadDefinitions::TooLarge { bytes: MOST_DEFINITIONS + 1 }));
    let many: Map<String, Value> = (0..20_001).map(|n| (n.to_string(), json!(0))).collect();
    assert_eq!(read(&json!(many).to_string()), Err(BadDefinitions::TooMany { classes: 20_001 }));
    let odd = json!({"Save": save(), "A": {"input": {"required": []}, "output": []},
        "B": {"input": {"required": {"x": "INT"}}, "output": []}, "C": {"input": {}}, "D": 7});
    let read = Definitions::read(odd.to_string().as_bytes()).unwrap();
    assert_eq!(read.iter().map(|(class, _)| class.as_str()).collect::<Vec<_>>(), ["Save"]);
}

#[test]
fn a_graph_that_one_node_can_run_is_fine_however_its_slashes_lean() {
    let catalog = pool();
    for name in ["film/a.ckpt", "film\\a.ckpt", "film/b.ckpt", "b.ckpt", "disk1/film/b.ckpt"] {
        let graph = graph(|graph| graph["1"]["inputs"]["ckpt_name"] = json!(name));
        let fine = Verdict::Fine { outputs: vec!["3".into()], node_errors: Map::new() };
        assert_eq!(judge(&catalog, &graph), fine, "{name}");
    }
}

#[test]
fn a_graph_that_no_single_node_can_run_is_refused_with_what_each_lacks() {
    let amber = json!({"Save": save(), "Checkpoint": checkpoints(&["a.ckpt"]), "Paint": paint()});
    let birch =
        json!({"Save": save(), "Checkpoint": checkpoints(&["b.ckpt"]), "Paint": paint(), "Frame": paint()});
    let catalog = Catalog::of(vec![node("amber", amber, &[]), node("birch", birch, &[])]);
    let graph = graph(|graph| {
        graph["1"]["inputs"]["ckpt_name"] = json!("a.ckpt");
        graph["2"]["class_type"] = json!("Frame");
    });
    let body = refused(&catalog, &graph);
    let sentence = "no single node of the pool can run this graph (amber: no class Frame (node 2); birch: shows no model \
                    checkpoints/a.ckpt (node 1)); bring what is missing to one of them, or submit the parts as graphs of \
                    their own";
    assert_eq!(body["error"]["type"], "no_single_node");
    assert_eq!(body["error"]["message"], sentence);
    assert_eq!(body["node_errors"]["2"]["class_type"], "Frame");
    assert_eq!(body["node_errors"]["2"]["errors"][0]["details"], sentence);
    assert_eq!(body["node_errors"]["2"]["dependent_outputs"], json!(["3"]));
    let Verdict::Refused(refusal) = judge(&catalog, &graph) else { panic!("refused a moment ago") };
    let korean = "풀에 이 그래프를 혼자 실행할 수 있는 노드가 없습니다 (amber: Frame 클래스 없음 (그래프 노드 2); birch: \
                  checkpoints/a.ckpt 모델이 보이지 않음 (그래프 노드 1)). 부족한 것을 한 노드에 갖추거나, 그래프를 나누어 따로 제출하세요";
    assert_eq!(refusal.body(&graph, Lang::Ko)["error"]["message"], korean);
}

#[test]
fn a_node_that_tells_only_names_may_be_the_one() {
    let amber = json!({"Save": save(), "Checkpoint": checkpoints(&["a.ckpt"]), "Paint": paint()});
    let classes = || ["Save", "Checkpoint", "Paint", "Special"].map(String::from).to_vec();
    let catalog = |models: &[(&str, &str)]| {
        Catalog::of(vec![node("amber", amber.clone(), &[]), named("cedar", classes(), models)])
    };
    let of_cedar = graph(|graph| graph["1"]["inputs"]["ckpt_name"] = json!("c.ckpt"));
    let with = catalog(&[("checkpoints", "c.ckpt")]);
    assert!(matches!(judge(&with, &of_cedar), Verdict::Fine { .. }));
    let unknown = graph(|graph| {
        graph["1"]["inputs"]["ckpt_name"] = json!("c.ckpt");
        graph["2"]["class_type"] = json!("Special");
    });
    assert_eq!(judge(&with, &unknown), Verdict::Unjudged, "cedar alone knows what Special takes");
    let body = refused(&catalog(&[]), &unknown);
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("cedar: shows no model checkpoints/c.ckpt (node 1)"), "{message}");
    let nowhere = graph(|graph| graph["2"]["class_type"] = json!("Nowhere"));
    assert_eq!(refused(&with, &nowhere)["error"]["type"], "invalid_prompt");
}

#[test]
fn nothing_is_judged_while_nobody_has_told_anything() {
    assert_eq!(judge(&Catalog::default(), &graph(|_| {})), Verdict::Unjudged);
}

#[test]
fn an_output_that_fails_leaves_the_other_one() {
    let graph = graph(|graph| {
        graph["4"] = json!({"class_type": "Paint", "inputs": {"steps": "many", "cfg": 1}});
        graph["5"] = json!({"class_type": "Save", "inputs": {"images": ["4", 0], "filename_prefix": "bad"}});
    });
    let Verdict::Fine { outputs, node_errors } = judge(&pool(), &graph) else { panic!("one output is fine") };
    assert_eq!(outputs, ["3"]);
    assert_eq!(node_errors["4"]["errors"][0]["type"], "invalid_input_type");
    assert_eq!(node_errors["4"]["dependent_outputs"], json!(["5"]));
    let only_the_bad = pool().validate(&graph, Some(&["5".to_owned()]), &|_| false);
    assert!(matches!(only_the_bad, Verdict::Refused(Refusal::Invalid { .. })), "{only_the_bad:?}");
}

#[test]
fn files_must_come_with_the_prompt() {
    let load = json!({"input": {"required": {"image": [["theirs.png"], {"image_upload": true}]}}, "output": ["IMAGE"]});
    let catalog = Catalog::of(vec![node("amber", json!({"LoadImage": load, "Save": save()}), &[])]);
    let graph = graph(|graph| {
        *graph = json!({"1": {"class_type": "LoadImage", "inputs": {"image": "theirs.png"}},
            "2": {"class_type": "Save", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}});
    });
    let body = refused(&catalog, &graph);
    assert_eq!(body["node_errors"]["1"]["errors"][0]["details"], "image - Invalid image file: theirs.png");
    assert!(matches!(catalog.validate(&graph, None, &|name| name == "theirs.png"), Verdict::Fine { .. }));
}

#[test]
fn a_circle_is_an_error_of_who_closes_it() {
    let graph = graph(|graph| {
        graph["2"]["inputs"]["under"] = json!(["4", 0]);
        graph["4"] = json!({"class_type": "Paint", "inputs": {"steps": 1, "cfg": 1, "under": ["2", 0]}});
    });
    let body = refused(&pool(), &graph);
    assert_eq!(body["node_errors"]["4"]["errors"][0]["type"], "dependency_cycle");
    assert_eq!(body["node_errors"].as_object().unwrap().len(), 1);
}

#[test]
fn a_chain_of_ten_thousand_nodes_is_judged_on_a_small_stack() {
    let mut chain: Map<String, Value> = (0..9_999)
        .map(|n| {
            let inputs = json!({"steps": 1, "cfg": 1, "under": [format!("{}", n + 1), 0]});
            (n.to_string(), json!({"class_type": "Paint", "inputs": inputs}))
        })
        .collect();
    chain.insert("9999".into(), json!({"class_type": "Paint", "inputs": {"steps": 1, "cfg": 1}}));
    chain.insert(
        "out".into(),
        json!({"class_type": "Save", "inputs": {"images": ["0", 0], "filename_prefix": "x"}}),
    );
    let judging = move || judge(&pool(), &chain);
    let small = std::thread::Builder::new().stack_size(512 << 10).spawn(judging).unwrap();
    assert!(matches!(small.join().unwrap(), Verdict::Fine { .. }));
}

#[test]
fn a_graph_that_is_wrong_everywhere_is_answered_in_few_bytes() {
    let bad = |n: usize| {
        let inputs = json!({"images": ["1", 0], "filename_prefix": ["nowhere", 0]});
        (format!("save {n}"), json!({"class_type": "Save", "inputs": inputs}))
    };
    let graph: Map<String, Value> = (0..9_000).map(bad).collect();
    let body = refused(&pool(), &graph).to_string();
    assert!(body.len() < 4 << 20, "{} bytes", body.len());
}

#[test]
fn definitions_of_other_machines_come_without_models_which_their_inventories_tell() {
    let told = json!({"Save": save(), "Checkpoint": checkpoints(&["film/a.ckpt", "None"]), "Paint": paint()});
    let told = Arc::new(Definitions::read(told.to_string().as_bytes()).unwrap().without_models());
    let node = |name: &str, model: &str| {
        let classes = ["Save", "Checkpoint", "Paint"].map(str::to_owned).to_vec();
        Offering { definitions: Some(told.clone()), ..named(name, classes, &[("checkpoints", model)]) }
    };
    let catalog = Catalog::of(vec![node("amber", "film/a.ckpt"), node("birch", "b.ckpt")]);
    let options = &catalog.class("Checkpoint")["Checkpoint"]["input"]["required"]["ckpt_name"][0];
    assert_eq!(*options, json!(["None", "b.ckpt", "film/a.ckpt"]));
    let judge = |graph: &Map<String, Value>| catalog.validate(graph, None, &|_| false);
    assert!(matches!(judge(&graph(|_| {})), Verdict::Fine { outputs, .. } if outputs == ["3"]));
    for (change, error) in [
        (("2", "steps", json!(1000)), "value_bigger_than_max"),
        (("1", "ckpt_name", json!("nowhere.ckpt")), "value_not_in_list"),
    ] {
        let (id, input, value) = change;
        let graph = graph(|graph| graph[id]["inputs"][input] = value);
        let Verdict::Refused(refusal) = judge(&graph) else { panic!("{error}") };
        let said = refusal.body(&graph, Lang::En).to_string();
        assert!(said.contains(error), "{said}");
    }
    let both = graph(|graph| {
        graph["4"] = json!({"class_type": "Checkpoint", "inputs": {"ckpt_name": "b.ckpt"}});
        graph["2"]["inputs"]["under"] = json!(["5", 0]);
        graph["5"] = json!({"class_type": "Paint", "inputs": {"steps": 8, "cfg": 7.5, "model": ["4", 0]}});
    });
    let said = refused(&catalog, &both).to_string();
    assert!(said.contains("amber: shows no model") && said.contains("birch: shows no model"), "{said}");
}
