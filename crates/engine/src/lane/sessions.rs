//! Sessions of executors, and the clocks of the attempts that they hold.
//!
//! None of this is state of a run: it says when a lease is to be taken back, and the engine decides whether it is. A server
//! that restarts finds sessions in the database and leases in the runs, and starts these clocks anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::definition::Workflow;
use crate::ids::{RunId, RunNo, SecretHash, SessionId, StepNo};
use crate::run::{Cause, Directive, Run, StepState};
use crate::time::{Duration, Timestamp};

use super::ask::{LeaseBeat, Progress, Standing};
use super::work::{ProgressWrite, SessionWrite};

/// How long a session lasts when the steps that it holds do not say otherwise.
pub const SESSION_LASTS: Duration = Duration::from_secs(30);
/// How long a lease may go unheard of before it is taken back as undelivered.
pub const DISPATCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How many complete heartbeats may leave a running lease out before it is lost.
const MISSES: u32 = 2;
/// How long a session that holds nothing is remembered.
const IDLE: Duration = Duration::from_secs(120);

/// Every session that this replica looks after.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    /// Outages: when they began and by how much attempt clocks are moved.
    pub outages: Vec<(Timestamp, Duration)>,
}

#[derive(Debug)]
pub(super) struct Session {
    executor: Arc<str>,
    /// When it last called.
    heard: Timestamp,
    /// Its committed end; none before the first commit.
    until: Option<Timestamp>,
    /// Wants a later end in the next write.
    renew: bool,
    /// Ended in the database; its leases are being revoked.
    ended: bool,
    /// Runs that are being read because it may hold leases in them.
    searching: Vec<RunId>,
    leases: BTreeMap<(RunId, StepNo), Clock>,
}

/// The clocks of one lease.
#[derive(Debug)]
pub(super) struct Clock {
    no: RunNo,
    attempt: u32,
    secret: SecretHash,
    started: bool,
    leased_at: Timestamp,
    deadline: Option<Timestamp>,
    lasts: Duration,
    progress_timeout: Option<Duration>,
    /// The largest progress, and when it grew.
    done: i64,
    grew_at: Timestamp,
    missed: u32,
    /// The newest committed checkpoint of this attempt.
    sequence: i64,
    directive: Option<Directive>,
    progress: Option<Progress>,
}

/// A lease to take back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Revocation {
    pub run: RunId,
    pub step: StepNo,
    pub attempt: u32,
    pub cause: Cause,
    /// The time that has passed, for the fence of the write.
    pub due: Timestamp,
}

impl Sessions {
    /// Makes the session known; it was heard of now.
    pub fn touch(&mut self, id: SessionId, executor: &Arc<str>, now: Timestamp) {
        self.sessions.entry(id).or_insert_with(|| Session::new(executor.clone())).heard = now;
    }

    /// Takes over a session of another replica, or of an earlier life.
    pub fn adopt(&mut self, id: SessionId, executor: &Arc<str>, until: Timestamp, ended: bool, runs: &[RunId]) {
        let session = self.sessions.entry(id).or_insert_with(|| Session::new(executor.clone()));
        session.until = session.until.max(Some(until));
        session.ended |= ended;
        session.searching.extend(runs);
    }

    /// Whether the session's committed end leaves enough time for a lease granted now; if not, it wants a renewal.
    pub fn want_time(&mut self, id: SessionId, now: Timestamp) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.want_time(now);
        }
    }

    /// A heartbeat: counts who was left out, and answers what needs no decision: the committed sequence and the directive of a
    /// running lease that brings no checkpoint.
    pub fn beat(
        &mut self,
        id: SessionId,
        leases: &[LeaseBeat],
        complete: bool,
        now: Timestamp,
    ) -> Vec<Option<(i64, Option<Directive>)>> {
        let Some(session) = self.sessions.get_mut(&id) else { return vec![None; leases.len()] };
        session.want_time(now);
        if complete {
            session.leases.values_mut().filter(|clock| clock.started).for_each(|clock| clock.missed += 1);
        }
        let answers = leases.iter().map(|beat| {
            let clock = session.leases.get_mut(&(beat.token.run, beat.token.step()))?;
            if clock.attempt != beat.token.attempt || clock.secret != beat.token.secret.hash() {
                return None;
            }
            clock.missed = 0;
            let done = beat.checkpoint.as_ref().map(|checkpoint| checkpoint.done);
            clock.advance(done.max(beat.progress.as_ref().map(|progress| progress.done)), now);
            if beat.progress.is_some() {
                clock.progress.clone_from(&beat.progress);
            }
            (clock.started && beat.checkpoint.is_none()).then_some((clock.sequence, clock.directive))
        });
        answers.collect()
    }

    /// Follows a committed run: leases that are live in it have clocks, others have none. Returns sessions whose directive is new.
    pub fn follow(&mut self, no: RunNo, run: &Run, workflow: &Workflow, now: Timestamp) -> Vec<SessionId> {
        let id = run.request.id;
        let mut woken = Vec::new();
        for (number, step) in run.steps.iter().enumerate() {
            let live = step.live();
            // The holder, and those who held it before in the same commit.
            for attempt in step.attempts.iter().rev().take(4) {
                let session_id = attempt.session;
                let Some(session) = self.sessions.get_mut(&session_id) else { continue };
                session.searching.retain(|searched| *searched != id);
                let held = live.filter(|(_, attempt)| attempt.session == session_id);
                let Some((attempt, granted)) = held else {
                    session.leases.remove(&(id, number));
                    continue;
                };
                let definition = &workflow.steps[number];
                let clock = session.leases.entry((id, number)).or_insert_with(|| Clock {
                    no,
                    attempt,
                    secret: granted.secret,
                    started: false,
                    leased_at: granted.leased_at,
                    deadline: None,
                    lasts: definition.heartbeat_timeout,
                    progress_timeout: definition.progress_timeout,
                    done: step.best_done,
                    grew_at: now,
                    missed: 0,
                    sequence: 0,
                    directive: None,
                    progress: None,
                });
                if clock.attempt != attempt {
                    (clock.attempt, clock.secret, clock.leased_at) = (attempt, granted.secret, granted.leased_at);
                    (clock.missed, clock.grew_at, clock.progress) = (0, now, None);
                }
                clock.started = step.state == StepState::Running;
                clock.deadline = granted.deadline;
                let own = step.checkpoint.as_ref().filter(|checkpoint| checkpoint.attempt == attempt);
                clock.sequence = own.map_or(0, |checkpoint| checkpoint.sequence);
                let directive = run.directive();
                if clock.directive != directive && directive.is_some() {
                    woken.push(session_id);
                }
                clock.directive = directive;
            }
        }
        woken
    }

    /// That attempt is not live any more.
    pub fn drop_lease(&mut self, run: RunId, step: StepNo, attempt: u32) {
        for session in self.sessions.values_mut() {
            if session.leases.get(&(run, step)).is_some_and(|clock| clock.attempt == attempt) {
                session.leases.remove(&(run, step));
            }
        }
    }

    /// A run that does not exist, or whose search found nothing, holds no lease.
    pub fn searched(&mut self, run: RunId) {
        self.sessions.values_mut().for_each(|session| session.searching.retain(|searched| *searched != run));
    }

    /// The sessions that want a later end.
    pub fn renewals(&mut self) -> Vec<SessionWrite> {
        let wanting = self.sessions.iter().filter(|(_, session)| session.renew && !session.ended);
        wanting
            .map(|(id, session)| SessionWrite { id: *id, executor: session.executor.clone(), lasts: session.lasts() })
            .collect()
    }

    /// What a write did to the sessions that it named.
    pub fn renewed(&mut self, asked: &[SessionWrite], ends: &BTreeMap<SessionId, Timestamp>) {
        for write in asked {
            let Some(session) = self.sessions.get_mut(&write.id) else { continue };
            session.renew = false;
            match ends.get(&write.id) {
                Some(until) => session.until = session.until.max(Some(*until)),
                None => session.ended = true,
            }
        }
    }

    /// Sessions whose time is up while they hold leases, and that have not ended yet.
    pub fn expired(&self, now: Timestamp) -> Vec<SessionId> {
        let over = self.sessions.iter().filter(|(_, session)| {
            !session.ended && !session.holds_nothing() && session.is_over(now)
        });
        over.map(|(id, _)| *id).collect()
    }

    /// The database says which of the asked sessions have ended, and where they hold leases. The others live on, here or with
    /// another replica; they are looked at again when their time is up.
    pub fn ended(&mut self, asked: &[SessionId], ended: &[(SessionId, Vec<RunId>)], now: Timestamp) {
        for id in asked {
            let Some(session) = self.sessions.get_mut(id) else { continue };
            match ended.iter().find(|(over, _)| over == id) {
                Some((_, runs)) => {
                    session.ended = true;
                    let held: Vec<RunId> = session.leases.keys().map(|(run, _)| *run).collect();
                    session.searching.extend(runs.iter().filter(|run| !held.contains(run)));
                }
                None => session.until = Some(now + Duration::from_secs(5)),
            }
        }
    }

    /// Runs to read because an ended or adopted session may hold leases in them.
    pub fn searching(&self) -> impl Iterator<Item = RunId> {
        self.sessions.values().flat_map(|session| session.searching.iter().copied())
    }

    /// Sessions that hold nothing and have ended, or whose time is up; those that no write ever named are forgotten at once.
    pub fn forgettable(&mut self, now: Timestamp) -> Vec<SessionId> {
        self.sessions.retain(|_, session| {
            session.until.is_some() || session.renew || !session.holds_nothing() || now.since(session.heard) < IDLE
        });
        let over = self.sessions.iter().filter(|(_, session)| {
            session.holds_nothing() && (session.ended || session.is_over(now))
        });
        over.map(|(id, _)| *id).collect()
    }

    /// Forgets sessions.
    pub fn forget(&mut self, ids: &[SessionId]) {
        ids.iter().for_each(|id| drop(self.sessions.remove(id)));
    }

    /// The leases whose clocks have run out.
    pub fn overdue(&self, now: Timestamp) -> Vec<Revocation> {
        let mut overdue = Vec::new();
        for session in self.sessions.values() {
            for ((run, step), clock) in &session.leases {
                if let Some((cause, due)) = self.overdue_cause(session, clock, now) {
                    overdue.push(Revocation { run: *run, step: *step, attempt: clock.attempt, cause, due });
                }
            }
        }
        overdue
    }

    fn overdue_cause(&self, session: &Session, clock: &Clock, now: Timestamp) -> Option<(Cause, Timestamp)> {
        if session.ended {
            return Some((Cause::LeaseLost, clock.leased_at));
        }
        if clock.missed >= MISSES {
            return Some((Cause::LeaseLost, clock.leased_at));
        }
        let moved = self.credited_since(clock.leased_at);
        let ends = [
            (!clock.started).then_some((Cause::DispatchTimeout, clock.leased_at + DISPATCH_TIMEOUT + moved)),
            clock.progress_timeout.map(|timeout| {
                let moved = self.credited_since(clock.grew_at);
                (Cause::NoProgress, clock.grew_at + timeout + moved)
            }),
            clock.deadline.map(|deadline| (Cause::AttemptTimeout, deadline + moved)),
        ];
        ends.into_iter().flatten().filter(|(_, due)| *due <= now).min_by_key(|(_, due)| *due)
    }

    fn credited_since(&self, since: Timestamp) -> Duration {
        let after = self.outages.iter().filter(|(began, _)| *began >= since);
        after.fold(Duration::ZERO, |sum, (_, credit)| sum + *credit)
    }

    /// Where the session stands.
    pub fn standing(&self, id: SessionId, now: Timestamp) -> Option<Standing> {
        let session = self.sessions.get(&id)?;
        if session.ended {
            return Some(Standing::Ended);
        }
        let delay = Duration(session.lasts().0 / 3);
        let remaining = session.until.map_or(Duration::ZERO, |until| until.since(now));
        Some(Standing::Lives { remaining, delay })
    }

    /// Whether the session's renewal has to be committed before it is answered.
    pub fn renewing(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.renew && !session.ended)
    }

    /// Whether the lease is held and its executor has not been heard of.
    pub fn undelivered(&self, session: SessionId, run: RunId, step: StepNo, attempt: u32) -> bool {
        let clock = self.sessions.get(&session).and_then(|session| session.leases.get(&(run, step)));
        clock.is_some_and(|clock| clock.attempt == attempt && !clock.started)
    }

    /// When the executors that hold a run's steps last called, and how far they said they are.
    pub fn inspect(&self, run: RunId) -> (BTreeMap<StepNo, Timestamp>, BTreeMap<StepNo, i64>) {
        let held = self.sessions.values().flat_map(|session| {
            let of_run = session.leases.range((run, 0)..=(run, StepNo::MAX));
            of_run.map(|((_, step), clock)| (*step, session.heard, clock.done))
        });
        let held: Vec<_> = held.collect();
        let heard = held.iter().map(|(step, heard, _)| (*step, *heard)).collect();
        (heard, held.iter().map(|(step, _, done)| (*step, *done)).collect())
    }

    /// Runs with live leases here, for replicas that share the work.
    pub fn watched(&self) -> Vec<RunId> {
        let mut runs: Vec<RunId> =
            self.sessions.values().flat_map(|session| session.leases.keys().map(|(run, _)| *run)).collect();
        runs.sort_unstable();
        runs.dedup();
        runs
    }

    /// Progress that is worth writing.
    pub fn take_progress(&mut self) -> Vec<ProgressWrite> {
        let clocks = self.sessions.values_mut().flat_map(|session| &mut session.leases);
        clocks
            .filter_map(|((_, step), clock)| {
                let Progress { done, total, message } = clock.progress.take()?;
                Some(ProgressWrite { run: clock.no, step: *step, attempt: clock.attempt, done, total, message })
            })
            .collect()
    }

    /// Whether any lease is held here, so that clocks have to be looked at.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

impl Session {
    fn new(executor: Arc<str>) -> Session {
        Session {
            executor,
            heard: Timestamp::default(),
            until: None,
            renew: false,
            ended: false,
            searching: Vec::new(),
            leases: BTreeMap::new(),
        }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        !self.renew && self.until.is_some_and(|until| until < now)
    }

    fn holds_nothing(&self) -> bool {
        self.leases.is_empty() && self.searching.is_empty()
    }

    /// The shortest heartbeat timeout of what it holds.
    fn lasts(&self) -> Duration {
        self.leases.values().map(|clock| clock.lasts).min().unwrap_or(SESSION_LASTS)
    }

    /// Renewed when a third of its time has gone.
    fn want_time(&mut self, now: Timestamp) {
        let lasts = self.lasts();
        let left = self.until.map_or(Duration::ZERO, |until| until.since(now));
        self.renew |= !self.ended && left.0 <= lasts.0 / 3 * 2;
    }
}

impl Clock {
    fn advance(&mut self, done: Option<i64>, now: Timestamp) {
        if let Some(done) = done.filter(|done| *done > self.done) {
            self.done = done;
            self.grew_at = now;
        }
    }
}
