//! Any bytes as a workflow definition: it parses and has a name, or there is at least one problem to show.

#![no_main]

use libfuzzer_sys::fuzz_target;
use longtake_engine::definition::Workflow;

fuzz_target!(|bytes: &[u8]| match Workflow::parse(bytes) {
    Ok(workflow) => {
        assert!(!workflow.name.is_empty() && !workflow.steps.is_empty());
        assert_eq!(workflow.source.as_bytes(), bytes);
    }
    Err(problems) => assert!(!problems.is_empty()),
});
