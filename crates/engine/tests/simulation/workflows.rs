//! Workflows to drive, requests for them, and what their steps make.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use longtake_engine::definition::{Modality, Workflow};
use longtake_engine::ids::RunId;
use longtake_engine::run::{Artifact, NewRun, Output};
use longtake_engine::time::{Duration, Timestamp};
use serde_json::{Value, json};

use crate::rng::Rng;

/// The shipped definitions and as many generated ones as make a good mixture; the same in every seed.
pub fn pool() -> &'static [Arc<Workflow>] {
    static POOL: OnceLock<Vec<Arc<Workflow>>> = OnceLock::new();
    POOL.get_or_init(|| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../workflows");
        let files = std::fs::read_dir(folder).expect("the folder of workflows");
        let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        paths.sort();
        let shipped = paths.iter().map(|path| std::fs::read(path).expect("a definition"));
        let mut rng = Rng::new(7);
        let generated = (0..80).map(|number| generate(number, &mut rng).into_bytes());
        let parse = |source: Vec<u8>| match Workflow::parse(&source) {
            Ok(workflow) => Arc::new(workflow),
            Err(problems) => panic!("{problems:?} in\n{}", String::from_utf8_lossy(&source)),
        };
        shipped.chain(generated).map(parse).collect()
    })
}

/// A definition with short times, so that every one of them passes in some seed.
fn generate(number: usize, rng: &mut Rng) -> String {
    let mut text = format!("format = 1\nname = \"generated-{number}\"\n");
    let steps = 1 + rng.below(5);
    for step in 0..steps {
        let _ = write!(text, "\n[[step]]\nname = \"s{step}\"\nqueue = \"q{}\"\n", rng.below(3));
        let needs: Vec<String> =
            (0..step).filter(|_| rng.chance(600)).map(|need| format!("\"s{need}\"")).collect();
        let _ = writeln!(text, "needs = [{}]", needs.join(", "));
        let mut seconds = |text: &mut String, key: &str, permille: u64, from: i64, to: i64| {
            if rng.chance(permille) {
                let _ = writeln!(text, "{key} = \"{}s\"", rng.range(from, to));
            }
        };
        seconds(&mut text, "heartbeat_timeout", 600, 3, 20);
        seconds(&mut text, "progress_timeout", 300, 4, 15);
        seconds(&mut text, "attempt_timeout", 300, 8, 40);
        seconds(&mut text, "step_timeout", 150, 15, 90);
        let _ = writeln!(text, "retry.initial_delay = \"{}ms\"", rng.range(10, 1500));
        let _ = writeln!(text, "retry.max_delay = \"{}s\"", rng.range(2, 8));
        if rng.chance(300) {
            let _ = writeln!(text, "budgets.losses = {}", rng.range(1, 4));
        }
        if rng.chance(200) {
            let _ = writeln!(text, "budgets.yields = {}", rng.range(1, 3));
        }
        if rng.chance(300) {
            text.push_str("on_exhausted = \"pause\"\n");
        }
        if rng.chance(100) {
            let _ = writeln!(text, "max_attempts = {}", rng.range(1, 6));
        }
        if rng.chance(200) {
            text.push_str("when = \"input.wanted > 1\"\n");
        } else if step > 0 && !needs.is_empty() && rng.chance(150) {
            let _ = writeln!(text, "when = 'steps[{}].output.words > 1'", needs[0]);
        }
        if rng.chance(500) {
            let _ = writeln!(text, "price_usd = \"0.00{}\"", rng.range(1, 9));
        }
    }
    text
}

/// A request for a run of `workflow`.
pub fn request(id: RunId, workflow: &Workflow, now: Timestamp, rng: &mut Rng) -> NewRun {
    let requested: Vec<Modality> = Modality::ALL
        .into_iter()
        .filter(|modality| workflow.produces(*modality).is_some() && rng.chance(500))
        .collect();
    let names: Vec<&str> = requested.iter().map(|modality| modality.as_str()).collect();
    let mut input = json!({
        "requested_modalities": names,
        "wanted": rng.range(0, 4),
        "frames": rng.range(0, 3),
        "languages": ["en", "de"],
        "draft": rng.chance(500),
    });
    if rng.chance(50) {
        input = json!({});
    }
    let when = workflow.steps.iter().enumerate().filter_map(|(number, step)| {
        let when = step.when.as_ref().filter(|when| when.reads_only_input())?;
        Some((number, when.evaluate(&input, &BTreeMap::new())))
    });
    NewRun {
        id,
        tenant: "simulation".to_owned(),
        version: workflow.version,
        when: when.collect(),
        input: Arc::new(input),
        requested,
        labels: BTreeMap::new(),
        priority: i32::try_from(rng.range(-1, 2)).unwrap_or(0),
        deadline: rng.chance(150).then(|| now + Duration::from_secs(rng.range(5, 120))),
        content_hash: rng.hash(),
        trace: BTreeMap::new(),
    }
}

/// What a step makes; mostly what the conditions and requests after it want.
pub fn output(workflow: &Workflow, step: usize, mark: u64, rng: &mut Rng) -> Output {
    let mut data = json!({ "mark": mark, "words": rng.range(0, 5), "duration_seconds": rng.range(0, 1200), "language": "en" });
    if rng.chance(20) {
        data = Value::Object(serde_json::Map::from_iter([("mark".to_owned(), Value::from(mark))]));
    }
    let made = workflow.steps[step].produces.filter(|_| rng.chance(980));
    let artifacts = made.iter().map(|modality| Artifact {
        name: modality.as_str().to_owned(),
        uri: format!("file:///{mark}"),
        sha256: "0".repeat(64),
        size_bytes: 1,
        media_type: "text/plain".to_owned(),
    });
    Output { data: Arc::new(data), artifacts: artifacts.collect() }
}
