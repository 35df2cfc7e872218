//! The benchmark itself: that it runs and that its runs are complete. What it measures here, in a debug build, means nothing.

use std::time::Duration;

use longtake_e2e::{World, run};
use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn saturation_is_measured_and_every_run_is_accounted_for() {
    let world = World::without_database();
    let json = world.dir().join("w1.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_longtake-bench"));
    // Three seconds: a backend reports what it did once a second at most, and a shorter window may see nothing of it.
    command
        .args(["w1", "--in-flight", "64", "--repeats", "1", "--seconds", "3", "--warm-up", "1", "--json"])
        .arg(&json);
    let outcome = run(command, Duration::from_secs(180)).await;
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.out, outcome.err);
    let figures: Value = serde_json::from_slice(&std::fs::read(json).expect("the figures")).expect("JSON");
    let points = figures["figures"]["points"].as_array().expect("points");
    assert_eq!(points.len(), 3, "single calls, batches, and the executor library");
    for point in points {
        // A figure that is there has passed the check that every acknowledged run succeeded once.
        assert!(point["runs_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{point}");
        assert!(point["wal_bytes"].as_f64().is_some_and(|bytes| bytes > 1_000.0), "{point}");
        assert!(point["hot_share"].as_f64().is_some_and(|share| share > 0.5), "{point}");
    }
    assert!(figures["figures"]["f2"][0]["runs_per_second"].as_f64().is_some_and(|rate| rate > 0.0));
}
