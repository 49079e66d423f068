//! One storm of known seed over eight processes: `testnet chaos` runs others, and at the pace of life.

use scenemesh_testnet::chaos::{self, Options};
use scenemesh_testnet::program::Programs;

#[test]
fn every_task_ends_exactly_once_whoever_dies_and_whatever_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = Options { seed: Some(20_261_126), tasks: 300, kills: 5, pace: 20, keep: None, json: false };
    let programs = Programs::at(env!("CARGO_BIN_EXE_testnet"));
    let figures = runtime.block_on(chaos::storm_over(programs, dir.path(), &options)).unwrap();
    assert!(figures["tasks"].as_u64() >= Some(300), "{figures}");
    for (phase, ends) in figures["phases"].as_object().unwrap() {
        let moments: u64 = ends.as_array().unwrap().iter().filter_map(serde_json::Value::as_u64).sum();
        assert!(moments >= 5, "{phase}: {figures}");
    }
}
