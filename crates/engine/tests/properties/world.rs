//! A run, its history, and the clock; every command is checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use longtake_engine::command::{Answer, Command, Decision, Refusal, Report};
use longtake_engine::decide::apply;
use longtake_engine::definition::Workflow;
use longtake_engine::event::Event;
use longtake_engine::ids::StepNo;
use longtake_engine::rows::Rows;
use longtake_engine::run::{NewRun, Run};
use longtake_engine::time::Timestamp;
use longtake_engine::{decide, evolve};

use crate::commands::{Asked, Clock, What, lease};
use crate::invariants;
use crate::model;
use crate::workflows::RUN;

pub struct World {
    pub workflow: Arc<Workflow>,
    pub run: Run,
    pub now: Timestamp,
    history: Vec<Event>,
    commands: Vec<Command>,
    /// The rows when the last batch was written.
    batch: Rows,
    /// What reports under leases that are over are told.
    verdicts: BTreeMap<(StepNo, u32), String>,
}

impl World {
    pub fn new(workflow: Arc<Workflow>, request: NewRun) -> World {
        let now = Timestamp(0);
        let create = Command::Create(Arc::new(request));
        let mut run = None;
        let decision = apply(&workflow, RUN, &mut run, &create, now);
        let run = run.unwrap_or_else(|| panic!("not created: {:?}", decision.answer));
        invariants::state(&workflow, &run);
        let (commands, batch) = (vec![create], Rows::default());
        World { workflow, run, now, history: decision.events, commands, batch, verdicts: BTreeMap::new() }
    }

    pub fn play(&mut self, asked: &Asked) {
        self.now = match asked.clock {
            Clock::Stays => self.now,
            Clock::Moves(span) => Timestamp(self.now.0.saturating_add(span)),
            Clock::ToTimer => self.next_due().map_or(self.now, |due| due.max(self.now)),
            Clock::Jumps(to) => Timestamp(to),
        };
        let command = match (&asked.what, asked.what.command(&self.run)) {
            (_, Some(command)) => command,
            (What::Repeat(back), None) => {
                let back = usize::from(*back) % self.commands.len();
                self.commands[self.commands.len() - 1 - back].clone()
            }
            (what, None) => panic!("{what:?} is no command"),
        };
        self.give(&command);
        self.commands.push(command);
    }

    fn next_due(&self) -> Option<Timestamp> {
        let attempts = self.run.steps.iter().filter_map(|step| step.live()?.1.deadline);
        attempts.chain(Rows::of(&self.run).timers.into_values()).min()
    }

    /// Follows a command, and checks all that has to hold.
    pub fn give(&mut self, command: &Command) -> Decision {
        let before = self.run.clone();
        let pure = decide(&self.workflow, RUN, Some(&before), command, self.now);
        let mut run = Some(before.clone());
        let decision = apply(&self.workflow, RUN, &mut run, command, self.now);
        let after = run.unwrap_or_else(|| panic!("{command:?} lost the run"));
        assert_eq!(
            (&pure.events, &pure.answer),
            (&decision.events, &decision.answer),
            "decide and apply differ"
        );

        invariants::events(&self.workflow, &before, &decision.events, &after);
        invariants::state(&self.workflow, &after);
        invariants::steps(&before, &decision.events, &after);
        invariants::answer(&before, command, &decision, &after);
        // A write carries what one command changed, or several.
        invariants::leads_to(&Rows::of(&before), &Rows::of(&after));
        invariants::leads_to(&self.batch, &Rows::of(&after));
        if self.commands.len().is_multiple_of(4) {
            self.batch = Rows::of(&after);
        }

        self.run = after;
        self.history.extend(decision.events.iter().cloned());
        self.check_repetition(command, &decision);
        self.check_verdicts();
        decision
    }

    /// A repeated command changes nothing and gets the same verdict.
    fn check_repetition(&self, command: &Command, first: &Decision) {
        let again = decide(&self.workflow, RUN, Some(&self.run), command, self.now);
        assert!(again.events.is_empty(), "{command:?}, repeated, does {:?}", again.events);
        match (&first.answer, &again.answer) {
            (Err(first), Err(again)) => assert_eq!(first, again, "{command:?}, repeated"),
            (Ok(Answer::Leased { attempt: first }), Ok(Answer::Leased { attempt: again })) => {
                assert_eq!(first, again, "{command:?}, repeated");
            }
            (first, again) => {
                assert!(first.is_ok() && again.is_ok(), "{command:?}: {first:?}, repeated: {again:?}");
            }
        }
    }

    /// Under a lease that is over, reports are told the same for ever.
    fn check_verdicts(&mut self) {
        for (step, held) in self.run.steps.iter().enumerate() {
            for attempt in
                (1..=held.attempt()).filter(|attempt| held.live().is_none_or(|(live, _)| live != *attempt))
            {
                // Many attempts, many copies of the run: the verdicts on the latest three will do.
                if attempt + 3 <= held.attempt() && self.verdicts.contains_key(&(step, attempt)) {
                    continue;
                }
                let report = Report::Heartbeat { checkpoint: None };
                let command = Command::Report { lease: lease(&self.run, step, attempt), report };
                let verdict = match decide(&self.workflow, RUN, Some(&self.run), &command, self.now).answer {
                    Ok(Answer::Reported { fresh: false, directive: None, .. }) => "ended".to_owned(),
                    Err(Refusal::RunStopped) => "stopped".to_owned(),
                    Err(Refusal::LeaseSuperseded { cause, since, .. }) => format!("{cause:?} at {since:?}"),
                    other => panic!("attempt {attempt} of step {step} is over, and told {other:?}"),
                };
                let told = self.verdicts.entry((step, attempt)).or_insert_with(|| verdict.clone());
                assert_eq!(*told, verdict, "attempt {attempt} of step {step} is told something else");
            }
        }
    }

    /// The state is the fold of all that happened.
    pub fn fold_again(&self) {
        let numbers = self.history.iter().map(|event| event.number);
        assert!(numbers.eq(1..=self.run.last_event), "events are not numbered from 1 without gaps");
        let folded = self.history.iter().fold(None, evolve);
        assert_eq!(folded.as_ref(), Some(&self.run), "the state is not the fold of its events");
        invariants::history(&self.history);
        model::check(&self.workflow, &self.history, &self.run);
    }
}
