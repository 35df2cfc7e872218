//! A short chaos run: two minutes of faults. `bin/chaos --minutes 60` is the long one.

use std::time::Duration;

use longtake_e2e::{World, run};
use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn nothing_is_lost_stuck_or_done_twice_while_everything_goes_wrong() {
    let world = World::without_database();
    let json = world.dir().join("verdict.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_longtake-chaos"));
    command.args(["--minutes", "2", "--rate", "20", "--json"]).arg(&json);
    let outcome = run(command, Duration::from_secs(600)).await;
    let verdict = std::fs::read(&json).unwrap_or_default();
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.out, outcome.err);
    let verdict: Value = serde_json::from_slice(&verdict).expect("JSON");
    assert_eq!(verdict["verdict"], "HELD", "{verdict:#}");
    assert_eq!(verdict["violations"], serde_json::json!([]), "{verdict:#}");
}
