//! The lane: the one path on which runs change.
//!
//! Callers [`ask`](Lane::ask); the driver calls [`next`](Lane::next), does the [`Work`] that it is given against Postgres, and
//! reports the outcome ([`loaded`](Lane::loaded), [`committed`](Lane::committed), …); then it takes the
//! [`replies`](Lane::replies). A reply leaves only after the commit that made it true.
//!
//! ```text
//!   ask ──▶ inbox ──▶ batch: decide in memory, match ready steps with polls ──▶ Write ──▶ committed ──▶ replies
//!                ╲─▶ Load (runs not in the cache, ready rows for polls that wait) ─▶ loaded ─╱
//! ```
//!
//! A batch is all that waits when the previous work is done: no timer. Works go one after another, but for this: once enough
//! waits to fill a good batch, another write of *other* runs is decided and given while the first is under way, up to three at
//! a time. What is asked of a run in between waits for its write. What happens to a write:
//!
//! - **done**: runs whose fence held are answered; the others were changed by another replica, are read again, and their
//!   commands are applied again;
//! - **failed**: nothing happened; the batch is halved and tried again, down to a single command, which is then answered with
//!   the failure;
//! - **unknown**: the runs are read under lock, which waits for a commit that is still on its way, and the commands are applied
//!   again: a token or request id shows what was already done.
//!
//! The lane has no async, clock or randomness: the simulation drives this code under a virtual clock.

mod ask;
mod batch;
mod cache;
mod calls;
mod clock;
mod dispatch;
mod inspect;
mod outcome;
mod session;
mod sessions;
mod timeouts;
pub mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use ask::{
    Ask, Asked, Beat, Failure, Grant, GrantedRun, LeaseBeat, Poll, Progress, Reply, Standing, Ticket,
};
pub use clock::DISPATCH_TIMEOUT;
pub use inspect::{Counts, Inspection};
pub use session::SESSION_LASTS;

use crate::command::{Command, Lease, Timer};
use crate::definition::Workflow;
use crate::ids::{LeaseToken, RunId, SessionId};
use crate::time::{Duration, Timestamp};

use batch::Flight;
use cache::Cache;
use calls::Call;
use dispatch::{Dispatch, PollNo};
use sessions::Sessions;
use work::{Housekeep, Load, Over, Own, Work};

/// How long the lane's own doings leave a run alone that the database refused to store: doubled from the one to the other.
const SHUNNED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(64));
/// Every so many rounds of housekeeping, no lease and no ready step is overlooked.
const THOROUGH: u64 = 6;

/// The bounds of a lane.
#[derive(Debug, Clone)]
pub struct Config {
    /// Commands that one write takes.
    pub batch_commands: usize,
    /// So many commands are worth a write of their own while another is under way, and twice as many while two are: fewer wait for
    /// the end of one, and go together.
    pub ahead_commands: usize,
    /// Writes under way at a time, of different runs.
    pub writes_at_once: usize,
    /// Bytes of payload that one write takes, roughly; a single command may have more.
    pub batch_bytes: usize,
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
            ahead_commands: 64,
            writes_at_once: 3,
            batch_bytes: 16 << 20,
            waiting_submits: 8192,
            cached_runs: 16_384,
            cached_bytes: 256 << 20,
            housekeeping: Duration::from_secs(5),
            clock_period: Duration::from_millis(200),
        }
    }
}

impl Config {
    /// Whether so many more submits may wait where some do. A batch that is larger than the bound is taken when nothing waits.
    pub fn has_room(&self, waiting: usize, submits: usize) -> bool {
        waiting == 0 || waiting + submits <= self.waiting_submits
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
    /// Work other than a write is under way: it goes alone.
    under_way: bool,
    /// Since the last work ended, nobody was told yet what that means for sessions.
    untold: bool,
    /// The last work read: what can be decided now is written before more is read.
    has_read: bool,
    cache: Cache,
    /// Reports, timers, operator calls: before submits.
    reports: VecDeque<Pending>,
    submits: VecDeque<Pending>,
    /// Reports in the last writes: all of the last one, half of the one before, and so on.
    busy: usize,
    /// Runs to read before their commands are applied, and whether under lock.
    stale: BTreeMap<RunId, bool>,
    /// Runs that a read did not find, and which work it was.
    absent: BTreeMap<RunId, u64>,
    calls: BTreeMap<Ticket, Call>,
    /// Heartbeats among them: they may wait for their session's renewal.
    beating: Vec<Ticket>,
    /// Runs to read for the lane's own sake: ready steps that were read belong to them, or another replica changed them while
    /// their leases are looked after here.
    refresh: BTreeSet<RunId>,
    /// Writes under way, of different runs.
    flights: Vec<Flight>,
    /// Runs that a write takes at most: halved when one fails, so that a poisonous run ends up alone.
    batch_runs: usize,
    /// So is a poisonous command of a run.
    one_by_one: bool,
    /// Runs that ended up so; until when no timer or poll brings them up, and how long that was.
    shunned: BTreeMap<RunId, (Timestamp, Duration)>,
    dispatch: Dispatch,
    sessions: Sessions,
    timers: BTreeSet<(Timestamp, RunId, Timer)>,
    housekeeping_due: Timestamp,
    rounds: u64,
    clocks_due: Timestamp,
    /// Sessions whose time was up when the clocks were last looked at, and sessions to forget.
    expired: Vec<SessionId>,
    forgettable: Vec<SessionId>,
    /// Other replicas that are present.
    others: usize,
    /// None was, since all leases were looked for: there are none that are not known here.
    sole: bool,
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
    Poll(PollNo, Arc<str>),
    /// A timer or clock of the lane itself, due then.
    Clock(Timestamp),
}

impl Lane {
    /// A lane with nothing in it.
    pub fn new(config: Config) -> Lane {
        Lane {
            issued: 0,
            under_way: false,
            untold: false,
            has_read: false,
            cache: Cache::new(config.cached_runs, config.cached_bytes),
            reports: VecDeque::new(),
            submits: VecDeque::new(),
            busy: 0,
            stale: BTreeMap::new(),
            absent: BTreeMap::new(),
            calls: BTreeMap::new(),
            beating: Vec::new(),
            refresh: BTreeSet::new(),
            flights: Vec::new(),
            batch_runs: usize::MAX,
            one_by_one: false,
            shunned: BTreeMap::new(),
            dispatch: Dispatch::default(),
            sessions: Sessions::default(),
            timers: BTreeSet::new(),
            housekeeping_due: Timestamp(i64::MIN),
            rounds: 0,
            clocks_due: Timestamp(i64::MIN),
            expired: Vec::new(),
            forgettable: Vec::new(),
            others: 0,
            sole: false,
            replies: Vec::new(),
            touched: Vec::new(),
            woken: Vec::new(),
            config,
        }
    }

    /// What the driver is to do next; nothing while there is enough under way, or when all is done until [`Lane::wake_at`].
    pub fn next(&mut self, now: Timestamp, random: Random<'_>) -> Option<Work> {
        self.keep_time(now);
        if std::mem::take(&mut self.untold) {
            self.tell_sessions(now);
        }
        if self.under_way {
            return None;
        }
        let work = match self.flights.len() {
            0 => self.alone(now, random),
            _ if self.goes_ahead(now) => self.writing(false, now, random),
            _ => None,
        };
        self.issued += u64::from(work.is_some());
        self.under_way = work.as_ref().is_some_and(|work| !matches!(work, Work::Write(_)));
        work
    }

    /// A clock that is set back does not put off what is done every few seconds.
    fn keep_time(&mut self, now: Timestamp) {
        self.housekeeping_due = self.housekeeping_due.min(now + self.config.housekeeping);
        self.clocks_due = self.clocks_due.min(now + self.config.clock_period);
    }

    /// Whether another write is worth it: there is much to write, nothing else is due, and no run is suspected of being refused.
    fn goes_ahead(&self, now: Timestamp) -> bool {
        self.flights.len() < self.config.writes_at_once
            && self.waiting_commands() >= self.config.ahead_commands * self.flights.len()
            && self.batch_runs >= self.config.batch_commands
            && !self.one_by_one
            && self.wake_at() > now
            && self.reading().is_none()
    }

    fn alone(&mut self, now: Timestamp, random: Random<'_>) -> Option<Work> {
        // Before the clocks: it says for how long they stood still.
        let work = self.housekeeping(now).or_else(|| {
            self.look_at_clocks(now, random);
            let expired = std::mem::take(&mut self.expired);
            self.over(expired).map(Work::EndSessions)
        });
        let work = work.or_else(|| {
            let mut forgettable = std::mem::take(&mut self.forgettable);
            // A round may have come in between, and found leases.
            forgettable.retain(|id| self.sessions.holds_nothing(*id));
            self.over(forgettable).map(Work::ForgetSessions)
        });
        work.or_else(|| self.reading_or_writing(now, random))
    }

    fn over(&self, ids: Vec<SessionId>) -> Option<Over> {
        (!ids.is_empty()).then_some(Over { ids, look: !self.sole })
    }

    fn reading_or_writing(&mut self, now: Timestamp, random: Random<'_>) -> Option<Work> {
        if std::mem::take(&mut self.has_read)
            && let Some(work) = self.writing(false, now, random)
        {
            return Some(work);
        }
        loop {
            if let Some(work) = self.reading() {
                self.has_read = true;
                return Some(work);
            }
            if let Some(work) = self.writing(true, now, random) {
                return Some(work);
            }
            // A batch that changed nothing was answered; what did not fit into it is next.
            if self.reports.is_empty() && self.submits.is_empty() && !self.dispatch.can_match() {
                return None;
            }
        }
    }

    /// When to call [`Lane::next`] again though nobody asks.
    pub fn wake_at(&self) -> Timestamp {
        let timer = self.timers.first().map_or(Timestamp(i64::MAX), |(due, ..)| *due);
        let clocks = if self.sessions.is_empty() { Timestamp(i64::MAX) } else { self.clocks_due };
        timer.min(clocks).min(self.housekeeping_due)
    }

    /// Submits that wait to be decided.
    pub fn waiting_submits(&self) -> usize {
        self.submits.len()
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
            match self.shunned_until(run, now) {
                Some(until) => drop(self.timers.insert((until, run, timer))),
                None => self.remind(run, Command::Fire(timer), due),
            }
        }
        if self.clocks_due > now {
            return;
        }
        self.clocks_due = now + self.config.clock_period;
        self.expired = self.sessions.expired(now);
        if self.others > 0 {
            self.expired.retain(|id| {
                let doubtful = self.sessions.unverified(*id);
                self.refresh.extend(&doubtful);
                doubtful.is_empty()
            });
        }
        self.forgettable = self.sessions.forgettable(now);
        for due in self.sessions.overdue(now) {
            if self.shunned_until(due.run, now).is_some() {
                self.sessions.release(due.run, due.step);
                continue;
            }
            let (step, attempt, cause) = (due.step, due.attempt, due.cause);
            self.remind(due.run, Command::Revoke { step, attempt, cause, jitter: random() }, due.due);
        }
    }

    /// The database refused to store the run.
    fn shun(&mut self, run: RunId, now: Timestamp) {
        let (shortest, longest) = SHUNNED;
        let span = self.shunned.get(&run).map_or(shortest, |(_, span)| Duration(span.0 * 2).min(longest));
        self.shunned.insert(run, (now + span, span));
    }

    fn shunned_until(&self, run: RunId, now: Timestamp) -> Option<Timestamp> {
        self.shunned.get(&run).map(|(until, _)| *until).filter(|until| *until > now)
    }

    fn housekeeping(&mut self, now: Timestamp) -> Option<Work> {
        if self.housekeeping_due > now {
            return None;
        }
        self.housekeeping_due = now + self.config.housekeeping;
        self.rounds += 1;
        // Of its own ready rows it knows, but for those of runs that the database refused to store.
        let doubtful = self.others > 0 || !self.shunned.is_empty();
        self.shunned.retain(|_, (until, span)| *until + *span > now);
        self.dispatch.round();
        self.dispatch
            .forget_grants(|token| self.sessions.undelivered(token.run, token.step(), token.attempt));
        // The first one too: leases whose sessions are gone are found when a server starts.
        let thorough = self.is_thorough();
        let own = match (thorough, self.sole) {
            (true, _) => Own::All,
            (false, true) => Own::Known,
            (false, false) => Own::Over,
        };
        Some(Work::Housekeep(Housekeep {
            horizon: self.horizon(),
            queues: if doubtful || thorough { self.dispatch.parked_queues() } else { Vec::new() },
            watched: if self.others == 0 { Vec::new() } else { self.sessions.watched() },
            progress: self.sessions.take_progress(),
            own,
        }))
    }

    /// Whether the last round overlooks nothing.
    fn is_thorough(&self) -> bool {
        self.rounds % THOROUGH == 1
    }

    /// How far ahead timers are kept in memory.
    fn horizon(&self) -> Duration {
        Duration(self.config.housekeeping.0 * 2)
    }

    fn reading(&self) -> Option<Work> {
        let ready = self.dispatch.wanted(self.shunned.len());
        let limit = self.config.batch_commands;
        let asked = self.reports.iter().chain(&self.submits).take(limit);
        let asked = asked.filter(|pending| !self.is_read(pending)).map(|pending| pending.run);
        let own = self.refresh.iter().copied().chain(self.sessions.searching()).take(limit);
        let lock = |run: RunId| self.stale.get(&run).copied().unwrap_or(false);
        let load = Load { runs: asked.chain(own).map(|run| (run, lock(run))).collect(), ready };
        (!load.runs.is_empty() || !load.ready.is_empty()).then_some(Work::Load(load))
    }

    /// Whether a command can be applied to what is in memory, or will be once a write under way is done.
    fn is_read(&self, pending: &Pending) -> bool {
        let create = matches!(pending.command, Command::Create(_));
        let known = || create || self.cache.holds(pending.run) || self.absent.contains_key(&pending.run);
        self.is_flying(pending.run) || !self.stale.contains_key(&pending.run) && known()
    }

    /// Whether a write of the run is under way.
    fn is_flying(&self, run: RunId) -> bool {
        self.flights.iter().any(|flight| flight.entries.contains_key(&run))
    }
}

impl From<&LeaseToken> for Lease {
    fn from(token: &LeaseToken) -> Lease {
        Lease { step: token.step(), attempt: token.attempt, secret: token.secret.hash() }
    }
}
