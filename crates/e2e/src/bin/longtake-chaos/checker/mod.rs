//! What must hold after a chaos run, whatever was done to it: histories, stored rows and journals against each other.
//!
//! Nothing here comes from the engine: the rules are written down a second time, from DESIGN.md §5 and §7 and `event.proto`, so that
//! a mistake there is not made here too. `history` follows one run's events, `journals` compares them with what clients and
//! executors noted for themselves, `measures` takes the times. The ids (A1 … G2) are those of `research/reliability.md` §2; §5 means
//! the table of DESIGN.md.
//!
//! A history that the engine may write is silent. What it leaves open is counted and not judged: a checkpoint whose `done` is
//! less than that of the one before (only (attempt, sequence) orders them), and a cost other than the price.

mod history;
mod journals;
mod measures;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use longtake_proto::v1;
use longtake_proto::v1::event::Kind;

use self::journals::Journals;
use self::measures::Measures;
use crate::journal::Line;

/// Violations that are told in full, in all and of one rule; the rest is counted.
const TOLD: usize = 50;
const TOLD_OF_A_RULE: u64 = 8;

/// A run as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    pub run_no: i64,
    pub run_id: String,
    /// `Run.State` without its prefix.
    pub state: String,
    /// The number of its latest event.
    pub version: i64,
    /// In nano-dollars, like `saved`.
    pub spent: i64,
    pub saved: i64,
    /// In the definition's order: 0 PENDING, READY, LEASED, RUNNING, BACKING_OFF, SUCCEEDED, SKIPPED, FAILED, TIMED_OUT, 9 CANCELLED.
    pub step_states: Vec<i16>,
    /// The steps' latest attempts.
    pub attempts: Vec<i32>,
    /// Its history, in order.
    pub events: Vec<v1::Event>,
}

/// A workflow, as far as the rules need it.
#[derive(Debug, Clone)]
pub struct Definition {
    pub name: String,
    /// In the file's order.
    pub steps: Vec<DefinedStep>,
}

/// A step of a workflow.
#[derive(Debug, Clone)]
pub struct DefinedStep {
    pub name: String,
    /// Names of the steps before it.
    pub needs: Vec<String>,
    /// In nano-dollars.
    pub price: i64,
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// None if all is well; at most [`TOLD`] and a line with the number of the others.
    pub violations: Vec<String>,
    /// What there was of each kind, so that a run in which nothing happened does not pass for a good one.
    pub counts: BTreeMap<String, u64>,
    /// From the killing of an executor to the next lease of each step that it held, in milliseconds.
    pub recovered_ms: Vec<f64>,
    /// How much later than its `until` a backoff ended, in milliseconds.
    pub backoff_late_ms: Vec<f64>,
}

/// Compares what is stored with the rules and with the journals.
pub fn check(runs: &[Stored], definitions: &[Definition], lines: &[Line]) -> Verdict {
    let mut findings = Findings::default();
    let mut journals = Journals::index(lines, &mut findings);
    let definitions: HashMap<&str, &Definition> =
        definitions.iter().map(|definition| (definition.name.as_str(), definition)).collect();
    let mut known = HashMap::with_capacity(runs.len());
    let mut world = World { findings, measures: Measures::of(lines), tokens: HashMap::new() };
    for stored in runs {
        let id = stored.run_id.as_str();
        if let Some(first) = known.insert(id, stored.run_no) {
            let second = stored.run_no;
            world.findings.wrong("A2", || format!("run {id} is stored twice, as {first} and as {second}"));
        }
        world.findings.count("runs");
        world.findings.count(&format!("run.{}", stored.state));
        let Some(created) = created(stored) else {
            world.findings.wrong("G2", || format!("run {id}: its history does not begin with run_created"));
            continue;
        };
        let Some(definition) = definitions.get(created.workflow.as_str()) else {
            world.findings.wrong("A5", || format!("run {id}: nobody defined workflow {}", created.workflow));
            continue;
        };
        let history = history::follow(stored, created, definition, &mut world);
        journals.compare(&history, &mut world.findings);
    }
    let World { mut findings, measures, .. } = world;
    journals.finish(&mut findings);
    let (recovered_ms, backoff_late_ms) = measures.taken(&mut findings);
    Verdict { violations: findings.texts(), counts: findings.counts, recovered_ms, backoff_late_ms }
}

fn created(stored: &Stored) -> Option<&v1::RunCreated> {
    match stored.events.first()?.kind.as_ref()? {
        Kind::RunCreated(created) => Some(created),
        _ => None,
    }
}

/// What is gathered over all runs.
struct World<'a> {
    findings: Findings,
    measures: Measures,
    /// Every lease's hash, and the run that had it first.
    tokens: HashMap<&'a [u8], &'a str>,
}

/// Violations and counts.
#[derive(Default)]
struct Findings {
    told: Vec<String>,
    violations: u64,
    counts: BTreeMap<String, u64>,
}

impl Findings {
    fn wrong(&mut self, rule: &str, text: impl FnOnce() -> String) {
        self.violations += 1;
        if self.count(&format!("violation.{rule}")) <= TOLD_OF_A_RULE && self.told.len() < TOLD {
            self.told.push(format!("{rule}: {}", text()));
        }
    }

    fn count(&mut self, what: &str) -> u64 {
        self.add(what, 1)
    }

    fn add(&mut self, what: &str, many: u64) -> u64 {
        // Millions of events: only the first of a kind allocates.
        if let Some(counter) = self.counts.get_mut(what) {
            *counter += many;
            return *counter;
        }
        self.counts.insert(what.to_owned(), many);
        many
    }

    fn texts(&mut self) -> Vec<String> {
        let mut texts = std::mem::take(&mut self.told);
        let rest = self.violations - texts.len() as u64;
        if rest > 0 {
            texts.push(format!("and {rest} more; see the counts of `violation.`"));
        }
        texts
    }
}
