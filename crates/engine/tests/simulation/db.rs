//! A model of the database: what `lane/work.rs` says of each work, one statement at a time, each atomic at its moment.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use longtake_engine::command::Timer;
use longtake_engine::definition::Workflow;
use longtake_engine::event::{Event, EventKind};
use longtake_engine::evolve;
use longtake_engine::ids::{RunId, RunNo, SessionId, StepNo};
use longtake_engine::lane::work::{
    AdoptedSession, Fence, Found, HotRow, Housekeep, Load, Loaded, Over, Own, Place, ReadyStep, RunWrite,
    SessionWrite, Stored, Write,
};
use longtake_engine::run::{Checkpoint, CheckpointData, Run};
use longtake_engine::time::{Duration, Timestamp};

use crate::rules::Judge;
use crate::stats::{Hit, Stats};

/// One life of a server.
pub type Replica = u64;

/// A presence that is older is gone.
const PRESENT: Duration = Duration::from_secs(15);

pub struct Db {
    pub runs: BTreeMap<RunId, Row>,
    pub sessions: BTreeMap<SessionId, SessionRow>,
    pub presence: BTreeMap<Replica, Timestamp>,
    pub outages: Vec<(Timestamp, Duration)>,
    /// Writes whose servers lost their connection and that may still be applied.
    pub late: Vec<Late>,
    /// The latest end that was ever committed for a session: what executors may believe.
    pub promised: BTreeMap<SessionId, Timestamp>,
    /// Sessions that have ended at some time; a name that goes on being used may lose its leases at any time.
    pub ended: BTreeSet<SessionId>,
    /// How often a complete heartbeat left a lease out.
    pub left_out: BTreeMap<(RunId, StepNo, u32), u32>,
    /// Runs of which a write came after everybody had given it up.
    pub surprised: BTreeSet<RunId>,
    /// Runs of which a write was refused, and when last.
    pub refused: BTreeMap<RunId, Timestamp>,
    /// Whether a run that leases a step to a session that has ended is left alone.
    pub fences_sessions: bool,
    /// A run that cannot be stored.
    pub poison: Option<RunId>,
    pub stats: Stats,
    numbers: i64,
}

/// A run's rows.
pub struct Row {
    pub no: RunNo,
    pub workflow: Arc<Workflow>,
    /// The fold of `events`.
    pub run: Rc<Run>,
    pub hot: HotRow,
    pub events: Vec<Event>,
    pub ready: BTreeMap<StepNo, Timestamp>,
    pub timers: BTreeMap<Timer, Timestamp>,
    pub checkpoints: BTreeMap<StepNo, Checkpoint>,
    /// Every state that was ever committed, and when.
    pub history: Vec<(Timestamp, Rc<Run>)>,
    /// Who wrote it last.
    pub by: Replica,
}

pub struct SessionRow {
    pub executor: Arc<str>,
    pub until: Timestamp,
    pub ended: bool,
    pub replica: Replica,
}

pub struct Late {
    pub id: u64,
    pub write: Write,
    pub replica: Replica,
    /// It is executing and holds its locks; else it is on its way, and nobody can wait for it.
    pub executing: bool,
    /// Whether it will be applied, or its connection dies first.
    pub applies: bool,
}

/// What a write did.
pub struct Applied {
    pub written: BTreeMap<RunId, RunNo>,
    pub sessions: BTreeMap<SessionId, Timestamp>,
}

impl Db {
    pub fn new(fences_sessions: bool) -> Db {
        Db {
            runs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            presence: BTreeMap::new(),
            outages: Vec::new(),
            late: Vec::new(),
            promised: BTreeMap::new(),
            ended: BTreeSet::new(),
            left_out: BTreeMap::new(),
            surprised: BTreeSet::new(),
            refused: BTreeMap::new(),
            fences_sessions,
            poison: None,
            stats: Stats::default(),
            numbers: 0,
        }
    }

    /// Whether the database refuses to store this.
    pub fn refuses(&mut self, write: &Write, now: Timestamp) -> bool {
        let poisoned = write.runs.iter().any(|run| Some(run.id) == self.poison);
        if poisoned {
            self.stats.hit(Hit::PoisonedWrite);
            self.refused.extend(write.runs.iter().map(|run| (run.id, now)));
        }
        poisoned
    }

    /// A write, done now. It waits for late ones that hold locks which it needs.
    pub fn write(&mut self, write: &Write, replica: Replica, now: Timestamp) -> Applied {
        let runs: BTreeSet<RunId> = write.runs.iter().map(|run| run.id).collect();
        let sessions: BTreeSet<SessionId> = write.sessions.iter().map(|session| session.id).collect();
        self.wait_for(&runs, &sessions, now);
        self.apply(write, replica, now)
    }

    /// Late writes that hold these locks are done, or die, before anybody else has them.
    pub fn wait_for(&mut self, runs: &BTreeSet<RunId>, sessions: &BTreeSet<SessionId>, now: Timestamp) {
        let holds = |late: &Late| {
            late.executing
                && (late.write.runs.iter().any(|run| runs.contains(&run.id))
                    || late.write.sessions.iter().any(|session| sessions.contains(&session.id)))
        };
        while let Some(at) = self.late.iter().position(holds) {
            self.stats.hit(Hit::LateForced);
            let late = self.late.remove(at);
            self.end_late(&late, now);
        }
    }

    /// A late write is done, or dies.
    pub fn end_late(&mut self, late: &Late, now: Timestamp) {
        if late.applies {
            let applied = self.apply(&late.write, late.replica, now);
            if !late.executing {
                self.surprised.extend(applied.written.keys());
            }
            let all = applied.written.len() == late.write.runs.len();
            self.stats.hit(if all { Hit::LateApplied } else { Hit::LateFenced });
        }
    }

    fn apply(&mut self, write: &Write, replica: Replica, now: Timestamp) -> Applied {
        self.stats.hit(Hit::Write);
        let renewed = write
            .sessions
            .iter()
            .filter_map(|session| Some((session.id, self.renew(session, replica, now)?)));
        let sessions = renewed.collect::<Vec<_>>().into_iter().collect();
        let mut written = BTreeMap::new();
        for run in &write.runs {
            if self.fence_holds(run, now) {
                written.insert(run.id, self.store(run, replica, now));
            }
        }
        Applied { written, sessions }
    }

    fn renew(&mut self, write: &SessionWrite, replica: Replica, now: Timestamp) -> Option<Timestamp> {
        let until = now + write.lasts;
        let new = || SessionRow { executor: write.executor.clone(), until, ended: false, replica };
        let row = self.sessions.entry(write.id).or_insert_with(new);
        if row.ended {
            return None;
        }
        (row.until, row.replica) = (until, replica);
        self.promise(write.id, until);
        Some(until)
    }

    fn promise(&mut self, id: SessionId, until: Timestamp) {
        let promised = self.promised.entry(id).or_insert(until);
        *promised = until.max(*promised);
    }

    fn fence_holds(&mut self, write: &RunWrite, now: Timestamp) -> bool {
        let row = self.runs.get(&write.id);
        let holds = match (&write.fence, row) {
            (Fence::Absent(_), row) => row.is_none(),
            (Fence::Version { no, version }, Some(row)) => row.no == *no && row.hot.version == *version,
            (Fence::Version { .. }, None) => false,
        };
        if !holds {
            let create = matches!(write.fence, Fence::Absent(_));
            self.stats.hit(if create { Hit::CreateConflict } else { Hit::Conflict });
            return false;
        }
        if write.not_before.is_some_and(|due| due > now) {
            self.stats.hit(Hit::TooEarly);
            return false;
        }
        let leases = write.events.iter().filter_map(|event| match &event.kind {
            EventKind::StepLeased { session, .. } => Some(session),
            _ => None,
        });
        let lives = |session: &SessionId| self.sessions.get(session).is_some_and(|row| !row.ended);
        if self.fences_sessions && !leases.clone().all(lives) {
            self.stats.hit(Hit::SessionFence);
            return false;
        }
        true
    }

    fn store(&mut self, write: &RunWrite, replica: Replica, now: Timestamp) -> RunNo {
        let row = self.runs.remove(&write.id);
        let judge = Judge {
            id: write.id,
            workflow: &write.workflow,
            now,
            sessions: &self.sessions,
            ended: &self.ended,
            outages: &self.outages,
            left_out: &self.left_out,
        };
        let row = judge.with_events(row, write, &mut self.numbers, &mut self.stats);
        let no = row.no;
        self.runs.insert(write.id, Row { by: replica, ..row });
        no
    }

    pub fn load(&mut self, load: &Load, now: Timestamp) -> Loaded {
        let locked: BTreeSet<RunId> =
            load.runs.iter().filter(|(_, lock)| **lock).map(|(run, _)| *run).collect();
        if !locked.is_empty() {
            self.stats.hit(Hit::LockedRead);
            self.wait_for(&locked, &BTreeSet::new(), now);
        }
        let mut ready = BTreeMap::new();
        for (queue, head) in &load.ready {
            let rows = self.ready_rows(queue).into_iter().skip_while(|row| row.place < head.from);
            ready.insert(queue.clone(), rows.take(head.count).collect());
        }
        let runs = load.runs.keys().filter_map(|id| self.runs.get(id)).map(Row::stored).collect();
        Loaded { runs, ready }
    }

    /// Ready steps of a queue in dispatch order.
    pub fn ready_rows(&self, queue: &str) -> Vec<ReadyStep> {
        let mut rows: Vec<_> = self
            .runs
            .iter()
            .flat_map(|(id, row)| row.ready.iter().map(move |(step, since)| (id, row, *step, *since)))
            .filter(|(_, row, step, _)| row.workflow.steps[*step].queue == queue)
            .map(|(id, row, step, since)| ReadyStep {
                run: *id,
                step,
                place: Place::new(row.run.request.priority, since),
            })
            .collect();
        rows.sort_unstable_by_key(|row| (row.place, row.run, row.step));
        rows
    }

    /// Runs in which a session holds leases.
    fn held_by(&self, session: SessionId) -> Vec<RunId> {
        let holds = |row: &Row| row.hot.sessions.contains(&Some(session));
        self.runs.iter().filter(|(_, row)| holds(row)).map(|(id, _)| *id).collect()
    }

    pub fn end_sessions(&mut self, asked: &Over, now: Timestamp) -> BTreeMap<SessionId, Vec<RunId>> {
        self.wait_for(&BTreeSet::new(), &asked.ids.iter().copied().collect(), now);
        let mut ended = BTreeMap::new();
        for id in &asked.ids {
            if let Some(row) = self.sessions.get_mut(id) {
                let over = !row.ended && row.until < now;
                row.ended |= over;
                let over = row.ended;
                self.stats.hit(if over { Hit::SessionEnded } else { Hit::SessionEndedElsewhere });
                if !over {
                    continue;
                }
                if !asked.look {
                    self.stats.hit(Hit::SessionEndedUnlooked);
                }
                self.ended.insert(*id);
            }
            ended.insert(*id, if asked.look { self.held_by(*id) } else { Vec::new() });
        }
        ended
    }

    pub fn forget_sessions(&mut self, asked: &Over, now: Timestamp) {
        self.wait_for(&BTreeSet::new(), &asked.ids.iter().copied().collect(), now);
        for id in &asked.ids {
            let over = self.sessions.get(id).is_some_and(|row| row.ended || row.until < now);
            if over && (!asked.look || self.held_by(*id).is_empty()) {
                self.stats.hit(Hit::SessionForgotten);
                self.sessions.remove(id);
            }
        }
    }

    pub fn housekeep(&mut self, round: &Housekeep, replica: Replica, now: Timestamp) -> Found {
        self.credit_outage(now);
        self.presence.insert(replica, now);
        let present =
            |other: Replica| self.presence.get(&other).is_some_and(|seen| now.since(*seen) <= PRESENT);
        let others = self.presence.keys().filter(|other| **other != replica && present(**other)).count();
        let gone: BTreeSet<Replica> =
            self.sessions.values().map(|row| row.replica).filter(|of| !present(*of)).collect();
        let mut adopted: BTreeSet<SessionId> = BTreeSet::new();
        let wanted = |row: &SessionRow| match round.own {
            Own::Known => false,
            Own::Over => row.ended || row.until < now,
            Own::All => true,
        };
        for (id, row) in &mut self.sessions {
            if gone.contains(&row.replica) {
                self.stats.hit(Hit::SessionAdopted);
                row.replica = replica;
                adopted.insert(*id);
            } else if row.replica == replica && wanted(row) {
                self.stats.hit(Hit::SessionFoundAgain);
                adopted.insert(*id);
            }
        }
        let holders = self.runs.values().flat_map(|row| row.hot.sessions.iter().flatten());
        adopted.extend(holders.filter(|id| round.own == Own::All && !self.sessions.contains_key(id)));
        let adopted = adopted.into_iter().map(|id| self.adopted(id)).collect();
        let horizon = now + round.horizon;
        let timers = self
            .runs
            .iter()
            .flat_map(|(id, row)| row.timers.iter().map(move |(timer, due)| (*due, *id, *timer)));
        Found {
            timers: timers.filter(|(due, ..)| *due <= horizon).collect(),
            ready: round.queues.iter().filter(|queue| !self.ready_rows(queue).is_empty()).cloned().collect(),
            changed: round
                .watched
                .iter()
                .filter(|watched| self.changed(watched))
                .map(|(run, ..)| *run)
                .collect(),
            adopted,
            others,
            outages: self.outages.clone(),
        }
    }

    fn changed(&self, (run, no, version): &(RunId, RunNo, i64)) -> bool {
        self.runs.get(run).is_none_or(|row| row.no != *no || row.hot.version != *version)
    }

    fn adopted(&self, id: SessionId) -> AdoptedSession {
        let runs = self.held_by(id);
        match self.sessions.get(&id) {
            Some(row) => AdoptedSession {
                id,
                executor: row.executor.clone(),
                until: row.until,
                ended: row.ended,
                runs,
            },
            None => AdoptedSession { id, executor: Arc::from("?"), until: Timestamp(0), ended: true, runs },
        }
    }

    /// The first replica back after a time without any presence gives everybody that time again, and five seconds.
    fn credit_outage(&mut self, now: Timestamp) {
        let Some(began) = self.presence.values().max().copied() else { return };
        if now.since(began) <= PRESENT {
            return;
        }
        self.stats.hit(Hit::Outage);
        let covered = self.outages.last().map_or(began, |(began, credit)| *began + *credit);
        let from = covered.max(began);
        let credit = (now + Duration::from_secs(5)).since(from);
        self.outages.push((from, credit));
        let alive = self.sessions.iter_mut().filter(|(_, row)| !row.ended && row.until >= began);
        let ends: Vec<_> = alive
            .map(|(id, row)| {
                row.until = row.until + credit;
                (*id, row.until)
            })
            .collect();
        ends.into_iter().for_each(|(id, until)| self.promise(id, until));
    }
}

impl Row {
    /// What a read returns: the fold of the history, with the content of checkpoints from where it is kept.
    fn stored(&self) -> Stored {
        let mut run = (*self.run).clone();
        for (number, step) in run.steps.iter_mut().enumerate() {
            let Some(checkpoint) = &mut step.checkpoint else { continue };
            let kept = &self.checkpoints[&number];
            assert_eq!(
                (kept.attempt, kept.sequence),
                (checkpoint.attempt, checkpoint.sequence),
                "content of a checkpoint"
            );
            checkpoint.data = kept.data.clone();
        }
        Stored { no: self.no, run, workflow: self.workflow.clone() }
    }

    /// The states that were current at some time from then on.
    pub fn since(&self, then: Timestamp) -> &[(Timestamp, Rc<Run>)] {
        let after = self.history.partition_point(|(at, _)| *at <= then);
        &self.history[after.saturating_sub(1)..]
    }

    /// Whether the row existed then.
    pub fn existed(&self, then: Timestamp) -> bool {
        self.history.first().is_some_and(|(at, _)| *at <= then)
    }
}

/// The event as its history keeps it: without the content of its checkpoint.
pub fn kept(event: &Event) -> Event {
    let mut event = event.clone();
    if let EventKind::CheckpointCommitted { checkpoint, .. } = &mut event.kind {
        checkpoint.data = Arc::new(CheckpointData::default());
    }
    event
}

/// The fold of a history.
pub fn fold(events: &[Event]) -> Option<Run> {
    events.iter().fold(None, evolve)
}
