use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// One node class per line, with its module: a recorded ComfyUI 0.3.64.
const RECORDED: &str = include_str!("recorded.txt");

fn recorded() -> impl Iterator<Item = (&'static str, &'static str)> {
    RECORDED.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once('\t').unwrap())
}

fn graph(value: Value) -> Graph {
    Graph::from_value(value).unwrap()
}

fn one(class: &str, inputs: Value) -> Graph {
    graph(json!({ "3": { "class_type": class, "inputs": inputs } }))
}

fn found(graph: &Graph, attached: &[&str]) -> Vec<String> {
    let attached: Vec<String> = attached.iter().map(ToString::to_string).collect();
    let found = Policy::default().findings(graph, b"", &attached, Whose::Others);
    found.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn passes(graph: &Graph, attached: &[&str]) {
    assert_eq!(found(graph, attached), Vec::<String>::new());
}

#[track_caller]
fn refused(graph: &Graph, words: &str) {
    let found = found(graph, &[]);
    assert!(found.iter().any(|told| told.contains(words)), "{words:?} is not in {found:?}");
}

#[test]
fn the_embedded_list_reads() {
    let list = List::read(include_str!("classes.toml")).unwrap();
    assert!(list.version >= 1 && list.comfyui == "0.3.64");
    for family in Family::ALL {
        let denied = |entry: &Entry| entry.judged == Judged::Denied(family);
        let any = list.entries().any(|(_, entry)| denied(entry));
        // Nothing on the list talks to machines that the graph names without also taking an address as text.
        assert!(any || family == Family::Network, "no class is denied for {family}");
    }
}

#[test]
fn every_recorded_class_is_judged() {
    let missing: Vec<_> = recorded().filter(|(class, _)| List::embedded().entry(class).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(recorded().count() > 470);
}

#[test]
fn every_class_of_the_partner_modules_is_denied_for_that() {
    for (class, module) in recorded().filter(|(_, module)| module.starts_with("comfy_api_nodes")) {
        let judged = List::embedded().entry(class).unwrap().judged;
        assert_eq!(judged, Judged::Denied(Family::Partner), "{class} of {module}");
    }
}

#[test]
fn a_list_with_a_mistake_does_not_read() {
    let rest = "[text]\n[name]\n[link]\n[word]\n[data]\n[class]\n";
    let head = "version = 1\ncomfyui = \"x\"\n";
    let group = |kind: &str, family: &str| format!("[[{kind}]]\nfrom = \"x\"\n{family}classes = [\"A\"]\n");
    let read = |groups: &[String], rest: &str| List::read(&format!("{head}{}{rest}", groups.concat()));
    let code = "family = \"code\"\n";
    let fine = [group("allow", ""), group("deny", code).replace("\"A\"", "\"B\"")];
    assert!(read(&fine, rest).is_ok());
    let twice = read(&[group("allow", ""), group("deny", code)], rest).unwrap_err();
    assert_eq!(twice.to_string(), "A is judged twice");
    assert!(read(&[group("allow", code), fine[1].clone()], rest).is_err());
    assert!(read(&[fine[0].clone(), group("deny", "")], rest).is_err());
    let of_denied = rest.replace("[text]\n", "[text]\nB = [\"x\"]\n");
    assert_eq!(
        read(&fine, &of_denied).unwrap_err().to_string(),
        "B has meanings, and is not an allowed class"
    );
}

#[test]
fn a_hostile_graph_of_every_family_is_refused() {
    let table = [
        (one("VHS_LoadVideoPath", json!({"video": "/home/kim/client.mov"})), Family::Paths),
        (one("save_speaker_npz", json!({"name": "../../../.ssh/authorized_keys"})), Family::Paths),
        (one("IPAdapterLoadEmbeds", json!({"embeds": "evil.ipadpt"})), Family::Code),
        (one("VHS_Unbatch", json!({"batched": ["1", 0]})), Family::Code),
        (one("OpenAIChatNode", json!({"prompt": "hello"})), Family::Partner),
        (one("ETN_Translate", json!({"text": "lang:zz hello"})), Family::Install),
        (one("ExecuteAllControlNetPreprocessors", json!({"image": ["1", 0]})), Family::Install),
        (one("LoadImageSetFromFolderNode", json!({"folder": "clients"})), Family::Others),
        (one("VHS_PruneOutputs", json!({"filenames": ["1", 0]})), Family::Others),
        (one("CheckpointSave", json!({"filename_prefix": "stolen"})), Family::Models),
        (one("TrainLoraNode", json!({"steps": 100_000})), Family::Models),
        (
            one("RegexMatch", json!({"string": "aaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "regex_pattern": "(a+)+$"})),
            Family::Hang,
        ),
    ];
    for (graph, family) in table {
        refused(&graph, family.words());
    }
    refused(&one("SomebodysShellNode", json!({"command": "rm -rf /"})), "not on the list");
}

#[test]
fn an_ordinary_graph_passes() {
    let graph = graph(json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "film\\sdxl v1.0.safetensors"}},
        "2": {"class_type": "LoraLoader", "inputs": {"lora_name": "grain/35mm (soft).safetensors", "strength_model": 1.0,
            "model": ["1", 0], "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["2", 1],
            "text": "a road/../ and http://in it, C:\\ ~/ $HOME %2e%2e/ (embedding:film/grain:1.2)\n\\\\host [output]"}},
        "4": {"class_type": "LoadImage", "inputs": {"image": "shots/plate 01.png [input]"}},
        "5": {"class_type": "SaveImage", "inputs": {"filename_prefix": "%date:yyyy-MM-dd%/shot_%KSampler.seed%", "images": ["4", 0]}},
        "6": {"class_type": "SkipLayerGuidanceSD3", "inputs": {"layers": "7, 8, 9", "model": ["2", 0]}},
        "7": {"class_type": "VHS_VideoCombine", "inputs": {"images": ["4", 0], "frame_rate": 24, "format": "video/h264-mp4",
            "pix_fmt": "yuv420p10le", "crf": 19, "save_metadata": true, "filename_prefix": "cut", "audio": ["8", 0]}},
        "8": {"class_type": "LoadAudio", "inputs": {"audio": "대사_최종….wav"}},
        "9": {"class_type": "Epsilon Scaling", "inputs": {"scaling_factor": 1.0, "model": ["2", 0]}},
        "12:3": {"class_type": "AIO_Preprocessor", "inputs": {"preprocessor": "DWPreprocessor", "image": ["4", 0]}},
        "13": {"class_type": "ETN_LoadImageBase64", "inputs": {"image": "/9j/4AAQSkZJRgABAQ=="}},
        "14": {"class_type": "VHS_SelectImages", "inputs": {"indexes": "-5:, 0:5", "image": ["4", 0]}},
        "15": {"class_type": "WanTrackToVideo", "inputs": {"tracks": "[[{\"x\": 1, \"y\": 2}]]"}},
        "16": {"class_type": "FacialPartColoringFromPoseKps", "inputs": {"skin": "rgb(0, 153, 255)", "pose_kps": ["8", 0]}},
    }));
    passes(&graph, &["shots/plate 01.png", "대사_최종….wav"]);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let table = [
        ("/etc/passwd", Offence::Absolute),
        (" /etc/passwd", Offence::Absolute),
        ("\\Windows", Offence::Absolute),
        ("\\\\server\\share\\x.png", Offence::Absolute),
        ("\\\\?\\C:\\x.png", Offence::Absolute),
        ("//server/share", Offence::Absolute),
        ("\u{ff0f}etc\u{ff0f}passwd", Offence::Absolute),
        ("\u{2215}etc", Offence::Absolute),
        ("\u{200b}/etc", Offence::Absolute),
        ("%2Fetc%2fpasswd", Offence::Absolute),
        ("%252fetc", Offence::Absolute),
        ("C:\\x.png", Offence::Drive),
        ("c:x.png", Offence::Drive),
        ("\u{ff23}\u{ff1a}x", Offence::Drive),
        ("..", Offence::Climbs),
        ("a/../../b", Offence::Climbs),
        ("a\\..\\b", Offence::Climbs),
        ("a/.. /b", Offence::Climbs),
        ("a/.../b", Offence::Climbs),
        ("a/. ./b", Offence::Climbs),
        ("a/%2e%2e/b", Offence::Climbs),
        ("a/.%2E/b", Offence::Climbs),
        ("a/\u{2025}/b", Offence::Climbs),
        ("a/\u{ff0e}\u{ff0e}/b", Offence::Climbs),
        ("a\u{20a9}..\u{20a9}b", Offence::Climbs),
        ("a/.\u{200d}./b", Offence::Climbs),
        ("~/x", Offence::Home),
        ("~kim/x", Offence::Home),
        ("\u{ff5e}/x", Offence::Home),
        ("$HOME/x", Offence::Variable),
        ("a/${HOME}/x", Offence::Variable),
        ("a/$(id)", Offence::Variable),
        ("http://10.0.0.1/x.png", Offence::Address),
        ("HTTPS://x", Offence::Address),
        ("file:x", Offence::Address),
        ("blake3:0123", Offence::Address),
        ("concat:a.png|b.png", Offence::Address),
        ("subfile,,start,0,end,9,,:x", Offence::Address),
        ("data:image/png;base64,AA", Offence::Address),
        ("a\0b", Offence::Control),
        ("a%00b", Offence::Control),
        ("a\u{1b}b", Offence::Control),
        ("x.png [output]", Offence::Annotation),
        ("x.png[TEMP] .", Offence::Annotation),
        ("nul.png", Offence::Device),
        ("shots/COM1", Offence::Device),
        ("컷 01.png:stream", Offence::Stream),
    ];
    for (name, offence) in table {
        assert_eq!(names::offence(name, Strictness::File), Some(offence.clone()), "{name:?}");
        for (class, input) in [
            ("LoadImage", "image"),
            ("CheckpointLoaderSimple", "ckpt_name"),
            ("SaveImage", "filename_prefix"),
        ] {
            let graph = one(class, json!({ input: name }));
            refused(&graph, &format!("node 3 ({class}), input {input}: {offence}"));
        }
    }
    for fine in [
        "a.png",
        "a..b.png",
        "v1.0 (final).safetensors",
        "100%.png",
        "%width%x%height%",
        "컷_03.png",
        "a/b\\c.ckpt",
    ] {
        assert_eq!(names::offence(fine, Strictness::File), None, "{fine:?}");
    }
    for fine in ["16:9", "7, 8, 9", "rgb(0, 0, 255)", "note: b", "0:5", "...?"] {
        assert_eq!(names::offence(fine, Strictness::Loose), None, "{fine:?}");
    }
}

#[test]
fn what_hides_is_found() {
    let escape = "../../x";
    for hidden in [
        json!({ "__value__": [escape] }),
        json!([escape, 0.5]),
        json!(["a", ["b", { "c": escape }]]),
        json!({ escape: 1 }),
        json!(r#"{"path": "/etc/passwd"}"#),
        json!(r#" ["/etc/passwd"]"#),
    ] {
        let graph = one("SkipLayerGuidanceSD3", json!({ "layers": hidden, "model": ["1", 0] }));
        assert_eq!(found(&graph, &[]).len(), 1, "{hidden}");
    }
    let mut deep = json!("x");
    for _ in 0..40 {
        deep = json!([deep, "y", "z"]);
    }
    refused(&one("SkipLayerGuidanceSD3", json!({ "layers": deep })), "nested too deeply");
    // A name that only shows when the graph runs is no name.
    for (class, input) in
        [("LoadImage", "image"), ("SaveImage", "filename_prefix"), ("LoraLoader", "lora_name")]
    {
        refused(&one(class, json!({ input: ["7", 0] })), "it is linked");
    }
    // An input that the class does not declare goes into ffmpeg's arguments all the same.
    for value in [json!("x,movie=/etc/passwd"), json!("-i"), json!(["7", 0]), json!({"a": "b c"})] {
        let graph = one("VHS_VideoCombine", json!({ "dither": value, "images": ["1", 0] }));
        assert_eq!(found(&graph, &[]).len(), 1, "{value}");
    }
    refused(&one("VHS_VideoCombine", json!({ "format": "video/../../input/x" })), "climbs");
    refused(&one("XTTS_INFER", json!({ "audio": "output/other.wav", "text": "hello" })), "must be linked");
    refused(
        &one("AIO_Preprocessor", json!({ "preprocessor": "MediaPipe-FaceMeshPreprocessor" })),
        "MediaPipe",
    );
    refused(&one("AIO_Preprocessor", json!({ "preprocessor": ["7", 0] })), "it is linked");
    refused(&one("ETN_LoadImageBase64", json!({ "image": "../x.png" })), "not base64");
    refused(&one("CLIPTextEncode", json!({ "text": "a cat (embedding:../../keys/x:1.2)" })), "climbs");
    refused(&one("CLIPTextEncode", json!({ "text": "a\0b" })), "control character");
}

#[test]
fn a_file_of_another_tasks_output_passes_only_when_it_came_along() {
    let graph = one("LoadImage", json!({ "image": "shot_01_00001_.png [output]" }));
    refused(&graph, "another task");
    passes(&graph, &["shot_01_00001_.png"]);
    passes(&graph, &["shot_01_00001_.png [output]"]);
    assert_eq!(found(&graph, &["shot_02.png"]).len(), 1);
    let climbing = one("LoadImage", json!({ "image": "../x.png [output]" }));
    assert_eq!(found(&climbing, &["../x.png"]).len(), 1);
}

#[test]
fn credentials_are_found_anywhere() {
    let clean = one("SaveImage", json!({ "images": ["1", 0] }));
    let policy = Policy::default();
    for extra in [
        r#"{"auth_token_comfy_org": "hush"}"#,
        r#"{"extra_pnginfo": {"a": [{"API_KEY_COMFY_ORG": "hush"}]}}"#,
    ] {
        for whose in [Whose::Others, Whose::OwnMachine] {
            let found = policy.findings(&clean, extra.as_bytes(), &[], whose);
            assert_eq!(found.len(), 1, "{extra}");
            assert!(!found[0].to_string().contains("hush"));
        }
    }
    let hidden = one("SaveImage", json!({ "images": ["1", 0], "auth_token_comfy_org": "hush" }));
    assert_eq!(policy.findings(&hidden, b"", &[], Whose::OwnMachine).len(), 1);
    let mut extra = json!({ "a": [{ "api_key_comfy_org": "hush", "b": 1 }], "auth_token_comfy_org": "hush" });
    strip_tokens(&mut extra);
    assert_eq!(extra, json!({ "a": [{ "b": 1 }] }));
}

#[test]
fn the_owner_decides_over_the_list_but_not_over_partner_nodes() {
    let mut policy = Policy::default();
    let names = |classes: &[&str]| classes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(policy.class("RegexMatch", Whose::OwnMachine), Ok(()));
    assert_eq!(policy.class("Unheard", Whose::OwnMachine), Ok(()));
    for whose in [Whose::OwnMachine, Whose::Others] {
        assert_eq!(policy.class("OpenAIChatNode", whose), Err(WhyDenied::Family(Family::Partner)));
    }
    policy.choices.change(Change::Allow, &names(&["RegexMatch", "Unheard"])).unwrap();
    policy.choices.change(Change::Deny, &names(&["KSampler"])).unwrap();
    assert_eq!(policy.class("RegexMatch", Whose::Others), Ok(()));
    assert_eq!(policy.class("Unheard", Whose::Others), Ok(()));
    for whose in [Whose::OwnMachine, Whose::Others] {
        assert_eq!(policy.class("KSampler", whose), Err(WhyDenied::ByHand));
    }
    let partner = policy.choices.change(Change::Allow, &names(&["CLIPSave", "OpenAIChatNode"])).unwrap_err();
    assert!(partner.to_string().starts_with("OpenAIChatNode is a partner node"), "{partner}");
    assert!(policy.class("CLIPSave", Whose::Others).is_err(), "half a change is none");
    // Paths stay refused in what the owner allowed.
    policy.choices.change(Change::Allow, &names(&["VHS_LoadImagePath"])).unwrap();
    let graph = one("VHS_LoadImagePath", json!({ "image": "/home/kim/x.png" }));
    assert_eq!(policy.findings(&graph, b"", &[], Whose::Others).len(), 1);
    policy.choices.change(Change::Reset, &names(&["KSampler", "RegexMatch"])).unwrap();
    assert_eq!(policy.class("KSampler", Whose::Others), Ok(()));
    assert!(policy.class("RegexMatch", Whose::Others).is_err());
}

#[test]
fn choices_are_written_as_they_are_read() {
    let mut choices = Choices::default();
    assert_eq!(Choices::read(&choices.write()), Ok(choices.clone()));
    choices.allowed.extend(["Epsilon Scaling".to_owned(), "quo\"ted\\".to_owned()]);
    choices.denied.insert("KSampler".to_owned());
    assert_eq!(Choices::read(&choices.write()), Ok(choices));
    assert_eq!(Choices::read(""), Ok(Choices::default()));
}

#[test]
fn a_file_with_a_mistake_names_its_line() {
    let table = [
        ("allow = [\n  \"A\",\n]\ndeny = [\"A\"]\n", "line 4: \"A\" is under allow and under deny"),
        ("allow = [\n  \"OpenAIChatNode\",\n]\n", "line 2: OpenAIChatNode is a partner node"),
        ("deny = [\n\n  \" \",\n]\n", "line 3: \" \" is no name"),
        ("allow = [\"A\"]\nallowed = []\n", "line 2"),
        ("allow = \"A\"\n", "line 1"),
    ];
    for (text, words) in table {
        let error = Choices::read(text).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_refusals_sentence_reads_back() {
    for (why, read) in [
        (WhyDenied::Family(Family::Paths), WhyDenied::Family(Family::Paths)),
        (WhyDenied::Unlisted, WhyDenied::Unlisted),
        // What the owner denied by hand is told as not on the list.
        (WhyDenied::ByHand, WhyDenied::Unlisted),
    ] {
        let denied = Denied { class: "Epsilon Scaling".into(), why };
        let back = Denied::of_sentence(&denied.to_string()).unwrap();
        assert_eq!((back.class.as_str(), back.why), ("Epsilon Scaling", read));
    }
    for other in ["", "it is busy", "node class \"A\" is not allowed there (whatever)"] {
        assert_eq!(Denied::of_sentence(other), None, "{other}");
    }
}

#[tokio::test]
async fn the_keeper_writes_before_it_answers_and_keeps_what_hands_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let supervisor = crate::supervisor::Supervisor::new(std::time::Duration::from_secs(5));
    let keeper = spawn(dir.path(), &supervisor.tasks()).unwrap();
    let watch = keeper.policy();
    let changed = keeper.change(Change::Allow, vec!["RegexMatch".into()]).await.unwrap();
    assert!(changed.choices.allowed.contains("RegexMatch"));
    assert_eq!(**watch.borrow(), *changed);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let by_hand = std::fs::read_to_string(&path).unwrap().replace("deny = []", "deny = [\"KSampler\"]");
    std::fs::write(&path, by_hand).unwrap();
    let both = keeper.change(Change::Allow, vec!["RegexReplace".into()]).await.unwrap();
    assert!(both.choices.denied.contains("KSampler") && both.choices.allowed.len() == 2);
    std::fs::write(&path, "allow = [\"OpenAIChatNode\"]\n").unwrap();
    let error = keeper.change(Change::Reset, vec!["KSampler".into()]).await.unwrap_err().to_string();
    assert!(error.contains("policy.toml") && error.contains("line 1"), "{error}");
    assert_eq!(**watch.borrow(), *both, "a change that failed changed nothing");
    supervisor.run_until(std::future::ready(())).await.unwrap();
    let again = crate::supervisor::Supervisor::new(std::time::Duration::from_secs(5));
    assert!(matches!(spawn(dir.path(), &again.tasks()), Err(BadFile::Malformed { .. })));
}

/// Names with an escape somewhere in them, disguised in one of the ways that are known.
fn escapes() -> impl Strategy<Value = String> {
    let separator =
        prop::sample::select(vec!["/", "\\", "%2f", "%5C", "\u{ff0f}", "\u{2215}", "\u{20a9}", "%252F"]);
    let dots = prop::sample::select(vec![
        "..",
        "...",
        ".. ",
        "%2e%2e",
        ".%2e",
        "\u{2025}",
        "\u{ff0e}.",
        ".\u{200b}.",
    ]);
    let word = "[a-zA-Z0-9_가-힣 -]{1,8}";
    let climbing = (word, separator.clone(), dots, separator.clone(), word)
        .prop_map(|(head, first, dots, second, tail)| format!("{head}{first}{dots}{second}{tail}"));
    let rooted = (separator, word).prop_map(|(separator, word)| format!("{separator}{word}"));
    let elsewhere =
        (prop::sample::select(vec!["C:", "z:\\", "~/", "http://", "file:", "\\\\?\\", "$HOME/"]), word)
            .prop_map(|(start, word)| format!("{start}{word}"));
    prop_oneof![climbing, rooted, elsewhere]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_escape_passes_where_a_name_belongs(name in escapes()) {
        for (class, input) in [
            ("LoadImage", "image"), ("UNETLoader", "unet_name"), ("SaveVideo", "filename_prefix"),
            ("KSampler", "sampler_name"), ("VHS_VideoCombine", "format"), ("SkipLayerGuidanceSD3", "layers"),
        ] {
            prop_assert_eq!(found(&one(class, json!({ input: name })), &[]).len(), 1, "{} {}", class, name);
            let wrapped = one(class, json!({ input: { "__value__": [name] } }));
            prop_assert_eq!(found(&wrapped, &[]).len(), 1);
        }
        // The same words are a prompt like any other.
        let prompt = found(&one("CLIPTextEncode", json!({ "text": name })), &[]);
        prop_assert!(prompt.is_empty());
    }

    #[test]
    fn any_json_is_judged_without_a_panic(text in "\\PC{0,40}", key in "\\PC{0,10}") {
        drop(found(&one("LoadImage", json!({ "image": { key.clone(): [text.clone()] } })), &[]));
        drop(found(&one("CLIPTextEncode", json!({ "text": format!("embedding:{text}") })), &[]));
        drop(names::word_offence(&text));
    }
}
