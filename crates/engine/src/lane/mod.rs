//! The lane: the one path on which runs change.
//!
//! Callers [`ask`](Lane::ask); the driver calls [`next`](Lane::next), does the [`Work`] that it is given against Postgres, one at
//! a time, and reports the outcome ([`loaded`](Lane::loaded), [`committed`](Lane::committed), …); then it takes the
//! [`replies`](Lane::replies). A reply leaves only after the commit that made it true.
//!
//! ```text
//!   ask ──▶ inbox ──▶ batch: decide in memory, match ready steps with polls ──▶ Write ──▶ committed ──▶ replies
//!                ╲─▶ Load (runs not in the cache, ready rows for polls that wait) ─▶ loaded ─╱
//! ```
//!
//! A batch is all that waits when the previous work is done: no timer. What happens then:
//!
//! - **done**: runs whose fence held are answered; the others were changed by another replica, are read again, and their
//!   commands are applied again;
//! - **failed**: nothing happened; the batch is halved and tried again, down to a single run, which is then answered with the
//!   failure;
//! - **unknown**: the runs are read under lock, which waits for a commit that is still on its way, and the commands are applied
//!   again: a token or request id shows what was already done.
//!
//! The lane has no async, clock or randomness: the simulation drives this code under a virtual clock.

mod ask;
mod batch;
mod cache;
mod dispatch;
mod inspect;
mod outcome;
mod sessions;
pub mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use ask::{Ask, Asked, Beat, Failure, Grant, GrantedRun, LeaseBeat, Poll, Progress, Reply, Standing, Ticket};
pub use inspect::Inspection;
pub use sessions::{DISPATCH_TIMEOUT, SESSION_LASTS};

use crate::command::{Answer, Command, Lease, Report, Timer};
use crate::definition::Workflow;
use crate::ids::{LeaseToken, RequestId, RunId, SessionId};
use crate::run::Cause;
use crate::time::{Duration, Timestamp};

use batch::Flight;
use cache::Cache;
use dispatch::Dispatch;
use sessions::Sessions;
use work::{Housekeep, Load, Work};

/// The bounds of a lane.
#[derive(Debug, Clone)]
pub struct Config {
    /// Commands that one write takes.
    pub batch_commands: usize,
    /// Submits that may wait; more are refused as overload.
    pub waiting_submits: usize,
    /// Runs in memory.
    pub cached_runs: usize,
    /// Bytes of payload in memory, roughly.
    pub cached_bytes: usize,
    /// How often presence is written and others' doings are looked for.
    pub housekeeping: Duration,
    /// How often the clocks of attempts are looked at.
    pub clock_period: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            batch_commands: 512,
            waiting_submits: 8192,
            cached_runs: 16_384,
            cached_bytes: 256 << 20,
            housekeeping: Duration::from_secs(5),
            clock_period: Duration::from_millis(200),
        }
    }
}

/// Source of random bits: a cryptographic one in production, a seeded one in simulation.
pub type Random<'a> = &'a mut dyn FnMut() -> u64;

/// See the module.
#[derive(Debug)]
pub struct Lane {
    config: Config,
    /// Work so far: what was read by a later work than the last one before a call is fresh to that call.
    issued: u64,
    under_way: bool,
    cache: Cache,
    /// Reports, timers, operator calls: before submits.
    reports: VecDeque<Pending>,
    submits: VecDeque<Pending>,
    /// Runs to read before their commands are applied, and whether under lock.
    stale: BTreeMap<RunId, bool>,
    /// Runs that the last read did not find.
    absent: BTreeSet<RunId>,
    calls: BTreeMap<Ticket, Call>,
    /// Heartbeats among them: they may wait for their session's renewal.
    beating: Vec<Ticket>,
    /// Runs that another replica changed while their leases are looked after here.
    refresh: BTreeSet<RunId>,
    flight: Option<Flight>,
    /// Runs that a write takes at most: halved when one fails, so that a poisonous run ends up alone.
    batch_runs: usize,
    dispatch: Dispatch,
    sessions: Sessions,
    timers: BTreeSet<(Timestamp, RunId, Timer)>,
    housekeeping_due: Timestamp,
    clocks_due: Timestamp,
    /// Other replicas that are present.
    others: usize,
    replies: Vec<Reply>,
    touched: Vec<RunId>,
    woken: Vec<SessionId>,
}

/// A command on its way.
#[derive(Debug, Clone)]
struct Pending {
    run: RunId,
    workflow: Option<Arc<Workflow>>,
    command: Command,
    origin: Origin,
    /// [`Lane::issued`] when it came.
    arrived: u64,
    /// When it was first part of a write whose outcome is unknown.
    tried_at: Option<Timestamp>,
}

/// Who waits for a command.
#[derive(Debug, Clone)]
enum Origin {
    /// A caller's slot.
    Call(Ticket, usize),
    /// A poll, for a step of this queue.
    Poll(Ticket, Arc<str>),
    /// A timer or clock of the lane itself, due then.
    Clock(Timestamp),
}

/// A call that is not answered yet.
#[derive(Debug)]
struct Call {
    answers: Vec<Option<Result<Answer, Failure>>>,
    grants: Vec<Grant>,
    /// It waits for grants.
    polling: bool,
    session: Option<SessionId>,
    /// Names the poll, for its repetition.
    request: Option<RequestId>,
    /// It heartbeats: its answer carries a committed end of the session.
    beating: bool,
}

/// Where a step's ready row goes in dispatch, and what its poll is granted: shared by batch and outcome.
impl Lane {
    /// A lane with nothing in it.
    pub fn new(config: Config) -> Lane {
        Lane {
            issued: 0,
            under_way: false,
            cache: Cache::new(config.cached_runs, config.cached_bytes),
            reports: VecDeque::new(),
            submits: VecDeque::new(),
            stale: BTreeMap::new(),
            absent: BTreeSet::new(),
            calls: BTreeMap::new(),
            beating: Vec::new(),
            refresh: BTreeSet::new(),
            flight: None,
            batch_runs: usize::MAX,
            dispatch: Dispatch::default(),
            sessions: Sessions::default(),
            timers: BTreeSet::new(),
            housekeeping_due: Timestamp(i64::MIN),
            clocks_due: Timestamp(i64::MIN),
            others: 0,
            replies: Vec::new(),
            touched: Vec::new(),
            woken: Vec::new(),
            config,
        }
    }

    /// Takes a call in.
    pub fn ask(&mut self, ask: Ask, now: Timestamp) {
        let Ask { ticket, commands, sheddable, beat, poll } = ask;
        if sheddable && self.submits.len() + commands.len() > self.config.waiting_submits {
            let answers = commands.iter().map(|_| Err(Failure::Overloaded)).collect();
            self.replies.push(Reply { ticket, answers, grants: Vec::new(), session: None });
            return;
        }
        let mut call = Call {
            answers: Vec::new(),
            grants: Vec::new(),
            polling: poll.is_some(),
            session: beat.as_ref().map(|beat| beat.session).or(poll.as_ref().map(|poll| poll.session)),
            request: poll.as_ref().and_then(|poll| poll.request),
            beating: beat.is_some(),
        };
        if let Some(beat) = beat {
            self.take_beat(ticket, &mut call, beat, now);
        }
        for Asked { run, workflow, command } in commands {
            let slot = call.answers.len();
            call.answers.push(None);
            let origin = Origin::Call(ticket, slot);
            let create = matches!(command, Command::Create(_));
            let pending = Pending { run, workflow, command, origin, arrived: self.issued, tried_at: None };
            if create { self.submits.push_back(pending) } else { self.reports.push_back(pending) }
        }
        if let Some(poll) = poll {
            self.take_poll(ticket, &mut call, poll, now);
        }
        let beating = call.beating;
        self.calls.insert(ticket, call);
        self.finish(ticket, now);
        if beating && self.calls.contains_key(&ticket) {
            self.beating.push(ticket);
        }
    }

    fn take_beat(&mut self, ticket: Ticket, call: &mut Call, beat: Beat, now: Timestamp) {
        self.sessions.touch(beat.session, &beat.executor, now);
        let known = self.sessions.beat(beat.session, &beat.leases, beat.complete, now);
        for (slot, (lease, known)) in beat.leases.into_iter().zip(known).enumerate() {
            call.answers.push(known.map(|(sequence, directive)| {
                Ok(Answer::Reported { fresh: true, sequence, directive })
            }));
            if known.is_none() {
                let report = Report::Heartbeat { checkpoint: lease.checkpoint };
                self.reports.push_back(Pending {
                    run: lease.token.run,
                    workflow: None,
                    command: Command::Report { lease: Lease::from(&lease.token), report },
                    origin: Origin::Call(ticket, slot),
                    arrived: self.issued,
                    tried_at: None,
                });
            }
        }
    }

    fn take_poll(&mut self, ticket: Ticket, call: &mut Call, poll: Poll, now: Timestamp) {
        self.sessions.touch(poll.session, &poll.executor, now);
        let undelivered = |grant: &&Grant| {
            let token = &grant.token;
            self.sessions.undelivered(poll.session, token.run, token.step(), token.attempt)
        };
        let again: Vec<Grant> = self.dispatch.granted(&poll).iter().filter(undelivered).cloned().collect();
        let ended = self.sessions.standing(poll.session, now) == Some(Standing::Ended);
        if ended || !again.is_empty() {
            call.grants = again;
            call.polling = false;
        } else if let Some(replaced) = self.dispatch.park(ticket, poll) {
            self.end_polling(replaced, now);
        }
    }

    /// The caller of a poll waits no more: its time is up, or it is gone.
    pub fn end_poll(&mut self, ticket: Ticket, gone: bool, now: Timestamp) {
        if self.dispatch.end(ticket, gone) {
            self.end_polling(ticket, now);
        }
    }

    /// Grants whose caller could not be told: their steps are ready again at once.
    pub fn hand_back(&mut self, tokens: impl IntoIterator<Item = LeaseToken>, now: Timestamp, random: Random<'_>) {
        for token in tokens {
            let cause = Cause::DispatchTimeout;
            let command = Command::Revoke { step: token.step(), attempt: token.attempt, cause, jitter: random() };
            self.remind(token.run, command, now);
        }
    }

    fn end_polling(&mut self, ticket: Ticket, now: Timestamp) {
        if let Some(call) = self.calls.get_mut(&ticket) {
            call.polling = false;
        }
        self.finish(ticket, now);
    }

    /// Replies if nothing is missing any more.
    fn finish(&mut self, ticket: Ticket, now: Timestamp) {
        let Some(call) = self.calls.get(&ticket) else { return };
        let waits_for_session = call.beating && call.session.is_some_and(|session| self.sessions.renewing(session));
        if call.polling || waits_for_session || call.answers.iter().any(Option::is_none) {
            return;
        }
        let Some(call) = self.calls.remove(&ticket) else { return };
        self.replies.push(Reply {
            ticket,
            answers: call.answers.into_iter().flatten().collect(),
            grants: call.grants,
            session: call.session.and_then(|session| self.sessions.standing(session, now)),
        });
    }

    fn answer(&mut self, ticket: Ticket, slot: usize, answer: Result<Answer, Failure>, now: Timestamp) {
        if let Some(call) = self.calls.get_mut(&ticket) {
            call.answers[slot] = Some(answer);
        }
        self.finish(ticket, now);
    }

    /// What the driver is to do next; nothing while work is under way, or when all is done until [`Lane::wake_at`].
    pub fn next(&mut self, now: Timestamp, random: Random<'_>) -> Option<Work> {
        if self.under_way {
            return None;
        }
        self.look_at_clocks(now, random);
        let work = self
            .housekeeping(now)
            .or_else(|| Some(self.sessions.forgettable(now)).filter(|ids| !ids.is_empty()).map(Work::ForgetSessions))
            .or_else(|| Some(self.sessions.expired(now)).filter(|ids| !ids.is_empty()).map(Work::EndSessions))
            .or_else(|| self.reading())
            .or_else(|| self.writing(now, random));
        self.under_way = work.is_some();
        self.issued += u64::from(work.is_some());
        work
    }

    /// When to call [`Lane::next`] again though nobody asks.
    pub fn wake_at(&self) -> Timestamp {
        let timer = self.timers.first().map_or(Timestamp(i64::MAX), |(due, ..)| *due);
        let clocks = if self.sessions.is_empty() { Timestamp(i64::MAX) } else { self.clocks_due };
        timer.min(clocks).min(self.housekeeping_due)
    }

    /// What callers are told; taken once.
    pub fn replies(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.replies)
    }

    /// Runs that changed since this was last asked: a hint for those who watch them.
    pub fn touched(&mut self) -> Vec<RunId> {
        std::mem::take(&mut self.touched)
    }

    /// Sessions that have a new directive: a hint for heartbeats that are held.
    pub fn woken(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.woken)
    }

    fn remind(&mut self, run: RunId, command: Command, due: Timestamp) {
        let origin = Origin::Clock(due);
        let arrived = self.issued;
        self.reports.push_back(Pending { run, workflow: None, command, origin, arrived, tried_at: None });
    }

    fn look_at_clocks(&mut self, now: Timestamp, random: Random<'_>) {
        while let Some((due, run, timer)) = self.timers.first().copied().filter(|(due, ..)| *due <= now) {
            self.timers.pop_first();
            self.remind(run, Command::Fire(timer), due);
        }
        let clock = |pending: &Pending| matches!(pending.origin, Origin::Clock(_));
        if self.clocks_due > now || self.reports.iter().any(clock) {
            return;
        }
        self.clocks_due = now + self.config.clock_period;
        for due in self.sessions.overdue(now) {
            let (step, attempt, cause) = (due.step, due.attempt, due.cause);
            self.remind(due.run, Command::Revoke { step, attempt, cause, jitter: random() }, due.due);
        }
    }

    fn housekeeping(&mut self, now: Timestamp) -> Option<Work> {
        if self.housekeeping_due > now {
            return None;
        }
        self.housekeeping_due = now + self.config.housekeeping;
        let known = |run: RunId| self.cache.version(run).map(|(no, version)| (run, no, version));
        let watched = if self.others == 0 { Vec::new() } else { self.sessions.watched() };
        Some(Work::Housekeep(Housekeep {
            horizon: Duration(self.config.housekeeping.0 * 2),
            queues: self.dispatch.parked_queues(),
            watched: watched.into_iter().filter_map(known).collect(),
            progress: self.sessions.take_progress(),
        }))
    }

    fn reading(&mut self) -> Option<Work> {
        let mut load = Load { runs: BTreeMap::new(), ready: self.dispatch.wanted() };
        let limit = self.config.batch_commands;
        for pending in self.reports.iter().chain(&self.submits).take(limit) {
            let create = matches!(pending.command, Command::Create(_));
            match self.stale.get(&pending.run) {
                Some(lock) => drop(load.runs.insert(pending.run, *lock)),
                None if create || self.cache.holds(pending.run) || self.absent.contains(&pending.run) => {}
                None => drop(load.runs.insert(pending.run, false)),
            }
        }
        for run in self.refresh.iter().copied().chain(self.sessions.searching()).take(limit) {
            load.runs.entry(run).or_insert(false);
        }
        (!load.runs.is_empty() || !load.ready.is_empty()).then_some(Work::Load(load))
    }
}

impl From<&LeaseToken> for Lease {
    fn from(token: &LeaseToken) -> Lease {
        Lease { step: token.step(), attempt: token.attempt, secret: token.secret.hash() }
    }
}
