//! The database's row of a run with one step, and what a command does to it: `decide` of the engine, as far as leases go.

use crate::bug::Bug;

/// How many attempts a step has.
pub const ATTEMPTS: usize = 3;
/// How far a step can get: a checkpoint says how much of this is done.
pub const WORK: u8 = 2;

/// A step's state. BACKING_OFF is READY here: only time is between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Waits for a poll.
    Ready,
    /// Given to an executor that was not heard of.
    Leased,
    /// Given to an executor that was heard of.
    Running,
    /// Has its result.
    Succeeded,
    /// Has no attempt left.
    Failed,
    /// Stopped by a cancellation.
    Cancelled,
}

/// The secret of a lease. A draw is a number that is nowhere in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u8);

/// Why a lease is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its session ended.
    LeaseLost,
    /// Its executor was not heard of in time.
    DispatchTimeout,
    /// The run is stopping, and its executor did not say so in time.
    Stopped,
}

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Held by this executor: by one life of it, so by one session.
    Live(u8),
    /// Its executor brought the result.
    Completed,
    /// Its executor gave the step back.
    Yielded,
    /// The server took it back.
    TakenBack,
}

/// A lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// What its reports have to carry.
    pub token: Token,
    /// Where it stands.
    pub standing: Standing,
}

/// The row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// Raised by every write: the fence.
    pub version: u8,
    /// The step's state.
    pub step: Step,
    /// The run was cancelled.
    pub stopping: bool,
    /// By number, counting from 0.
    pub attempts: [Option<Attempt>; ATTEMPTS],
    /// The committed checkpoint, which every lease hands over as it is in the row that the lease is written to.
    pub checkpoint: u8,
}

/// What an executor says of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// A heartbeat that brings no checkpoint.
    Bare,
    /// A heartbeat that brings one.
    Checkpoint(u8),
    /// The result.
    Complete,
    /// The step goes back, for a drain or because it was told to stop.
    Yield,
}

/// What is asked of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// A poll is there.
    Dispatch {
        /// Whose.
        executor: u8,
        /// Drawn for this lease.
        token: Token,
    },
    /// An executor reports.
    Report {
        /// On which attempt.
        attempt: u8,
        /// As it was granted.
        token: Token,
        /// What it says.
        report: Report,
    },
    /// A clock asks to take a lease back.
    Revoke {
        /// Which.
        attempt: u8,
        /// And why.
        cause: Cause,
    },
    /// A client cancels the run.
    Cancel,
}

/// What the asker is told once the decision is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Yes.
    Yes,
    /// Yes: the attempt's own report is in already, and this one changes nothing.
    Repeated,
    /// No: the lease is not live.
    No,
    /// There is nothing to do.
    Nothing,
}

/// A row as a command leaves it. It is written if it differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// The new row.
    pub row: Row,
    /// What to say of it.
    pub answer: Answer,
}

impl Row {
    /// A step that became ready.
    pub const NEW: Row =
        Row { version: 0, step: Step::Ready, stopping: false, attempts: [None; ATTEMPTS], checkpoint: 0 };

    /// Whether nothing happens to it any more.
    pub fn is_terminal(&self) -> bool {
        matches!(self.step, Step::Succeeded | Step::Failed | Step::Cancelled)
    }

    /// The attempts so far, in order.
    pub fn attempts(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.attempts.iter().flatten()
    }

    /// How many attempts there were.
    pub fn count(&self) -> usize {
        self.attempts().count()
    }

    /// The newest live lease: its number, its token and who holds it.
    pub fn live(&self) -> Option<(u8, Token, u8)> {
        let live = (0..).zip(self.attempts()).filter_map(|(number, attempt)| match attempt.standing {
            Standing::Live(executor) => Some((number, attempt.token, executor)),
            Standing::Completed | Standing::Yielded | Standing::TakenBack => None,
        });
        live.last()
    }

    fn end(&mut self, number: u8, standing: Standing) {
        if let Some(attempt) = &mut self.attempts[usize::from(number)] {
            attempt.standing = standing;
        }
    }
}

/// Decides what `command` does to `row`, by a protocol with this bug or none.
pub fn decide(row: &Row, command: Command, bug: Option<Bug>) -> Decision {
    let mut new = *row;
    let answer = match command {
        Command::Dispatch { executor, token } => dispatch(&mut new, executor, token, bug),
        Command::Report { attempt, token, report } => reported(&mut new, attempt, token, report, bug),
        Command::Revoke { attempt, cause } => revoke(&mut new, attempt, cause, bug),
        Command::Cancel => cancel(&mut new),
    };
    let unfenced = command == Command::Cancel && bug == Some(Bug::CancelUnfenced);
    if new != *row && !unfenced {
        new.version += 1;
    }
    Decision { row: new, answer }
}

fn dispatch(row: &mut Row, executor: u8, token: Token, bug: Option<Bug>) -> Answer {
    // A repetition after an unknown outcome finds its own lease.
    if row.live().is_some_and(|(_, live, _)| live == token) {
        return Answer::Repeated;
    }
    let used = bug != Some(Bug::TokenReused) && row.attempts().any(|attempt| attempt.token == token);
    if used || row.step != Step::Ready || row.stopping {
        return Answer::Nothing;
    }
    let next = row.count();
    let number = if bug == Some(Bug::AttemptReused) { next.saturating_sub(1) } else { next };
    let Some(place) = row.attempts.get_mut(number) else { return Answer::Nothing };
    *place = Some(Attempt { token, standing: Standing::Live(executor) });
    row.step = Step::Leased;
    Answer::Yes
}

fn reported(row: &mut Row, attempt: u8, token: Token, report: Report, bug: Option<Bug>) -> Answer {
    let attempt = match row.live() {
        Some((live, ..)) if bug == Some(Bug::TokenNotCompared) => live,
        _ => {
            let known = row.attempts[usize::from(attempt)].filter(|known| known.token == token);
            match known.map(|known| known.standing) {
                Some(Standing::Live(_)) => attempt,
                Some(Standing::Completed | Standing::Yielded) => return Answer::Repeated,
                Some(Standing::TakenBack) | None => return Answer::No,
            }
        }
    };
    match report {
        Report::Bare => {
            if row.step == Step::Leased && bug == Some(Bug::BareHeartbeatOverwrites) {
                row.checkpoint = 0;
            }
            row.step = Step::Running;
        }
        Report::Checkpoint(done) => {
            row.step = Step::Running;
            if done > row.checkpoint || bug == Some(Bug::OlderCheckpointOverwrites) {
                row.checkpoint = done;
            }
        }
        Report::Complete => {
            row.end(attempt, Standing::Completed);
            row.step = Step::Succeeded;
        }
        Report::Yield => end_attempt(row, attempt, Standing::Yielded, bug),
    }
    Answer::Yes
}

fn revoke(row: &mut Row, attempt: u8, cause: Cause, bug: Option<Bug>) -> Answer {
    let Some((live, ..)) = row.live() else { return Answer::Nothing };
    if live != attempt && bug != Some(Bug::RevokesAnyAttempt) {
        return Answer::Nothing;
    }
    let holds = match cause {
        Cause::LeaseLost => true,
        Cause::DispatchTimeout => row.step == Step::Leased || bug == Some(Bug::DispatchTimeoutOfRunning),
        Cause::Stopped => row.stopping,
    };
    if !holds {
        return Answer::Nothing;
    }
    end_attempt(row, live, Standing::TakenBack, bug);
    Answer::Yes
}

/// The live attempt ends without a result.
fn end_attempt(row: &mut Row, attempt: u8, standing: Standing, bug: Option<Bug>) {
    if standing != Standing::Yielded || bug != Some(Bug::YieldKeepsLease) {
        row.end(attempt, standing);
    }
    row.step = if row.stopping && bug != Some(Bug::CancelAtLeaseOnly) {
        Step::Cancelled
    } else if row.count() == ATTEMPTS {
        Step::Failed
    } else {
        Step::Ready
    };
}

fn cancel(row: &mut Row) -> Answer {
    if row.is_terminal() || row.stopping {
        return Answer::Nothing;
    }
    row.stopping = true;
    if row.live().is_none() {
        row.step = Step::Cancelled;
    }
    Answer::Yes
}
