//! The events of steps and attempts.

use longtake_proto::v1::event::Kind;
use longtake_proto::v1::{self, ReportKind, attempt::Cause};

use super::super::measures::Measures;
use super::{Attempt, Fold, Recovery, Step, StepState, micros};

/// The step and the attempt that an event names; 0 where it names no attempt.
pub fn subject(kind: &Kind) -> Option<(&str, i32)> {
    Some(match kind {
        Kind::StepReady(it) => (&it.step, 0),
        Kind::StepSkipped(it) => (&it.step, 0),
        Kind::StepLeased(it) => (&it.step, it.attempt),
        Kind::StepStarted(it) => (&it.step, it.attempt),
        Kind::CheckpointCommitted(it) => (&it.step, it.attempt),
        Kind::StepSucceeded(it) => (&it.step, it.attempt),
        Kind::StepBackedOff(it) => (&it.step, it.attempt),
        Kind::StepReturned(it) => (&it.step, it.attempt),
        Kind::StepFailed(it) => (&it.step, it.attempt),
        Kind::StepTimedOut(it) => (&it.step, it.attempt),
        Kind::StepCancelled(it) => (&it.step, it.attempt),
        Kind::ReportRefused(it) => (&it.step, it.attempt),
        Kind::CostBooked(it) => (&it.step, it.attempt),
        Kind::DeadlineExtended(it) if !it.step.is_empty() => (&it.step, it.attempt),
        Kind::DeadlineExtended(_)
        | Kind::RunCreated(_)
        | Kind::RunPaused(_)
        | Kind::RunResumed(_)
        | Kind::RunStopping(_)
        | Kind::RunRetried(_)
        | Kind::RunEnded(_) => return None,
    })
}

/// An attempt's place: the step's index and the attempt's number.
type At = (usize, i32);

impl<'a> Fold<'a, '_> {
    pub(super) fn step_event(&mut self, kind: &'a Kind, step: usize, attempt: i32) {
        let at = (step, attempt);
        match kind {
            Kind::StepReady(it) => self.ready(step, micros(it.deadline.as_ref())),
            Kind::StepSkipped(_) => {
                self.opened(at, "skipped");
                if !self.history.steps[step].attempts.is_empty() {
                    self.wrong_step("B6", at, "skipped, and it has attempts");
                }
                self.close(at, StepState::Skipped);
            }
            Kind::StepLeased(it) => self.leased(at, it),
            Kind::StepStarted(_) => self.started(at),
            Kind::CheckpointCommitted(it) => self.checkpoint(at, it),
            Kind::StepSucceeded(it) => self.succeeded(at, it),
            Kind::StepBackedOff(it) => {
                self.end(at, it.cause(), it.cost.as_ref());
                let until = micros(it.until.as_ref());
                if until.is_none_or(|until| until < self.at) {
                    self.wrong_step("B9", at, "backed off until a time that is past");
                }
                self.history.steps[step].state = StepState::BackingOff;
                self.history.steps[step].until = until;
            }
            Kind::StepReturned(it) => {
                self.end(at, it.cause(), it.cost.as_ref());
                self.wait(step);
            }
            Kind::StepFailed(it) => {
                if attempt == 0 {
                    self.opened(at, "failed without an attempt");
                } else {
                    self.end(at, it.cause(), it.cost.as_ref());
                }
                self.close(at, StepState::Failed);
                self.must_stop = true;
            }
            Kind::StepTimedOut(_) => self.timed_out(at),
            Kind::StepCancelled(it) => {
                if attempt != 0 {
                    self.end(at, it.cause(), it.cost.as_ref());
                } else if self.history.steps[step].state.leased() {
                    self.wrong_step("B2", at, "cancelled as idle, and an attempt is live");
                }
                self.close(at, StepState::Cancelled);
            }
            Kind::ReportRefused(it) => self.refused(at, it.kind()),
            Kind::CostBooked(it) => self.cost_booked(at, it.cost.as_ref()),
            Kind::DeadlineExtended(it) => self.extended(at, micros(it.deadline.as_ref())),
            _ => {}
        }
    }

    fn wrong_step(&mut self, rule: &str, at: At, what: &str) {
        let (step, attempt) = (&self.definition.steps[at.0].name, at.1);
        self.wrong(rule, &format!("step {step}, attempt {attempt}: {what}"));
    }

    fn ready(&mut self, step: usize, deadline: Option<i64>) {
        let (state, until) = (self.history.steps[step].state, self.history.steps[step].until);
        if state == StepState::BackingOff {
            let until = until.unwrap_or(i64::MAX);
            if self.at < until {
                // C4: a timer is never early.
                self.wrong_step(
                    "C4",
                    (step, 0),
                    &format!("ready {} µs early", until.saturating_sub(self.at)),
                );
            } else {
                self.world.measures.backed_off(until, self.at);
            }
        } else {
            self.opened((step, 0), "ready");
        }
        self.history.steps[step].deadline = deadline;
        self.wait(step);
    }

    /// B6: a step leaves PENDING once all that it needs is done.
    fn opened(&mut self, at: At, what: &str) {
        let state = self.history.steps[at.0].state;
        if state != StepState::Pending {
            self.wrong_step("B12", at, &format!("{what}, and it was {state:?}"));
        }
        self.needs_done(at, what);
    }

    fn needs_done(&mut self, at: At, what: &str) {
        let steps = &self.history.steps;
        let open = steps.iter().find(|it| {
            !it.state.done() && self.definition.steps[at.0].needs.iter().any(|need| need == it.name)
        });
        if let Some(open) = open {
            let what = format!("{what} while {}, which it needs, is {:?}", open.name, open.state);
            self.wrong_step("B6", at, &what);
        }
    }

    fn leased(&mut self, at: At, leased: &'a v1::StepLeased) {
        let step = &self.history.steps[at.0];
        let (state, until, last) = (step.state, step.until, number_of(&step.attempts));
        if state != StepState::Ready {
            self.wrong_step("B4", at, &format!("leased, and it was {state:?}"));
        }
        if at.1 != last + 1 {
            self.wrong_step("B3", at, &format!("it follows attempt {last}"));
        }
        if until.is_some_and(|until| self.at < until) {
            self.wrong_step("B9", at, "leased before its backoff was over");
        }
        self.needs_done(at, "leased");
        // Half a SHA-256 is stored.
        if leased.token_hash.len() < 16 {
            self.wrong_step("B3", at, "its lease has no token");
        } else if let Some(run) = self.world.tokens.insert(&leased.token_hash, &self.stored.run_id) {
            self.wrong_step("B3", at, &format!("its token was used before, in run {run}"));
        }
        let now = self.at;
        let step = &mut self.history.steps[at.0];
        if let Some(recovery) = step.recovery.take() {
            self.world.measures.recovered(recovery.killed, now);
        }
        step.state = StepState::Leased;
        step.attempts.push(Attempt {
            executor: &leased.executor,
            handed: step.checkpoint,
            dones: Vec::new(),
            output: None,
            cause: None,
            leased_at: now,
            deadline: micros(leased.deadline.as_ref()),
            started: false,
            sequence: 0,
            cost: None,
            refused: Vec::new(),
        });
    }

    /// B2: what is accepted names the attempt that is live just then.
    fn live(&mut self, at: At, what: &str) -> Option<&mut Attempt<'a>> {
        let step = &self.history.steps[at.0];
        let last = number_of(&step.attempts);
        let live = step.state.leased() && step.attempts.last().is_some_and(|last| last.cause.is_none());
        if !live || at.1 != last {
            let now = if live { format!("attempt {last} is live") } else { "no attempt is live".to_owned() };
            self.wrong_step("B2", at, &format!("{what}, and {now}"));
            return None;
        }
        self.history.steps[at.0].attempts.last_mut()
    }

    fn started(&mut self, at: At) {
        let Some(attempt) = self.live(at, "started") else { return };
        if std::mem::replace(&mut attempt.started, true) {
            self.wrong_step("B2", at, "started a second time");
        }
        self.history.steps[at.0].state = StepState::Running;
    }

    /// B10: checkpoints are ordered by (attempt, sequence), and a newer attempt counts from 1 anew. `done` is the executor's word.
    fn checkpoint(&mut self, at: At, committed: &v1::CheckpointCommitted) {
        let Some(attempt) = self.live(at, "a checkpoint was committed") else { return };
        let before = std::mem::replace(&mut attempt.sequence, committed.sequence);
        attempt.dones.push(committed.done);
        if committed.sequence <= before {
            let what = format!("checkpoint {} was committed after checkpoint {before}", committed.sequence);
            self.wrong_step("B10", at, &what);
        }
        if committed.done < 0 {
            self.wrong_step("B10", at, "a checkpoint holds less than nothing");
        }
        let before = self.history.steps[at.0].checkpoint.replace(committed.done);
        if before.is_some_and(|before| committed.done < before) {
            self.world.findings.count("checkpoints.done_fell");
        }
    }

    fn succeeded(&mut self, at: At, succeeded: &'a v1::StepSucceeded) {
        if succeeded.cost.is_none() {
            self.wrong_step("E1", at, "completed without a cost: its price is known");
        }
        if succeeded.cost.as_ref().is_some_and(|cost| cost.nano_usd != self.definition.steps[at.0].price) {
            self.world.findings.count("costs.not_the_price");
        }
        self.end(at, Cause::Completed, succeeded.cost.as_ref());
        if let Some(attempt) = numbered(&mut self.history.steps[at.0], at.1) {
            attempt.output = succeeded.output.as_ref();
        }
        self.close(at, StepState::Succeeded);
    }

    /// The attempt ends: it must be the live one.
    fn end(&mut self, at: At, cause: Cause, cost: Option<&v1::Money>) {
        let early = self.live(at, "ended").map(|attempt| attempt.deadline);
        if cause == Cause::Unspecified {
            self.wrong_step("B8", at, "ended, and nothing says how");
        }
        let timed_out = cause == Cause::AttemptTimeout;
        if timed_out && early.is_some_and(|deadline| deadline.is_none_or(|deadline| self.at < deadline)) {
            self.wrong_step("C4", at, "its attempt_timeout is not over yet");
        }
        self.world.findings.count(&format!("attempt_end.{}", plain(cause)));
        self.book(at, cost);
        let now = self.at;
        let step = &mut self.history.steps[at.0];
        let Some(attempt) = numbered(step, at.1) else { return };
        attempt.cause = Some(cause);
        // What the executor ended by itself is no loss.
        if !own_report(cause)
            && let Some(killed) = self.world.measures.killed(attempt.executor, attempt.leased_at, now)
        {
            step.recovery = Some(Recovery { killed, ready: None });
        }
    }

    /// E1: booked once per attempt.
    fn book(&mut self, at: At, cost: Option<&v1::Money>) {
        let Some(cost) = cost.map(|cost| cost.nano_usd) else { return };
        self.spent += cost;
        if cost < 0 {
            self.wrong_step("E1", at, "it cost less than nothing");
        }
        let Some(attempt) = numbered(&mut self.history.steps[at.0], at.1) else { return };
        if let Some(before) = attempt.cost.replace(cost) {
            self.wrong_step("E1", at, &format!("its cost is booked twice: {before}, then {cost}"));
        }
    }

    /// Ready, until somebody takes it.
    fn wait(&mut self, step: usize) {
        let step = &mut self.history.steps[step];
        step.state = StepState::Ready;
        if let Some(recovery) = &mut step.recovery {
            recovery.ready.get_or_insert(self.at);
        }
    }

    /// B1, B12: a step ends once, unless its run is retried.
    fn close(&mut self, at: At, state: StepState) {
        let step = &mut self.history.steps[at.0];
        let before = std::mem::replace(&mut step.state, state);
        step.give_up(&mut self.world.measures);
        if !before.open() {
            self.wrong_step("B1", at, &format!("{state:?}, and it was {before:?} already"));
        }
    }

    fn timed_out(&mut self, at: At) {
        let step = &self.history.steps[at.0];
        let (state, deadline, last) = (step.state, step.deadline, number_of(&step.attempts));
        if deadline.is_none_or(|deadline| self.at < deadline) {
            self.wrong_step("C4", at, "its step_timeout is not over yet");
        }
        if state.leased() {
            self.end(at, Cause::StepTimeout, None);
        } else if at.1 != 0 && at.1 != last {
            self.wrong_step("B2", at, &format!("timed out, and the latest attempt was {last}"));
        } else if at.1 != 0 {
            // The engine names the latest attempt, live or not.
            self.world.findings.count("timed_out.attempt_not_live");
        }
        if state == StepState::Pending {
            self.wrong_step("C4", at, "timed out, and it was not even ready");
        }
        self.close(at, StepState::TimedOut);
        self.must_stop = true;
    }

    /// B2: refused is what a lease that the server took back reports; told once per attempt and kind.
    fn refused(&mut self, at: At, kind: ReportKind) {
        let plain = kind.as_str_name().trim_start_matches("REPORT_KIND_").to_lowercase();
        self.world.findings.count("refused");
        self.world.findings.count(&format!("refused.{plain}"));
        let Some(attempt) = numbered(&mut self.history.steps[at.0], at.1) else {
            return self.wrong_step("B2", at, "a report was refused, and there was no such attempt");
        };
        let (cause, again) = (attempt.cause, attempt.refused.contains(&(kind as i32)));
        attempt.refused.push(kind as i32);
        if again {
            self.wrong_step("B2", at, &format!("the refusal of {plain} is told a second time"));
        }
        match cause {
            None => self.wrong_step("B2", at, "a report was refused, and the attempt is live"),
            Some(cause) if own_report(cause) => {
                self.wrong_step("B2", at, "a report was refused, and the attempt's own one is in");
            }
            Some(_) => {}
        }
    }

    fn cost_booked(&mut self, at: At, cost: Option<&v1::Money>) {
        let ended = numbered(&mut self.history.steps[at.0], at.1).is_some_and(|it| it.cause.is_some());
        if !ended {
            self.wrong_step("E1", at, "a late cost is booked, and the attempt has not ended");
        }
        self.book(at, cost);
    }

    fn extended(&mut self, at: At, deadline: Option<i64>) {
        self.history.ordered.push("extend");
        if at.1 == 0 {
            self.history.steps[at.0].deadline = deadline;
        } else if let Some(attempt) = self.live(at, "its deadline was set") {
            attempt.deadline = deadline;
        }
    }
}

impl Step<'_> {
    /// Nothing leased it again: it had gone on when it was ready.
    pub(super) fn give_up(&mut self, measures: &mut Measures) {
        if let Some(Recovery { killed, ready: Some(ready) }) = self.recovery.take() {
            measures.recovered(killed, ready);
        }
    }
}

/// Whether the executor ended the attempt by its own report.
pub fn own_report(cause: Cause) -> bool {
    matches!(cause, Cause::Completed | Cause::Failed | Cause::Yielded)
}

fn numbered<'s, 'a>(step: &'s mut Step<'a>, attempt: i32) -> Option<&'s mut Attempt<'a>> {
    let index = usize::try_from(attempt).ok()?.checked_sub(1)?;
    step.attempts.get_mut(index)
}

fn number_of(attempts: &[Attempt<'_>]) -> i32 {
    i32::try_from(attempts.len()).unwrap_or(i32::MAX)
}

fn plain(cause: Cause) -> &'static str {
    cause.as_str_name().trim_start_matches("CAUSE_")
}
