//! Random workflows: up to eight steps, any DAG, conditions, timeouts, tight budgets.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use longtake_engine::definition::{Modality, Step, Workflow};
use longtake_engine::ids::RunId;
use longtake_engine::run::NewRun;
use longtake_engine::time::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

pub const RUN: RunId = RunId(Uuid::from_u128(1));

#[derive(Clone, Debug)]
pub struct Plan {
    steps: Vec<StepPlan>,
    /// Whether the file lists steps after those that need them.
    backwards: bool,
    requested: Vec<usize>,
    deadline: Option<i64>,
}

#[derive(Clone, Debug)]
struct StepPlan {
    /// Which of the steps before it it needs, as bits.
    needs: u8,
    when: u8,
    step_timeout: Option<u8>,
    attempt_timeout: Option<u8>,
    budgets: (u8, u8, u8),
    max_attempts: Option<u8>,
    pause: bool,
    price: u32,
    produces: bool,
}

pub fn plan() -> impl Strategy<Value = Plan> {
    let deadline = proptest::option::weighted(0.2, prop_oneof![20 => 0..3_600_000_000i64, 1 => any::<i64>()]);
    let requested = proptest::sample::subsequence(vec![0, 1, 2, 3], 0..=2);
    let steps = proptest::collection::vec(step(), 1..=8);
    (steps, any::<bool>(), requested, deadline).prop_map(|(steps, backwards, requested, deadline)| Plan {
        steps,
        backwards,
        requested,
        deadline,
    })
}

fn step() -> impl Strategy<Value = StepPlan> {
    let timeout = |often| proptest::option::weighted(often, 1..240u8);
    let max = proptest::option::weighted(0.3, 1..9u8);
    let needs = (any::<u8>(), any::<u8>()).prop_map(|(some, others)| some & others);
    let budgets = (1..7u8, 1..7u8, 1..7u8);
    let rest = (budgets, max, any::<bool>(), 0..1_000_000_000u32, any::<bool>());
    (needs, 0..40u8, timeout(0.05), timeout(0.3), rest).prop_map(
        |(needs, when, step_timeout, attempt_timeout, (budgets, max_attempts, pause, price, produces))| {
            StepPlan {
                needs,
                when,
                step_timeout,
                attempt_timeout,
                budgets,
                max_attempts,
                pause,
                price,
                produces,
            }
        },
    )
}

impl Plan {
    pub fn workflow(&self) -> Arc<Workflow> {
        let mut order: Vec<usize> = (0..self.steps.len()).collect();
        if self.backwards {
            order.reverse();
        }
        let steps: String = order.into_iter().map(|number| self.steps[number].text(number)).collect();
        let source = format!("format = 1\nname = \"w\"\n{steps}");
        Arc::new(
            Workflow::parse(source.as_bytes()).unwrap_or_else(|problems| panic!("{problems:#?}\n{source}")),
        )
    }

    pub fn request(&self) -> NewRun {
        let workflow = self.workflow();
        let input = serde_json::json!({ "yes": true, "no": false });
        let answer = |step: &Step| {
            let when = step.when.as_ref().filter(|when| when.reads_only_input())?;
            Some(when.evaluate(&input, &BTreeMap::new()))
        };
        NewRun {
            id: RUN,
            tenant: "t".to_owned(),
            version: workflow.version,
            when: workflow
                .steps
                .iter()
                .enumerate()
                .filter_map(|(n, step)| Some((n, answer(step)?)))
                .collect(),
            input: Arc::new(input),
            requested: self.requested.iter().map(|number| Modality::ALL[*number]).collect(),
            labels: BTreeMap::new(),
            priority: 0,
            deadline: self.deadline.map(Timestamp),
            content_hash: [0; 32],
            trace: BTreeMap::new(),
        }
    }
}

impl StepPlan {
    fn text(&self, number: usize) -> String {
        let needs: Vec<usize> = (0..number).filter(|need| self.needs >> need & 1 == 1).collect();
        let names: Vec<String> = needs.iter().map(|need| format!("s{need}")).collect();
        let mut text = format!("[[step]]\nname = \"s{number}\"\nneeds = {names:?}\n");
        let when = match (self.when, needs.first()) {
            (0..4, _) => "input.yes".to_owned(),
            (4..8, _) => "input.no".to_owned(),
            (8, _) => "input.missing".to_owned(),
            (9..12, Some(need)) => format!("steps.s{need}.output.ok"),
            (12..20, Some(need)) => format!("steps.s{need}.output == null || steps.s{need}.output.ok"),
            _ => String::new(),
        };
        if !when.is_empty() {
            let _ = writeln!(text, "when = \"{when}\"");
        }
        for (key, timeout) in [("step_timeout", self.step_timeout), ("attempt_timeout", self.attempt_timeout)]
        {
            text.extend(timeout.map(|timeout| format!("{key} = \"{timeout}s\"\n")));
        }
        let (failures, losses, yields) = self.budgets;
        let _ = writeln!(text, "budgets = {{ failures = {failures}, losses = {losses}, yields = {yields} }}");
        text.extend(self.max_attempts.map(|max| format!("max_attempts = {max}\n")));
        if self.pause {
            text.push_str("on_exhausted = \"pause\"\n");
        }
        if self.produces && number < Modality::ALL.len() {
            let _ = writeln!(text, "produces = \"{}\"", Modality::ALL[number]);
        }
        let _ = writeln!(text, "price_usd = \"0.{:09}\"", self.price);
        text
    }
}

/// A step whose budgets do not end.
pub fn lenient() -> Step {
    let source = "format = 1\nname = \"w\"\n[[step]]\nname = \"a\"\nbudgets.failures = 10000\n";
    let workflow = Workflow::parse(source.as_bytes()).unwrap_or_else(|problems| panic!("{problems:#?}"));
    workflow.steps[0].clone()
}
