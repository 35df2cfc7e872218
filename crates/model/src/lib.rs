//! A model of the lease protocol, small enough that a checker walks through every state of it.
//!
//! One run of one step, two executors, two servers, one row. The rules that [`row`] decides by are those of `longtake-engine`'s
//! `decide`; this file is what happens around them: caches, fenced writes, lost answers, sessions whose time is up. What must
//! hold is in [`rules`], what must be noticed in [`bug`]. `tests/check.rs` walks.
//!
//! # What stands for what
//!
//! - **A server's write** is two steps, as in a lane: it reads the row into its cache, and later decides on what is there
//!   and writes if the version is still the same. Taking a command is no step: who waits changes nothing.
//! - **A message that was sent is there for good**, and any copy of it may arrive at any time, at any server, or never. So loss,
//!   repetition and disorder need no steps of their own. An executor may send once it was granted a lease; what it said is
//!   chosen when a copy of it arrives and is taken.
//! - **An executor that crashed** takes no further step, and **one that was frozen** takes its next step late. No step has to be
//!   taken, so both are among the walks. One that starts again is another session, so another executor.
//! - **Time** is what may happen at any moment: a session's time is up, a dispatch timeout or the grace of a stop is over.
//! - **What was told** to executors is judged when it is told, against the database of that moment.
//!
//! # What is left out
//!
//! Several runs and steps, and so batches and the other writes that are under way; backoff, which is only time; failures, which
//! end an attempt as a yield does; the clocks of progress and of attempts, which take a lease back as a dispatch timeout does;
//! budgets, which are a number of attempts here; pausing, deadlines and retries of runs; outages and the time that they credit;
//! forgetting of sessions; retention; money. The checker compares 64-bit fingerprints of states, not states.

pub mod bug;
pub mod row;
pub mod rules;
mod steps;
mod symmetry;

use stateright::{Model, Property};

use bug::Bug;
use row::{Attempt, Cause, Command, Report, Row, Standing, Token, WORK};
use rules::Breaches;

/// How many servers there are.
pub const SERVERS: usize = 2;
/// How many executors there are, each with one session.
pub const EXECUTORS: usize = 2;

/// The protocol, with a bug or without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Protocol {
    /// What it does wrong.
    pub bug: Option<Bug>,
}

/// Everything, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// The row in the database.
    pub row: Row,
    /// The session of each executor, in the database.
    pub sessions: [Session; EXECUTORS],
    /// The servers.
    pub servers: [Server; SERVERS],
    /// The attempts that executors were told of: reports on them may arrive.
    pub granted: [bool; row::ATTEMPTS],
    /// How many results were taken.
    pub results: u8,
    /// What went wrong on the way here.
    pub breaches: Breaches,
}

/// A session's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Session {
    /// Its time is not up.
    Lives,
    /// Its time is up, and it can still be renewed.
    Up,
    /// Marked as ended: its leases are taken back.
    Ended,
}

/// A server: what it keeps in memory.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    /// The row as it knows it.
    pub cache: Cache,
    /// A dispatch, for an executor and by a token, of which it does not know whether it was written.
    pub doubt: Option<(u8, Token)>,
    /// The sessions of which the database said that they have ended.
    pub ended: [bool; EXECUTORS],
}

/// What a server knows of the row.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cache {
    /// Nothing: it has to read, because it is new, it lost a fence or does not know what became of its write.
    #[default]
    Nothing,
    /// The row as it was at this version.
    Held(Row),
}

/// A step of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A server reads the row.
    Read(u8),
    /// A server stops and starts anew.
    Restart(u8),
    /// A server decides on what it has in memory, and writes.
    Do(u8, Command, Outcome),
    /// The time of an executor's session is up.
    TimeUp(u8),
    /// A heartbeat renews an executor's session.
    Renew(u8),
    /// A server has a session marked as ended if its time is up, and learns whether it is.
    EndSession(u8, u8),
}

/// What a server gets to know of its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The number of rows that were written.
    Known,
    /// Nothing; it was done.
    UnknownDone,
    /// Nothing; it was not done.
    UnknownNot,
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            row: Row::NEW,
            sessions: [Session::Lives; EXECUTORS],
            servers: [Server::default(); SERVERS],
            granted: [false; row::ATTEMPTS],
            results: 0,
            breaches: Breaches::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (number, server) in (0..).zip(&state.servers) {
            match &server.cache {
                Cache::Nothing => actions.push(Action::Read(number)),
                Cache::Held(known) => self.writes(state, number, known, actions),
            }
            actions.push(Action::Restart(number));
        }
        for (executor, session) in (0..).zip(&state.sessions) {
            let holds = state.row.live().is_some_and(|(.., holder)| holder == executor);
            match session {
                // Only then does it matter.
                Session::Lives if holds => actions.push(Action::TimeUp(executor)),
                Session::Lives => {}
                Session::Up => actions.push(Action::Renew(executor)),
                Session::Ended if self.bug == Some(Bug::EndedRenewed) => {
                    actions.push(Action::Renew(executor));
                }
                Session::Ended => {}
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Read(server) => self.read(&mut next, server),
            Action::Restart(server) => {
                next.servers[usize::from(server)] = Server::default();
            }
            Action::Do(server, command, outcome) => self.execute(&mut next, server, command, outcome),
            Action::TimeUp(executor) => next.sessions[usize::from(executor)] = Session::Up,
            Action::Renew(executor) => next.sessions[usize::from(executor)] = Session::Lives,
            Action::EndSession(server, executor) => self.end_session(&mut next, server, executor),
        }
        (next != *state).then(|| next.representative())
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        rules::properties()
    }
}

impl Protocol {
    /// Whatever may be asked of this server now.
    fn writes(&self, state: &State, server: u8, known: &Row, actions: &mut Vec<Action>) {
        let mut commands = Vec::new();
        let me = &state.servers[usize::from(server)];
        match me.doubt {
            Some((executor, token)) => commands.push(Command::Dispatch { executor, token }),
            None => {
                let token = state.draw();
                let polls = (0..).zip(me.ended).filter(|(_, ended)| !ended);
                commands.extend(polls.map(|(executor, _)| Command::Dispatch { executor, token }));
            }
        }
        for (number, attempt) in (0..).zip(state.row.attempts()) {
            if state.granted[usize::from(number)] {
                let report = |report| Command::Report { attempt: number, token: attempt.token, report };
                commands.extend(said(attempt).map(report));
            }
        }
        commands.push(Command::Cancel);
        if let Some((.., holder)) = known.live() {
            // Its idea of the time may be old, so it may ask at any time.
            actions.push(Action::EndSession(server, holder));
        }
        self.revocations(known, me.ended, &mut commands);
        for command in commands {
            actions.push(Action::Do(server, command, Outcome::Known));
            actions.push(Action::Do(server, command, Outcome::UnknownDone));
            let answers = matches!(self.bug, Some(Bug::UnknownIsDone | Bug::UnknownIsFailed));
            // Any other is as if it had not been asked.
            if answers || matches!(command, Command::Dispatch { .. }) {
                actions.push(Action::Do(server, command, Outcome::UnknownNot));
            }
        }
    }

    /// What a server's clocks may ask for, by what it has in memory.
    fn revocations(&self, known: &Row, ended: [bool; EXECUTORS], commands: &mut Vec<Command>) {
        for (attempt, Attempt { standing, .. }) in (0..).zip(known.attempts()) {
            let revoke = |cause| Command::Revoke { attempt, cause };
            match standing {
                Standing::Live(executor) => {
                    if ended[usize::from(*executor)] || self.bug == Some(Bug::RevokedUnmarked) {
                        commands.push(revoke(Cause::LeaseLost));
                    }
                    commands.extend([revoke(Cause::DispatchTimeout), revoke(Cause::Stopped)]);
                }
                // It was asked for before the row was read.
                Standing::TakenBack => commands.push(revoke(Cause::LeaseLost)),
                Standing::Completed | Standing::Yielded => {}
            }
        }
    }
}

/// What an executor may have said of an attempt of which it was told. It ends it once: what it said is what was taken, if any was.
fn said(attempt: &Attempt) -> impl Iterator<Item = Report> {
    let ends: &[Report] = match attempt.standing {
        Standing::Completed => &[Report::Complete],
        Standing::Yielded => &[Report::Yield],
        Standing::Live(_) | Standing::TakenBack => &[Report::Complete, Report::Yield],
    };
    let checkpoints = (1..=WORK).map(Report::Checkpoint);
    std::iter::once(Report::Bare).chain(checkpoints).chain(ends.iter().copied())
}
