//! Journals against histories: what clients and executors did and were told must be what is stored.
//!
//! The order of lines means nothing: each process has its own file.

use std::collections::HashMap;

use longtake_proto::v1::attempt::Cause;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde_json::Value as Json;

use super::Findings;
use super::history::{Attempt, History, own_report};
use crate::journal::Line;

/// What the journals say, by run and by request id.
pub struct Journals<'a> {
    asks: HashMap<&'a str, Ask<'a>>,
    runs: HashMap<&'a str, Vec<&'a Line>>,
}

/// What became of a request id.
#[derive(Default)]
struct Ask<'a> {
    workflow: &'a str,
    input: Option<&'a Json>,
    /// The run that was acknowledged first.
    acked: Option<&'a str>,
    created: u32,
    asked: u32,
    answered: u32,
    refused: Option<&'a str>,
    unknown: bool,
    /// The run that is stored of it.
    stored: Option<String>,
}

impl<'a> Journals<'a> {
    /// Sorts the lines. What two of them say of one request id is judged here.
    pub fn index(lines: &'a [Line], findings: &mut Findings) -> Journals<'a> {
        let mut journals = Journals { asks: HashMap::new(), runs: HashMap::new() };
        for line in lines {
            findings.count(name(line));
            match line {
                Line::Fault { kind, .. } => {
                    findings.count(&format!("fault.{kind}"));
                }
                Line::Ordered { run, order, ok } => {
                    findings.count(&format!("ordered.{order}.{}", if *ok { "ok" } else { "refused" }));
                    journals.runs.entry(run).or_default().push(line);
                }
                Line::Reported { run, verdict, .. } => {
                    findings.count(&format!("reported.{verdict}"));
                    journals.runs.entry(run).or_default().push(line);
                }
                Line::Started { run, .. } | Line::Checkpointed { run, .. } | Line::Made { run, .. } => {
                    journals.runs.entry(run).or_default().push(line);
                }
                Line::Asked { .. }
                | Line::Acked { .. }
                | Line::Refused { .. }
                | Line::Unknown { .. }
                | Line::Reused { .. } => journals.ask(line, findings),
            }
        }
        journals
    }

    fn ask(&mut self, line: &'a Line, findings: &mut Findings) {
        match line {
            Line::Asked { ask, workflow, input } => {
                let it = self.asks.entry(ask).or_default();
                it.asked += 1;
                it.workflow = workflow;
                it.input = Some(input);
            }
            Line::Acked { ask, run, created } => {
                let it = self.asks.entry(ask).or_default();
                it.answered += 1;
                it.created += u32::from(*created);
                let first = *it.acked.get_or_insert(run);
                // A2: every repetition gets the same run, which is made once.
                if first != run {
                    findings.wrong("A2", || format!("ask {ask} was answered with runs {first} and {run}"));
                }
                if it.created == 2 && *created {
                    findings.wrong("A2", || format!("ask {ask}, run {run}: it was created twice"));
                }
            }
            Line::Refused { ask, code } => {
                let it = self.asks.entry(ask).or_default();
                it.answered += 1;
                it.refused = Some(code);
            }
            Line::Unknown { ask } => {
                let it = self.asks.entry(ask).or_default();
                it.answered += 1;
                it.unknown = true;
            }
            // A3: the same id with another input is refused.
            Line::Reused { ask, refused: false } => {
                findings.wrong("A3", || format!("ask {ask} was accepted a second time, with another input"));
            }
            _ => {}
        }
    }

    /// Compares a run's history with all that is noted of the run.
    pub fn compare(&mut self, history: &History<'_>, findings: &mut Findings) {
        self.compare_ask(history, findings);
        let lines = self.runs.remove(history.run_id).unwrap_or_default();
        let mut run = Run { history, findings, started: HashMap::new(), made: HashMap::new() };
        for line in &lines {
            run.begin(line);
        }
        run.outputs();
        let mut verdicts: HashMap<Report<'_>, Vec<&str>> = HashMap::new();
        for line in lines {
            match line {
                Line::Checkpointed { step, attempt, done, .. } => run.checkpointed(step, *attempt, *done),
                Line::Ordered { order, ok: true, .. } => run.ordered(order),
                Line::Reported { step, attempt, nonce, verdict, .. } => {
                    verdicts.entry((step, *attempt, nonce)).or_default().push(verdict);
                }
                _ => {}
            }
        }
        for (report, verdicts) in verdicts {
            run.reported(report, &verdicts);
        }
    }

    fn compare_ask(&mut self, history: &History<'_>, findings: &mut Findings) {
        let run = history.run_id;
        let asked = history.created.input.as_ref().and_then(|input| text(input, "ask"));
        let found = asked.and_then(|asked| self.asks.get_mut(asked).map(|ask| (asked, ask)));
        let Some((asked, ask)) = found.filter(|(_, ask)| ask.asked > 0) else {
            return findings.wrong("A5", || format!("run {run}: nobody asked for it ({asked:?})"));
        };
        if let Some(first) = &ask.stored {
            findings.wrong("A2", || format!("ask {asked} has two runs: {first} and {run}"));
        }
        ask.stored = Some(run.to_owned());
        // A1: with the input that was sent.
        let stored = history.created.input.as_ref();
        if !ask.input.zip(stored).is_some_and(|(sent, stored)| same_object(stored, sent)) {
            findings
                .wrong("A1", || format!("run {run}, ask {asked}: its input is not the one that was sent"));
        }
        if ask.workflow != history.created.workflow {
            let (sent, stored) = (ask.workflow, &history.created.workflow);
            findings.wrong("A1", || format!("run {run}, ask {asked}: {sent} was asked for, not {stored}"));
        }
        if let Some(acked) = ask.acked.filter(|acked| *acked != run) {
            findings.wrong("A1", || format!("run {run}, ask {asked}: run {acked} was acknowledged"));
        }
    }

    /// What should be stored and is not, and the other way round.
    pub fn finish(self, findings: &mut Findings) {
        for (name, ask) in self.asks {
            match (&ask.stored, ask.acked, ask.refused) {
                (None, Some(run), _) => {
                    findings.wrong("A1", || format!("ask {name}: run {run} was acknowledged, and is lost"));
                }
                // Asked more often than answered: that one may have been taken.
                (Some(run), None, Some(code)) if !ask.unknown && ask.asked <= ask.answered => {
                    findings.wrong("A5", || {
                        format!("ask {name} was refused with {code}, and run {run} is stored")
                    });
                }
                (Some(_), None, _) => {
                    findings.count("unanswered.stored");
                }
                (None, None, _) => {
                    findings.count("unanswered.not_stored");
                }
                (Some(_), Some(_), _) => {}
            }
        }
        for (run, lines) in self.runs {
            let real = lines.iter().find(|line| match line {
                Line::Reported { verdict, .. } => verdict == "OK",
                Line::Ordered { ok, .. } => *ok,
                // Made before it is known whether anybody wants it.
                Line::Made { .. } => false,
                _ => true,
            });
            if let Some(line) = real {
                findings.wrong("A1", || format!("run {run} is not stored, and a journal has {line:?}"));
            }
        }
    }
}

/// A step, an attempt, and what it had made.
type Report<'a> = (&'a str, i32, &'a str);

/// One run's journals beside its history.
struct Run<'h, 'a, 'f> {
    history: &'h History<'h>,
    findings: &'f mut Findings,
    /// By step and attempt: who began it.
    started: HashMap<(&'a str, i32), &'a str>,
    /// By step and attempt: the nonces of its outputs.
    made: HashMap<(&'a str, i32), Vec<&'a str>>,
}

impl<'h, 'a> Run<'h, 'a, '_> {
    fn wrong(&mut self, rule: &str, step: &str, attempt: i32, what: &str) {
        let run = self.history.run_id;
        self.findings.wrong(rule, || format!("run {run}, step {step}, attempt {attempt}: {what}"));
    }

    fn attempt(&self, step: &str, attempt: i32) -> Option<&'h Attempt<'h>> {
        let step = self.history.steps.iter().find(|it| it.name == step)?;
        step.attempts.get(usize::try_from(attempt).ok()?.checked_sub(1)?)
    }

    fn begin(&mut self, line: &'a Line) {
        match line {
            Line::Started { executor, step, attempt, previous, .. } => {
                self.begun(executor, step, *attempt, *previous);
            }
            Line::Made { step, attempt, nonce, .. } => {
                self.made.entry((step, *attempt)).or_default().push(nonce);
            }
            _ => {}
        }
    }

    /// B2, B4: an attempt is begun by one executor, the one that has the lease. B10: from the checkpoint that was committed then.
    fn begun(&mut self, executor: &'a str, step: &'a str, attempt: i32, previous: Option<i64>) {
        if let Some(other) = self.started.insert((step, attempt), executor) {
            self.wrong("B4", step, attempt, &format!("begun twice, by {other} and by {executor}"));
        }
        let Some(leased) = self.attempt(step, attempt) else {
            return self.wrong("B6", step, attempt, &format!("{executor} began it, and it was never leased"));
        };
        if leased.executor != executor {
            let what = format!("{executor} began it, and it was leased to {}", leased.executor);
            self.wrong("B4", step, attempt, &what);
        }
        if leased.handed != previous {
            let what = format!("handed checkpoint {previous:?}, and {:?} was committed", leased.handed);
            self.wrong("B10", step, attempt, &what);
        }
    }

    /// B2: a step's output is what the attempt that it names had made.
    fn outputs(&mut self) {
        for step in &self.history.steps {
            for (attempt, number) in step.attempts.iter().zip(1..) {
                let Some(output) = attempt.output else { continue };
                let nonce = text(output, "nonce").unwrap_or_default();
                let made = self.made.get(&(step.name, number));
                if made.is_some_and(|made| made.contains(&nonce)) {
                    continue;
                }
                let maker = self.made.iter().find(|(_, made)| made.contains(&nonce));
                let maker = maker.map_or("nobody made".to_owned(), |((step, attempt), _)| {
                    format!("attempt {attempt} of step {step} made")
                });
                self.wrong(
                    "B2",
                    step.name,
                    number,
                    &format!("succeeded with output {nonce:?}, which {maker}"),
                );
            }
        }
    }

    /// B10: an acknowledged checkpoint is never lost. One that a newer one of its attempt replaced is in that.
    fn checkpointed(&mut self, step: &str, attempt: i32, done: i64) {
        let dones = self.attempt(step, attempt).map_or(&[][..], |attempt| &attempt.dones);
        if dones.contains(&done) {
            return;
        }
        if dones.iter().any(|stored| *stored > done) {
            self.findings.count("checkpoints.replaced");
            return;
        }
        let what =
            format!("checkpoint {done} was acknowledged, and is not in the history, which has {dones:?}");
        self.wrong("B10", step, attempt, &what);
    }

    /// D2: whoever was told that a run is cancelled (paused, to be retried) can see that it was.
    fn ordered(&mut self, order: &str) {
        // A run that is not paused is resumed already.
        let seen = order == "resume" || self.history.ordered.contains(&order);
        if !seen {
            let run = self.history.run_id;
            self.findings
                .wrong("D2", || format!("run {run}: {order} was acknowledged, and is not in its history"));
        }
    }

    /// B2, B5: what was accepted is stored, what was refused is not, and a verdict stands.
    fn reported(&mut self, (step, number, nonce): Report<'_>, verdicts: &[&str]) {
        let attempt = self.attempt(step, number);
        let stored = attempt.and_then(|attempt| attempt.output).and_then(|output| text(output, "nonce"));
        let stored = stored == Some(nonce) && !nonce.is_empty();
        let refusal = verdicts.iter().find(|verdict| refuses(verdict));
        let ok = verdicts.contains(&"OK");
        if let Some(refusal) = refusal.filter(|_| ok && !nonce.is_empty()) {
            self.wrong(
                "B5",
                step,
                number,
                &format!("report {nonce} was accepted and refused with {refusal}"),
            );
        }
        if ok && !stored && !nonce.is_empty() {
            self.wrong(
                "B2",
                step,
                number,
                &format!("report {nonce} was accepted, and is not in the history"),
            );
        }
        if let Some(refusal) = refusal.filter(|_| stored) {
            let what = format!("report {nonce} was refused with {refusal}, and is in the history");
            self.wrong("B2", step, number, &what);
        }
        for verdict in verdicts {
            let cause = attempt.and_then(|attempt| attempt.cause);
            let fits = match *verdict {
                "LEASE_ENDED" => cause.is_some_and(own_report),
                "LEASE_SUPERSEDED" => cause.is_some_and(|cause| !own_report(cause) && !stopped(cause)),
                "RUN_STOPPED" => cause.is_some_and(stopped),
                _ => true,
            };
            if !fits {
                self.wrong(
                    "B2",
                    step,
                    number,
                    &format!("told {verdict}, and its attempt's end is {cause:?}"),
                );
            }
        }
    }
}

/// The server took the lease back because the step or the run was stopped.
fn stopped(cause: Cause) -> bool {
    matches!(cause, Cause::StepTimeout | Cause::Stopped)
}

/// Whether this verdict says for good that the report changed nothing. LEASE_ENDED may be the answer to a report that was taken the
/// first time, and others (UNAVAILABLE) mean that nobody knows.
fn refuses(verdict: &str) -> bool {
    matches!(
        verdict,
        "LEASE_SUPERSEDED" | "LEASE_UNKNOWN" | "RUN_STOPPED" | "OUTPUT_INVALID" | "FIELD_INVALID"
    )
}

/// A field's text.
fn text<'a>(fields: &'a Struct, name: &str) -> Option<&'a str> {
    match fields.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn same_object(stored: &Struct, sent: &Json) -> bool {
    let Json::Object(sent) = sent else { return false };
    stored.fields.len() == sent.len()
        && sent.iter().all(|(name, sent)| stored.fields.get(name).is_some_and(|stored| same(stored, sent)))
}

fn same(stored: &Value, sent: &Json) -> bool {
    match (stored.kind.as_ref(), sent) {
        (None | Some(Kind::NullValue(_)), Json::Null) => true,
        (Some(Kind::BoolValue(stored)), Json::Bool(sent)) => stored == sent,
        (Some(Kind::NumberValue(stored)), Json::Number(sent)) => sent.as_f64() == Some(*stored),
        (Some(Kind::StringValue(stored)), Json::String(sent)) => stored == sent,
        (Some(Kind::StructValue(stored)), sent) => same_object(stored, sent),
        (Some(Kind::ListValue(stored)), Json::Array(sent)) => {
            let pairs = || stored.values.iter().zip(sent);
            stored.values.len() == sent.len() && pairs().all(|(stored, sent)| same(stored, sent))
        }
        _ => false,
    }
}

fn name(line: &Line) -> &'static str {
    match line {
        Line::Asked { .. } => "journal.asked",
        Line::Acked { .. } => "journal.acked",
        Line::Refused { .. } => "journal.refused",
        Line::Unknown { .. } => "journal.unknown",
        Line::Reused { .. } => "journal.reused",
        Line::Ordered { .. } => "journal.ordered",
        Line::Started { .. } => "journal.started",
        Line::Checkpointed { .. } => "journal.checkpointed",
        Line::Made { .. } => "journal.made",
        Line::Reported { .. } => "journal.reported",
        Line::Fault { .. } => "journal.fault",
    }
}
