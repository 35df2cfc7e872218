//! What a step of the system does.

use crate::bug::Bug;
use crate::row::{Answer, Cause, Command, Decision, Report, Row, Standing, Step, decide};
use crate::{Cache, Outcome, Protocol, Session, State};

impl Protocol {
    /// A server reads the row, under lock if it is in doubt: then what it doubts is done or never will be.
    pub(crate) fn read(&self, state: &mut State, server: u8) {
        let row = state.row;
        let me = &mut state.servers[usize::from(server)];
        me.cache = Cache::Held(row);
        let Some((executor, token)) = me.doubt else { return };
        let again = decide(&row, Command::Dispatch { executor, token }, self.bug).answer;
        if again != Answer::Yes {
            me.doubt = None;
        }
        if let Some((attempt, ..)) = row.live().filter(|_| again == Answer::Repeated) {
            state.granted[usize::from(attempt)] = true;
        }
    }

    /// The database looks at the time again.
    pub(crate) fn end_session(&self, state: &mut State, server: u8, executor: u8) {
        let session = &mut state.sessions[usize::from(executor)];
        if *session == Session::Up || self.bug == Some(Bug::EndUnchecked) {
            state.breaches.living_lost |= *session == Session::Lives;
            *session = Session::Ended;
        }
        if *session == Session::Ended {
            state.servers[usize::from(server)].ended[usize::from(executor)] = true;
        }
    }

    /// A server decides on what it has in memory. What changes nothing is answered at once, what changes something when it is
    /// known to be written.
    pub(crate) fn execute(&self, state: &mut State, server: u8, command: Command, outcome: Outcome) {
        let Cache::Held(known) = state.servers[usize::from(server)].cache else { return };
        let decision = decide(&known, command, self.bug);
        if decision.row != known {
            return self.write(state, server, command, (&known, decision), outcome);
        }
        if outcome != Outcome::Known {
            return;
        }
        match decision.answer {
            Answer::Yes | Answer::Repeated => state.tell(command, decision.answer),
            Answer::No if self.bug == Some(Bug::StaleRefusal) => state.tell(command, Answer::No),
            // Nobody is told no from what was read before the call came.
            Answer::No => {
                let row = state.row;
                state.servers[usize::from(server)].cache = Cache::Held(row);
                let fresh = decide(&row, command, self.bug);
                if fresh.row == row {
                    state.tell(command, fresh.answer);
                }
            }
            Answer::Nothing => {}
        }
    }

    fn write(
        &self,
        state: &mut State,
        server: u8,
        command: Command,
        (known, Decision { row: new, answer }): (&Row, Decision),
        outcome: Outcome,
    ) {
        if self.bug == Some(Bug::EarlyAcknowledgement)
            && let Command::Report { report: Report::Checkpoint(_), .. } = command
        {
            state.tell(command, answer);
        }
        let done = outcome != Outcome::UnknownNot;
        if let Command::Dispatch { executor, .. } = command {
            let lives = !done || state.poll_renews(executor);
            state.servers[usize::from(server)].ended[usize::from(executor)] |=
                outcome == Outcome::Known && !lives;
        }
        let holds = known.version == state.row.version || self.bug == Some(Bug::FenceDropped);
        if done && holds {
            let old = state.row;
            state.watch(&old, &new, command);
            state.row = new;
        }
        let me = &mut state.servers[usize::from(server)];
        (me.cache, me.doubt) = match (outcome, holds) {
            (Outcome::Known, true) => (Cache::Held(new), None),
            (Outcome::Known, false) => (Cache::Nothing, None),
            (Outcome::UnknownDone | Outcome::UnknownNot, _) => {
                let doubt = match command {
                    Command::Dispatch { executor, token } => Some((executor, token)),
                    Command::Report { .. } | Command::Revoke { .. } | Command::Cancel => None,
                };
                (Cache::Nothing, doubt)
            }
        };
        match outcome {
            Outcome::Known if holds => state.tell(command, answer),
            Outcome::Known => {}
            Outcome::UnknownDone | Outcome::UnknownNot => match self.bug {
                Some(Bug::UnknownIsDone) => state.tell(command, answer),
                Some(Bug::UnknownIsFailed) => state.tell(command, Answer::No),
                _ => {}
            },
        }
    }
}

impl State {
    /// A poll renews its session in the same statement, whether the row's fence holds or not. False if it has ended.
    fn poll_renews(&mut self, executor: u8) -> bool {
        let session = &mut self.sessions[usize::from(executor)];
        if *session == Session::Up {
            *session = Session::Lives;
        }
        *session == Session::Lives
    }

    /// Whoever sent the command is told, and the database says whether it is true.
    fn tell(&mut self, command: Command, answer: Answer) {
        match command {
            Command::Dispatch { token, .. } => {
                if let Some((attempt, ..)) = self.row.live().filter(|(_, live, _)| *live == token) {
                    self.granted[usize::from(attempt)] = true;
                }
            }
            Command::Report { attempt, report, .. } => {
                let standing = self.row.attempts[usize::from(attempt)].map(|attempt| attempt.standing);
                let own = matches!(standing, Some(Standing::Completed | Standing::Yielded));
                self.breaches.untrue |= match (answer, report) {
                    (Answer::No, _) => own || matches!(standing, Some(Standing::Live(_))),
                    (Answer::Yes, Report::Checkpoint(done)) => done > self.row.checkpoint,
                    (Answer::Yes | Answer::Repeated, Report::Complete | Report::Yield) => !own,
                    (Answer::Yes | Answer::Repeated, Report::Bare) => false,
                    (Answer::Repeated, Report::Checkpoint(_)) | (Answer::Nothing, _) => false,
                };
            }
            Command::Revoke { .. } | Command::Cancel => {}
        }
    }

    /// Notes what a committed write does that none may do. The rows are the database's, whatever the server believed.
    fn watch(&mut self, old: &Row, new: &Row, command: Command) {
        let breaches = &mut self.breaches;
        breaches.terminal_changed |= old.is_terminal();
        breaches.checkpoint_lost |= new.checkpoint < old.checkpoint;
        match command {
            Command::Dispatch { .. } => {
                breaches.leased_after_cancel |= old.stopping;
                let kept = old.attempts().eq(new.attempts().take(old.count()));
                breaches.attempt_reused |= new.count() != old.count() + 1 || !kept;
            }
            Command::Report { token, report, .. } => {
                breaches.stale_accepted |= old.live().is_none_or(|(_, live, _)| live != token);
                if report == Report::Complete && new.step == Step::Succeeded {
                    self.results = self.results.saturating_add(1).min(2);
                }
            }
            Command::Revoke { cause, .. } => {
                let holder = old.live().map(|(.., holder)| self.sessions[usize::from(holder)]);
                breaches.living_lost |= match cause {
                    Cause::LeaseLost => holder.is_some_and(|session| session != Session::Ended),
                    Cause::DispatchTimeout => old.step == Step::Running,
                    Cause::Stopped => false,
                };
            }
            Command::Cancel => {}
        }
    }
}
