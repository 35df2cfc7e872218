//! Any text as a `when` condition, evaluated over any JSON: true, false, or a reason why neither.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use longtake_engine::definition::Workflow;
use serde_json::Value;

fuzz_target!(|given: (&str, &str, &str)| {
    let (condition, input, output) = given;
    let quoted = Value::from(condition);
    let source = format!(
        "format = 1\nname = \"fuzzed\"\n[[step]]\nname = \"first\"\n[[step]]\nname = \"second\"\nneeds = [\"first\"]\nwhen = {quoted}\n"
    );
    let Ok(workflow) = Workflow::parse(source.as_bytes()) else { return };
    let json = |text| serde_json::from_str(text).unwrap_or(Value::Null);
    let outputs = BTreeMap::from([("first".to_owned(), json(output))]);
    let when = workflow.steps[1].when.as_ref().expect("it was given");
    let answer = when.evaluate(&json(input), &outputs);
    assert_eq!(answer, when.evaluate(&json(input), &outputs), "the same for the same");
});
