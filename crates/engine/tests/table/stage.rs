//! A run on which commands are tried, one after another.

use std::sync::Arc;

use longtake_engine::command::{Command, Decision};
use longtake_engine::decide::apply;
use longtake_engine::definition::Workflow;
use longtake_engine::event::{Event, EventKind};
use longtake_engine::ids::{RunId, Secret, StepNo};
use longtake_engine::run::Run;
use longtake_engine::time::Timestamp;
use longtake_engine::{decide, evolve};
use uuid::Uuid;

use crate::flow::split;
use crate::{script, show};

pub const RUN: RunId = RunId(Uuid::from_u128(1));

#[derive(Clone)]
pub struct Stage {
    pub workflow: Arc<Workflow>,
    pub run: Option<Run>,
    pub now: Timestamp,
    history: Vec<Event>,
    /// Operator calls so far: each has its own request id unless the row names one.
    pub calls: u128,
}

/// What a command did, as rows write it.
pub struct Told {
    pub events: String,
    pub answer: String,
    /// Everything that is said to people.
    pub says: String,
    pub refused: bool,
}

impl Stage {
    pub fn new(workflow: Arc<Workflow>) -> Stage {
        Stage { workflow, run: None, now: Timestamp(0), history: Vec::new(), calls: 1000 }
    }

    /// Plays commands that are separated by `;` and that nothing may refuse; `9x(…)` plays what is in the brackets nine times.
    pub fn prepare(&mut self, script: &str) {
        for command in split(script, ';') {
            match command.split_once("x(") {
                Some((times, commands)) => {
                    let times: usize = times.parse().unwrap_or_else(|_| panic!("how often? {command}"));
                    (0..times).for_each(|_| self.prepare(commands.strip_suffix(')').unwrap_or(commands)));
                }
                None => {
                    let told = self.play(command);
                    assert!(!told.refused, "{script}: {command}: {}", told.says);
                }
            }
        }
    }

    /// Reads a command as written in a row; `+10s` or `@60s` before it moves the clock.
    pub fn read(&mut self, text: &str) -> Command {
        let text = match text.split_once(' ') {
            Some((time, rest)) if time.starts_with(['+', '@']) => {
                let span = script::micros(&time[1..]);
                self.now =
                    Timestamp(if time.starts_with('+') { self.now.0.saturating_add(span) } else { span });
                rest.trim()
            }
            _ => text,
        };
        script::command(self, text)
    }

    /// Reads a command and follows it.
    pub fn play(&mut self, text: &str) -> Told {
        let command = self.read(text);
        let before = self.run.clone();
        let decision = self.follow(&command);
        let mut shadow = before;
        let events: Vec<String> = decision
            .events
            .iter()
            .map(|event| {
                let earlier = shadow.take();
                shadow = evolve(earlier.clone(), event);
                show::event(&self.workflow, earlier.as_ref(), shadow.as_ref(), &event.kind)
            })
            .collect();
        let kinds: Vec<&EventKind> = decision.events.iter().map(|event| &event.kind).collect();
        let refusal = decision.answer.as_ref().err().map(ToString::to_string);
        Told {
            events: if events.is_empty() { "nothing".to_owned() } else { events.join(", ") },
            answer: show::answer(&decision.answer),
            says: format!("{kinds:?} {}", refusal.unwrap_or_default()),
            refused: decision.answer.is_err(),
        }
    }

    /// Follows a command, and checks what holds for every decision: `apply` does as `decide` says, and the state is the fold of
    /// the events, which are numbered without gaps.
    pub fn follow(&mut self, command: &Command) -> Decision {
        let copied = decide(&self.workflow, RUN, self.run.as_ref(), command, self.now);
        let decision = apply(&self.workflow, RUN, &mut self.run, command, self.now);
        assert_eq!(
            (&copied.events, &copied.answer),
            (&decision.events, &decision.answer),
            "decide and apply differ"
        );
        let last = self.history.last().map_or(i64::MIN, |event| event.at.0);
        assert!(decision.events.iter().all(|event| event.at.0 >= last), "time stepped back");
        self.history.extend(decision.events.iter().cloned());
        let folded = self.history.iter().fold(None, evolve);
        assert_eq!(folded, self.run, "the state is not the fold of its events");
        let numbers = self.history.iter().map(|event| event.number);
        assert!(
            numbers.eq(1..=i64::try_from(self.history.len()).unwrap_or(0)),
            "events are not numbered from 1"
        );
        decision
    }

    pub fn step(&self, name: &str) -> StepNo {
        match self.workflow.step(name) {
            Some((number, _)) => number,
            None => name.parse().unwrap_or_else(|_| panic!("no step {name}")),
        }
    }

    pub fn attempt(&self, step: StepNo) -> u32 {
        self.run.as_ref().and_then(|run| run.steps.get(step)).map_or(0, longtake_engine::run::Step::attempt)
    }
}

/// The proof that attempt `attempt` of `step` is given.
pub fn secret(step: StepNo, attempt: u32) -> Secret {
    let number = u128::try_from(step).unwrap_or(0) << 32 | u128::from(attempt);
    Secret(number.to_be_bytes())
}
