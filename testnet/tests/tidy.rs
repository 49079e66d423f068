//! The house's rules about itself: who may import whom, where foreign crates live, how long a file may be.
//!
//! The rules are those of `docs/architecture.md`. A new arrow is a decision: change the page first.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps in vain, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LINE_LIMIT: usize = 600;

/// Crates of the workspace and the crates of the workspace they may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("daemon", &["scenemesh-protocol"]),
    ("cli", &["scenemesh-protocol"]),
    ("testnet", &["scenemesh-protocol", "scenemeshd", "scenemesh"]),
];

/// Modules of the daemon and the modules they may name. `clock`, `platform` and `supervisor` are the ground under
/// everything and may be named everywhere.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["args"]),
    ("args", &["config", "node", "telemetry"]),
    ("messages", &[]),
    ("telemetry", &[]),
    ("node", &["api", "config", "executor", "gateway", "gpu", "membership", "network", "scheduler", "store"]),
    ("config", &["api", "executor", "gateway", "gpu", "membership", "network", "scheduler", "store"]),
    ("api", &["http", "messages", "executor", "gpu", "membership", "network", "scheduler", "store"]),
    ("gateway", &["http", "messages", "executor", "gpu", "membership", "network", "scheduler", "store"]),
    ("http", &[]),
    ("scheduler", &["executor", "gpu", "network", "store"]),
    ("membership", &["network", "store"]),
    ("network", &["store"]),
    ("executor", &["store"]),
    ("gpu", &["store"]),
    ("fuzzing", &["api", "config", "executor", "membership", "scheduler", "store"]),
    ("store", &[]),
];
const GROUND: &[&str] = &["clock", "platform", "supervisor"];

/// Foreign crates and the only places that may name them.
const QUARANTINE: &[(&str, &[&str])] = &[
    (
        "libp2p",
        &["daemon/src/network.rs", "daemon/src/network/", "testnet/src/bench/", "testnet/src/hostile/"],
    ),
    ("libp2p_stream", &["daemon/src/network/", "testnet/src/bench/", "testnet/src/hostile/"]),
    ("ed25519_dalek", &["protocol/src/", "testnet/src/hostile/"]),
    ("hpke", &["protocol/src/", "testnet/src/hostile/"]),
    ("chacha20poly1305", &["protocol/src/", "testnet/src/hostile/"]),
    ("sled", &["daemon/src/store/index.rs", "daemon/src/store/index/tests.rs"]),
    ("bincode", &["protocol/src/codec.rs"]),
    ("nvml_wrapper", &["daemon/src/gpu/nvml.rs"]),
    (
        "axum",
        &[
            "daemon/src/api.rs",
            "daemon/src/api/",
            "daemon/src/gateway.rs",
            "daemon/src/gateway/",
            "daemon/src/http/",
            "daemon/tests/",
            "cli/tests/",
            "testnet/",
            "daemon/src/executor/tests/",
        ],
    ),
    ("hyper", &["daemon/src/http/"]),
    ("hyper_util", &["daemon/src/http/"]),
    ("clap", &["cli/", "daemon/src/args.rs", "testnet/"]),
    (
        "reqwest",
        &[
            "daemon/src/executor/comfyui/",
            "daemon/src/api/doctor.rs",
            "daemon/src/gateway/beside.rs",
            "daemon/src/api/tests",
            "daemon/src/executor/tests/",
            "daemon/tests/",
            "cli/",
            "testnet/",
        ],
    ),
    (
        "tokio_tungstenite",
        &["daemon/src/executor/comfyui/", "daemon/src/executor/tests/", "daemon/tests/", "testnet/"],
    ),
];

/// The second node must not know these: it is written from the page alone, and proves it.
const SECOND_NODE: &str = "testnet/src/hostile";
const UNKNOWN_TO_IT: &[&str] = &["scenemesh_protocol", "scenemeshd", "scenemesh", "bincode"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust file of the workspace: path from the root with `/`, and text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for top in ["protocol", "daemon", "cli", "testnet"] {
        walk(&root().join(top), &mut found);
    }
    assert!(found.len() > 40, "the walk found only {} files", found.len());
    found
}

fn walk(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                walk(&path, found);
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Lines that are code: no comments, no strings' insides worth caring about.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(at, line)| (at + 1, line))
}

/// Whether `line` names `word` as a path segment that starts a path: `word::`, `use word`, `crate::word`.
fn names_crate(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + word.len()..];
        let starts =
            before.is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '"' | '/' | '-')));
        let leading_colons = line[..at].ends_with("::")
            && !line[..at].trim_end_matches("::").ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let is_path = after.starts_with("::");
        let is_use = after.starts_with(';') && line.trim_start().starts_with("use ");
        (starts || leading_colons) && (is_path || is_use)
    })
}

fn modules_named(text: &str) -> BTreeSet<(usize, String)> {
    let mut named = BTreeSet::new();
    for (line_no, line) in code_lines(text) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            if let Some(group) = rest.strip_prefix('{') {
                for part in group.split(['{', '}', ',']) {
                    let word: String =
                        part.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    if !word.is_empty() {
                        named.insert((line_no, word));
                    }
                }
            } else {
                let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                named.insert((line_no, word));
            }
        }
    }
    named
}

fn broken_arrows(file: &str, text: &str) -> Vec<String> {
    let Some(inside) = file.strip_prefix("daemon/src/") else { return Vec::new() };
    let room = inside.split(['/', '.']).next().unwrap_or_default();
    if room == "lib" {
        return Vec::new();
    }
    let known: BTreeSet<&str> = ROOMS.iter().map(|(room, _)| *room).chain(GROUND.iter().copied()).collect();
    if !known.contains(room) {
        return vec![format!("{file}: module {room} has no place in the table of rooms")];
    }
    let allowed = ROOMS.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, allowed)| *allowed);
    modules_named(text)
        .into_iter()
        .filter(|(_, named)| {
            known.contains(named.as_str()) && named != room && !GROUND.contains(&named.as_str())
        })
        .filter(|(_, named)| !allowed.contains(&named.as_str()))
        .map(|(line, named)| format!("{file}:{line}: {room} may not know {named}"))
        .collect()
}

fn escapes(file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, homes) in QUARANTINE {
        if homes.iter().any(|home| file.starts_with(home)) || file == "testnet/tests/tidy.rs" {
            continue;
        }
        for (line_no, line) in code_lines(text) {
            if names_crate(line, name) {
                found.push(format!("{file}:{line_no}: {name} is named outside {homes:?}"));
            }
        }
    }
    found
}

fn borrowed(file: &str, text: &str) -> Vec<String> {
    if !file.starts_with(SECOND_NODE) {
        return Vec::new();
    }
    let named = |line: &str| UNKNOWN_TO_IT.iter().find(|name| names_crate(line, name)).copied();
    code_lines(text)
        .filter_map(|(line_no, line)| Some((line_no, named(line)?)))
        .map(|(line_no, name)| format!("{file}:{line_no}: the second node may not know {name}"))
        .collect()
}

fn too_long(file: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > LINE_LIMIT)
        .then(|| format!("{file}: {lines} lines, the limit is {LINE_LIMIT}: split it by decision"))
}

fn crate_arrows(name: &str, manifest: &str) -> Vec<String> {
    let allowed =
        CRATES.iter().find(|(crate_name, _)| *crate_name == name).map_or(&[][..], |(_, allowed)| *allowed);
    let members = ["scenemesh-protocol", "scenemeshd", "scenemesh", "scenemesh-testnet"];
    manifest
        .lines()
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|dependency| members.contains(dependency) && !allowed.contains(dependency))
        .map(|dependency| format!("{name}/Cargo.toml: may not depend on {dependency}"))
        .collect()
}

#[track_caller]
fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn crates_point_one_way() {
    let manifest = |name: &str| fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
    none(CRATES.iter().flat_map(|(name, _)| crate_arrows(name, &manifest(name))).collect());
}

#[test]
fn rooms_of_the_daemon_point_one_way() {
    none(sources().iter().flat_map(|(file, text)| broken_arrows(file, text)).collect());
}

#[test]
fn foreign_crates_stay_in_their_quarantine() {
    none(sources().iter().flat_map(|(file, text)| escapes(file, text)).collect());
}

#[test]
fn the_second_node_is_written_from_the_page_alone() {
    let all = sources();
    assert!(all.iter().any(|(file, _)| file.starts_with(SECOND_NODE)), "where is it?");
    none(all.iter().flat_map(|(file, text)| borrowed(file, text)).collect());
}

#[test]
fn no_file_is_too_long() {
    none(sources().iter().filter_map(|(file, text)| too_long(file, text)).collect());
}

#[test]
fn no_module_hides_in_a_mod_rs() {
    none(
        sources()
            .iter()
            .filter(|(file, _)| file.ends_with("/mod.rs"))
            .map(|(file, _)| file.clone())
            .collect(),
    );
}

#[test]
fn a_broken_arrow_is_seen() {
    let text = "use crate::store::Store;\nuse crate::{scheduler::Scheduler, clock};\n// crate::node is only a comment\n";
    let seen = broken_arrows("daemon/src/executor/actor.rs", text);
    assert_eq!(seen, ["daemon/src/executor/actor.rs:2: executor may not know scheduler"]);
    assert_eq!(broken_arrows("daemon/src/attic.rs", "").len(), 1, "a room that is not in the table");
    assert_eq!(crate_arrows("protocol", "[dependencies]\nscenemeshd.workspace = true\n").len(), 1);
}

#[test]
fn an_escaped_crate_is_seen() {
    assert_eq!(escapes("daemon/src/scheduler.rs", "fn f() { libp2p::PeerId::random(); }\n").len(), 1);
    assert_eq!(escapes("daemon/src/store/journal.rs", "    let x = ::sled::open(path);\n").len(), 1);
    assert_eq!(escapes("daemon/src/store/index.rs", "use sled::Db;\n").len(), 0);
    assert_eq!(
        escapes("daemon/src/scheduler.rs", "// libp2p::Swarm is elsewhere\nlet not_sled::x = 1;\n").len(),
        0
    );
}

#[test]
fn a_borrowed_line_is_seen() {
    let text = "use scenemesh_protocol::ids::NodeId;\nuse crate::eventually::eventually;\n";
    assert_eq!(borrowed("testnet/src/hostile/bytes.rs", text).len(), 1);
    assert_eq!(borrowed("testnet/src/cluster.rs", text).len(), 0);
}

#[test]
fn a_long_file_is_seen() {
    assert!(too_long("daemon/src/x.rs", &"\n".repeat(LINE_LIMIT + 1)).is_some());
    assert!(too_long("daemon/src/x.rs", &"\n".repeat(LINE_LIMIT)).is_none());
}
