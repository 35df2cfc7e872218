//! Any bytes as a stored history: an error that names what is wrong, or events that fold. What folded is decided on, too.

#![no_main]

use libfuzzer_sys::fuzz_target;
use longtake_engine::command::Operation;
use longtake_engine::definition::Workflow;
use longtake_engine::ids::{RequestId, RunId};
use longtake_engine::rows::Rows;
use longtake_engine::{Command, decide, evolve};
use longtake_orchestrator::codec::{decode_events, fold};

const DEFINITION: &[u8] = include_bytes!("../../workflows/content.toml");

fuzz_target!(|bytes: &[u8]| {
    let Ok(events) = decode_events(bytes) else { return };
    let workflow = Workflow::parse(DEFINITION).expect("the shipped definition parses");
    let mut run = None;
    for event in events {
        let Ok(event) = fold::event(&workflow, event) else { return };
        run = evolve(run, &event);
    }
    let Some(run) = run else { return };
    let timers = Rows::of(&run).timers.into_keys().map(Command::Fire);
    let operation = Operation::Cancel { reason: "fuzzed".to_owned() };
    let cancel = Command::Operate { call: RequestId(Default::default()), operation };
    for command in timers.chain([cancel]) {
        decide(&workflow, RunId(Default::default()), Some(&run), &command, run.updated_at);
    }
});
