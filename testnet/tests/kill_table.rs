//! The kill table over real processes, one mesh for each kind of fault. `--nocapture` prints it.

#![expect(clippy::print_stdout, reason = "the table is what is wanted")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps in vain, its helpers too")]

use scenemesh_testnet::program::Programs;
use scenemesh_testnet::scenarios::kill_table::{self, Fault};
use scenemesh_testnet::story;

fn table(fault: Fault) {
    let programs = Programs::at(env!("CARGO_BIN_EXE_testnet"));
    let table = story::tell(programs, async |mesh, dir| kill_table::run(mesh, dir, fault).await).unwrap();
    println!("{fault:?}\n{}", table.join("\n"));
}

#[test]
fn the_page_has_every_point() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (record, _) in kill_table::POINTS {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{record}` |")));
        let cells = row.unwrap_or_else(|| panic!("docs/operations.md says nothing of {record}")).split(" | ");
        assert_eq!(cells.count(), 4, "{record}");
    }
}

#[test]
fn the_one_that_writes_is_killed() {
    table(Fault::Kill);
}

#[test]
fn both_ends_are_killed() {
    table(Fault::KillBoth);
}

#[test]
fn the_link_is_cut() {
    table(Fault::Cut);
}
