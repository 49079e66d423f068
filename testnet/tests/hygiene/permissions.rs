//! Every file that a node makes, with its permissions, whatever the umask: the list in docs/operations.md, and nothing
//! else.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use super::life::{
    desk_and_renderer, everything_below, graph, is_the_tests_own, programs, samples, submit, tell,
};

/// The rows of the table of files: a path below the data directory, `*` for any part of a name, and its mode.
fn listed() -> BTreeMap<String, u32> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let path = cells.next()?.strip_suffix('`')?;
        let mode = u32::from_str_radix(cells.next()?.strip_prefix('0')?, 8).ok()?;
        Some((path.trim_end_matches('/').to_owned(), mode))
    });
    rows.collect()
}

/// Whether a name is as a pattern says; `*` stands for anything but `/`.
fn matches(pattern: &str, path: &str) -> bool {
    let (patterns, parts): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    patterns.len() == parts.len()
        && patterns.iter().zip(parts).all(|(pattern, part)| part_matches(pattern, part))
}

fn part_matches(pattern: &str, part: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == part,
        Some((before, after)) => {
            part.len() >= before.len() + after.len() && part.starts_with(before) && part.ends_with(after)
        }
    }
}

/// What lies in a data directory now and is not the test's own.
fn look(dir: &Path, seen: &mut BTreeSet<(PathBuf, u32)>) {
    for path in everything_below(dir).into_iter().filter(|path| !is_the_tests_own(dir, path)) {
        // It may be gone by now.
        if let Ok(meta) = std::fs::symlink_metadata(&path) {
            seen.insert((path.strip_prefix(dir).unwrap().to_owned(), meta.permissions().mode() & 0o7777));
        }
    }
}

#[test]
fn every_file_of_a_node_is_listed_and_private_whatever_the_umask() {
    tell(programs().under_umask("000"), |mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &["--step-ms", "60"]).await?;
            mesh.ok("birch-01", &["policy", "deny", "SaveVideo"]).await?;
            let token = dir.join("token.json").display().to_string();
            mesh.ok("birch-01", &["user", "add", "noor", "--out", &token]).await?;
            let mut seen = BTreeSet::new();
            let dirs: Vec<PathBuf> = mesh.nodes().map(|node| node.dir.clone()).collect();
            let job = submit(mesh, dir, &graph(20), &[]).await?;
            mesh.job_until("desk", &job, "it samples", samples).await?;
            dirs.iter().for_each(|dir| look(dir, &mut seen));
            mesh.job_until("desk", &job, "it is done", |job| job["state"] == "done").await?;
            mesh.ok("birch-01", &["lend", "on"]).await?;
            dirs.iter().for_each(|dir| look(dir, &mut seen));
            mesh.kill("birch-01").await?;
            mesh.start("birch-01").await?;
            dirs.iter().for_each(|dir| look(dir, &mut seen));

            for dir in &dirs {
                let mode = std::fs::metadata(dir)?.permissions().mode() & 0o7777;
                ensure!(mode == 0o700, "{} is {mode:04o}", dir.display());
            }
            let listed = listed();
            ensure!(listed.len() > 8, "the table is there: {listed:?}");
            let mut wrong = Vec::new();
            for (path, mode) in &seen {
                let path = path.to_str().unwrap();
                let row = listed.iter().find(|(pattern, _)| matches(pattern, path));
                if row.is_none_or(|(_, expected)| expected != mode) {
                    wrong.push(format!("{path} {mode:04o}, listed as {row:?}"));
                }
            }
            ensure!(wrong.is_empty(), "not as docs/operations.md lists them:\n{}", wrong.join("\n"));
            // Of a moment: a life may pass without a look at them.
            let brief = ["*.new", "*.sealing", "*.part", "*.have", "snap.*"];
            let lasting = listed.keys().filter(|pattern| !brief.iter().any(|end| pattern.ends_with(end)));
            let was_seen =
                |pattern: &str| seen.iter().any(|(path, _)| matches(pattern, path.to_str().unwrap()));
            let never: Vec<_> = lasting.filter(|pattern| !was_seen(pattern)).collect();
            ensure!(never.is_empty(), "docs/operations.md lists what is never made: {never:?}");
            Ok(())
        })
    });
}

#[test]
fn results_follow_the_artists_umask() {
    tell(programs().under_umask("027"), |mesh, dir| {
        Box::pin(async move {
            desk_and_renderer(mesh, &[]).await?;
            let out = dir.join("frames");
            let file = scenemesh_testnet::scenarios::graph_file(
                dir,
                "tiny.json",
                &scenemesh_testnet::workflows::tiny(3),
            )?;
            let arguments = ["submit", &file, "--reach", "pool", "--out", &out.display().to_string()];
            let job = mesh.ok("desk", &arguments).await?;
            let saved = scenemesh_testnet::scenarios::outputs(&job);
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            ensure!(saved.len() == 1 && mode(&saved[0]) == 0o640, "{saved:?} is {:o}", mode(&saved[0]));
            ensure!(mode(&out) == 0o750, "the folder is {:o}", mode(&out));
            Ok(())
        })
    });
}

#[test]
fn keys_that_others_can_read_are_not_used() {
    tell(programs(), |mesh, _| {
        Box::pin(async move {
            mesh.add("desk", scenemesh_testnet::cluster::Comfy::Absent).await?;
            mesh.kill("desk").await?;
            let dir = mesh.node("desk").dir.clone();
            let key = dir.join("keys/node.key");
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644))?;
            let mut daemon = programs().command("scenemeshd");
            let ended = daemon.args(["--data-dir", &dir.display().to_string()]).output().await?;
            let log = String::from_utf8_lossy(&ended.stderr).into_owned();
            ensure!(ended.status.code() == Some(64), "it does not start: {log}");
            ensure!(log.contains("can be read by others") && log.contains("chmod 600"), "{log}");
            Ok(())
        })
    });
}

#[test]
fn rows_match_paths_part_by_part() {
    assert!(matches("journal/*.log", "journal/00000001.log") && matches("blobs/*", "blobs/ab"));
    assert!(!matches("journal/*", "journal/a/b") && !matches("journal/*.log", "journal/log"));
}
