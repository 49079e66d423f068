//! Holds `docs/security.md` to its word: every attack names tests, every named test exists, and no test of the hostile
//! peer is left out.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps in vain, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files all of whose tests are attacks.
const HOSTILE: &[&str] = &["testnet/tests/hostile.rs", "testnet/tests/hostile/", "testnet/tests/canaries.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn page() -> String {
    fs::read_to_string(root().join("docs/security.md")).unwrap()
}

/// Cells of the rows below every header that begins `| attack |`.
fn attacks(page: &str) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("| attack |") {
            inside = true;
        } else if !line.starts_with('|') {
            inside = false;
        } else if inside && !line.starts_with("| ---") {
            rows.push(line.trim_matches('|').split(" | ").map(str::trim).collect());
        }
    }
    rows
}

/// `path.rs::name` in backticks.
fn references(cell: &str) -> Vec<(&str, &str)> {
    cell.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.rsplit_once("::")).collect()
}

/// Names of the test functions in a file's text.
fn tests_of(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        let attribute = line.starts_with("#[");
        marked |= attribute && (line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
        let after = line.split_once("fn ").map(|(_, after)| after);
        if let Some(name) = after.and_then(|after| after.split(['(', '<']).next()) {
            if marked {
                found.insert(name);
            }
            marked = false;
        } else if !attribute && !line.starts_with("//") {
            // proptest's blocks and macros that make tests are not followed: such tests are named by their file's own.
            marked = false;
        }
    }
    found
}

fn wrong(page: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for row in attacks(page) {
        let named = row.last().map(|cell| references(cell)).unwrap_or_default();
        if row.len() != 4 || named.is_empty() {
            wrong.push(format!("no test tries: {}", row.join(" | ")));
        }
        for (file, test) in named {
            match read(file) {
                None => wrong.push(format!("{file} does not exist, for: {}", row[0])),
                Some(text) if !tests_of(&text).contains(test) => {
                    wrong.push(format!("{file} has no test {test}, for: {}", row[0]));
                }
                Some(_) => {}
            }
        }
    }
    wrong
}

fn files_below(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_file() {
        found.push(path.to_owned());
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        files_below(&entry.path(), found);
    }
}

#[test]
fn every_attack_names_tests_that_exist() {
    let page = page();
    assert!(attacks(&page).len() > 20, "the page's tables were not found");
    let wrong = wrong(&page, |file| fs::read_to_string(root().join(file)).ok());
    assert!(wrong.is_empty(), "docs/security.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_test_of_the_hostile_peer_is_on_the_page() {
    let page = page();
    let mut files = Vec::new();
    HOSTILE.iter().for_each(|place| files_below(&root().join(place), &mut files));
    let mut missing = Vec::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(&file).unwrap();
        for test in tests_of(&text) {
            if !page.contains(&format!("`{name}::{test}`")) {
                missing.push(format!("{name}::{test}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/security.md does not name:\n{}", missing.join("\n"));
}

#[test]
fn a_row_without_a_test_and_a_test_that_is_none_are_seen() {
    let page = "| attack | by | what happens | shown by |\n| --- | --- | --- | --- |\n\
                | a | b | c | |\n| d | e | f | `x.rs::gone` |\n| g | h | i | `x.rs::here` |\n\
                | j | k | l | `y.rs::here` |\n";
    let text = "#[test]\nfn here() {}\nfn gone() {}\n";
    let wrong = wrong(page, |file| (file == "x.rs").then(|| text.to_owned()));
    assert_eq!(wrong.len(), 3, "{wrong:?}");
}
