//! A short chaos run: two minutes of faults, and one with a single server. `bin/chaos --minutes 60` is the long one.

use std::time::Duration;

use longtake_e2e::{World, run};
use serde_json::Value;
use tokio::process::Command;

/// Faults for so long, with so many servers.
async fn holds(servers: &str, minutes: &str) {
    let world = World::without_database();
    let json = world.dir().join("verdict.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_longtake-chaos"));
    command.args(["--servers", servers, "--minutes", minutes, "--rate", "20", "--json"]).arg(&json);
    let outcome = run(command, Duration::from_secs(600)).await;
    let verdict = std::fs::read(&json).unwrap_or_default();
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.out, outcome.err);
    let verdict: Value = serde_json::from_slice(&verdict).expect("JSON");
    assert_eq!(verdict["verdict"], "HELD", "{verdict:#}");
    assert_eq!(verdict["violations"], serde_json::json!([]), "{verdict:#}");
}

/// One after the other: each has two cores' work. A server that is alone does without much of what it asks beside another.
#[tokio::test]
async fn nothing_is_lost_stuck_or_done_twice_while_everything_goes_wrong() {
    holds("2", "2").await;
    holds("1", "1").await;
}
