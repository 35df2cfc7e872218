//! What a lane asks of its driver, and what it is told: the whole boundary between deciding and Postgres.
//!
//! The driver does the [`Work`] that it is given, at most a few writes at once, and reports its outcome; it decides nothing.
//! Whatever is not a [`Write`] it repeats until it is done: each may be done twice.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::Timer;
use crate::definition::Workflow;
use crate::event::Event;
use crate::ids::{RunId, RunNo, SessionId, StepNo};
use crate::rows::Changes;
use crate::run::{Checkpoint, NewRun, Run};
use crate::time::{Duration, Timestamp};

/// What a lane wants done next.
#[derive(Debug)]
pub enum Work {
    /// Read runs, and ready steps for pollers that wait.
    Load(Load),
    /// Commit a batch as one statement.
    Write(Write),
    /// End sessions whose time is up, by a statement that checks the time again. The outcome names those that have ended, now
    /// or before or because they are not known any more; the others live.
    EndSessions(Over),
    /// Forget those of these sessions that have ended or whose time is up, by a statement that checks that again, and that hold no
    /// lease.
    ForgetSessions(Over),
    /// The round of every few seconds.
    Housekeep(Housekeep),
}

/// Sessions whose time seems to be up.
#[derive(Debug, Clone, PartialEq)]
pub struct Over {
    /// The sessions.
    pub ids: Vec<SessionId>,
    /// Whether to look for their leases, among all open runs: they may hold some that are not known here.
    pub look: bool,
}

/// What to read.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Load {
    /// Runs, and whether to wait for a commit that may still be on its way (`FOR UPDATE`).
    pub runs: BTreeMap<RunId, bool>,
    /// The first ready steps of these queues. The runs that they belong to are asked for next, where they are not in memory.
    pub ready: BTreeMap<Arc<str>, Head>,
}

/// Which ready steps of a queue to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head {
    /// None before this one.
    pub from: Place,
    /// At most so many.
    pub count: usize,
}

/// Where a ready step stands in its queue; ascending in the order in which steps are given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The larger goes first.
    pub priority: Reverse<i32>,
    /// Since when it waits.
    pub since: Timestamp,
}

/// A step that waits for an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadyStep {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepNo,
    /// Steps of the same place go by run and step.
    pub place: Place,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The runs that exist.
    pub runs: Vec<Stored>,
    /// Ready steps by queue, in dispatch order.
    pub ready: BTreeMap<Arc<str>, Vec<ReadyStep>>,
}

/// A run as it was read.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its key.
    pub no: RunNo,
    /// The fold of its history, checkpoint data attached.
    pub run: Run,
    /// The version that drives it.
    pub workflow: Arc<Workflow>,
}

/// A batch to commit as one statement.
#[derive(Debug, Default, Clone)]
pub struct Write {
    /// Names it among the lane's writes.
    pub number: u64,
    /// One entry a run, ordered by id.
    pub runs: Vec<RunWrite>,
    /// Sessions to insert or renew, before the runs: a run that leases a step to a session that has ended may be left alone as
    /// if its fence had not held. (If it is written, the lane takes the lease back.)
    pub sessions: Vec<SessionWrite>,
}

/// What one run's decisions write.
#[derive(Debug, Clone)]
pub struct RunWrite {
    /// The run.
    pub id: RunId,
    /// Whether it is new, or which version was decided on.
    pub fence: Fence,
    /// The workflow, for names of steps and queues.
    pub workflow: Arc<Workflow>,
    /// Larger is dispatched first.
    pub priority: i32,
    /// Whether it was there before, and had not ended.
    pub was_open: bool,
    /// The new state of the hot row.
    pub row: HotRow,
    /// The new history entries, in order.
    pub events: Vec<Event>,
    /// Rows beside the run.
    pub changes: Changes,
    /// Checkpoints whose content is to be stored.
    pub checkpoints: Vec<(StepNo, Checkpoint)>,
    /// A time before which this write must not happen, by Postgres's clock: when its timer is due.
    pub not_before: Option<Timestamp>,
}

/// What has to be true for a write to happen.
#[derive(Debug, Clone)]
pub enum Fence {
    /// No run has this id.
    Absent(Arc<NewRun>),
    /// The hot row is at this version.
    Version {
        /// The run's key.
        no: RunNo,
        /// The number of the last event that was known.
        version: i64,
    },
}

/// The columns of a run that change.
#[derive(Debug, Clone, PartialEq)]
pub struct HotRow {
    /// The number of the last event.
    pub version: i64,
    /// The run's state as the API names it.
    pub state: &'static str,
    /// Whether it has ended, and when.
    pub ended_at: Option<Timestamp>,
    /// Cost so far, in nano-dollars.
    pub spent: i64,
    /// Saved, in nano-dollars.
    pub saved: i64,
    /// The steps' states in file order, as [`step_code`] numbers them.
    pub steps: Vec<i16>,
    /// The steps' latest attempts.
    pub attempts: Vec<i32>,
    /// The sessions that hold the steps, where they are leased.
    pub sessions: Vec<Option<SessionId>>,
}

/// A session to insert or renew, which this replica looks after from then on; one that has ended stays ended.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionWrite {
    /// The session.
    pub id: SessionId,
    /// The executor's name, for people.
    pub executor: Arc<str>,
    /// How long from the commit's time it is to last, even if it was to last longer.
    pub lasts: Duration,
}

/// What became of a write.
#[derive(Debug)]
pub enum Committed {
    /// It is durable.
    Done {
        /// The key of every run whose fence held; the others were not written.
        written: BTreeMap<RunId, RunNo>,
        /// The new ends of the sessions that live.
        sessions: BTreeMap<SessionId, Timestamp>,
    },
    /// It did not happen; the database said so.
    Failed(String),
    /// Nobody knows: the connection was lost before the database answered.
    Unknown,
}

/// The round of every few seconds: presence, and what other replicas may have done.
#[derive(Debug, Default, Clone)]
pub struct Housekeep {
    /// Timers that are due within this span are wanted.
    pub horizon: Duration,
    /// Queues that have pollers waiting, where they may have ready rows that are not known here: whether they have any.
    pub queues: Vec<Arc<str>>,
    /// Runs with live leases here, and the version that is known; only asked where other replicas are present.
    pub watched: Vec<(RunId, RunNo, i64)>,
    /// What running steps say of their progress, where it changed.
    pub progress: Vec<ProgressWrite>,
    /// Which of the sessions that this replica looks after are wanted.
    pub own: Own,
}

/// Which of its own sessions a replica wants to hear of, with the runs in which they hold leases.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// None: it knows them.
    #[default]
    Known,
    /// Those that have ended or whose time is up: another replica may have seen to that.
    Over,
    /// All, and those that hold leases but do not exist, as ended; so that no lease is overlooked.
    All,
}

/// How far a running step says it is. Not state: it is lost with the server, and nothing is decided on what is stored of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgressWrite {
    /// The run.
    pub run: RunNo,
    /// The step.
    pub step: StepNo,
    /// The attempt.
    pub attempt: u32,
    /// Units of work done.
    pub done: i64,
    /// Units in all; 0 when nobody knows.
    pub total: i64,
    /// For people.
    pub message: String,
}

/// What the round found.
#[derive(Debug, Default)]
pub struct Found {
    /// Timers that are due soon.
    pub timers: Vec<(Timestamp, RunId, Timer)>,
    /// Queues that have ready rows.
    pub ready: Vec<Arc<str>>,
    /// Watched runs that are at another version now.
    pub changed: Vec<RunId>,
    /// Sessions that this replica is to look after, with the runs in which they hold leases: those of replicas whose presence is
    /// 15 s old, once; and the [`Own`] that were asked for.
    pub adopted: Vec<AdoptedSession>,
    /// Other replicas that were present within the last 15 s, also if they have said goodbye.
    pub others: usize,
    /// The latest outages: from when on, and for how long the clocks of attempts stood still. None covers a part of another.
    pub outages: Vec<(Timestamp, Duration)>,
}

/// A session to look after.
#[derive(Debug, Clone)]
pub struct AdoptedSession {
    /// The session.
    pub id: SessionId,
    /// The executor's name.
    pub executor: Arc<str>,
    /// Its committed end.
    pub until: Timestamp,
    /// Whether it was ended already, but its leases may not all be revoked.
    pub ended: bool,
    /// Runs in which it holds leases.
    pub runs: Vec<RunId>,
}

/// The number of a step's state in the hot row.
pub fn step_code(state: crate::run::StepState) -> i16 {
    use crate::run::StepState as S;
    match state {
        S::Pending => 0,
        S::Ready(_) => 1,
        S::Leased => 2,
        S::Running => 3,
        S::BackingOff(_) => 4,
        S::Succeeded => 5,
        S::Skipped => 6,
        S::Failed => 7,
        S::TimedOut => 8,
        S::Cancelled => 9,
    }
}

impl Place {
    /// Before every step.
    pub const FIRST: Place = Place { priority: Reverse(i32::MAX), since: Timestamp(0) };

    /// That of a step of a run with this priority, which waits since then.
    pub fn new(priority: i32, since: Timestamp) -> Place {
        Place { priority: Reverse(priority), since }
    }
}

impl HotRow {
    /// The columns for a run.
    pub fn of(run: &Run) -> HotRow {
        HotRow {
            version: run.last_event,
            state: run.state.as_str(),
            ended_at: run.ended_at,
            spent: run.spent.0,
            saved: run.saved.0,
            steps: run.steps.iter().map(|step| step_code(step.state)).collect(),
            attempts: run
                .steps
                .iter()
                .map(|step| i32::try_from(step.attempt()).unwrap_or(i32::MAX))
                .collect(),
            sessions: run.steps.iter().map(|step| step.live().map(|(_, attempt)| attempt.session)).collect(),
        }
    }
}

impl crate::run::RunState {
    /// The state's name in the API, in SQL and on pages.
    pub fn as_str(self) -> &'static str {
        match self {
            crate::run::RunState::Running => "RUNNING",
            crate::run::RunState::Paused => "PAUSED",
            crate::run::RunState::Stopping(_) => "STOPPING",
            crate::run::RunState::Ended(outcome) => outcome.as_str(),
        }
    }
}
