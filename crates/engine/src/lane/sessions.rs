//! Sessions of executors, and the leases that they hold.
//!
//! None of this is state of a run: it says when a lease is to be taken back, and the engine decides whether it is. A server
//! that restarts finds sessions in the database and leases in the runs, and starts these clocks anew.
//!
//! A session may call any replica. The one that renewed it last looks after it; one that finds a session renewed by another
//! lets go of its running leases, and keeps the clocks of those that it granted itself and that were not heard of.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::command::Command;
use crate::definition::Workflow;
use crate::ids::{RunId, RunNo, SessionId, StepNo};
use crate::rows::Rows;
use crate::run::{Cause, Directive, Run};
use crate::time::{Duration, Timestamp};

use super::ask::{Beat, Progress, Standing};
use super::clock::Clock;
use super::session::{Held, SESSION_LASTS, Session};
use super::work::{AdoptedSession, Over, ProgressWrite, SessionWrite};
use super::{Origin, Pending};

/// How long a session that no write ever named is remembered.
const IDLE: Duration = Duration::from_secs(120);

/// The steps of a run.
fn of_run(run: RunId) -> RangeInclusive<Held> {
    (run, 0)..=(run, StepNo::MAX)
}

/// Every session that this replica knows.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    /// Boxed: a tree moves about what it holds.
    clocks: BTreeMap<Held, Box<Clock>>,
    /// Runs that are being read because these sessions may hold leases in them.
    searching: BTreeMap<RunId, BTreeSet<SessionId>>,
    /// Sessions that were found to have ended, since this was last asked.
    news: Vec<SessionId>,
    /// Outages: when they began and by how much attempt clocks are moved.
    outages: Vec<(Timestamp, Duration)>,
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
    /// A poll of the session: it was heard of now. Returns its executor's name, which not every poll says.
    pub fn touch(&mut self, id: SessionId, executor: &Arc<str>, now: Timestamp) -> Arc<str> {
        let session = self.sessions.entry(id).or_insert_with(|| Session::new(executor.clone()));
        session.heard = now;
        if !executor.is_empty() {
            session.executor.clone_from(executor);
        }
        session.executor.clone()
    }

    /// A lease is being granted to the session: its end is to leave enough time for it.
    pub fn grant(&mut self, id: SessionId, executor: &Arc<str>, now: Timestamp) {
        let lasts = self.lasts(id);
        self.sessions.entry(id).or_insert_with(|| Session::new(executor.clone())).want_time(lasts, now);
    }

    /// A grant was not written, perhaps because the session has ended: the next write asks.
    pub fn doubt(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.renew |= !session.ended;
        }
    }

    /// A heartbeat: counts who was left out, and answers what needs no decision.
    pub fn beat(&mut self, beat: &Beat, now: Timestamp) -> Vec<Option<(i64, Option<Directive>)>> {
        let lasts = self.lasts(beat.session);
        let session =
            self.sessions.entry(beat.session).or_insert_with(|| Session::new(beat.executor.clone()));
        session.heard = now;
        session.want_time(lasts, now);
        for held in session.leases.iter().filter(|_| beat.complete) {
            if let Some(clock) = self.clocks.get_mut(held).filter(|clock| clock.started) {
                clock.missed += 1;
            }
        }
        let answers = beat.leases.iter().map(|lease| {
            let clock = self.clocks.get_mut(&(lease.token.run, lease.token.step()))?;
            clock.hear(lease, now)
        });
        answers.collect()
    }

    /// Follows a committed run: leases that are live in it have clocks, others have none. Returns sessions whose directive is new.
    pub fn follow(&mut self, no: RunNo, run: &Run, workflow: &Workflow, now: Timestamp) -> Vec<SessionId> {
        let id = run.request.id;
        let live = |step: StepNo| run.steps.get(step)?.live().map(|(attempt, _)| attempt);
        let clocks = self.clocks.range(of_run(id));
        let over = clocks.filter(|((_, step), clock)| live(*step) != Some(clock.attempt));
        let over: Vec<Held> = over.map(|(held, _)| *held).collect();
        over.into_iter().for_each(|held| self.drop_lease(held));
        let mut woken = Vec::new();
        for (number, step) in run.steps.iter().enumerate() {
            let held = (id, number);
            let Some((attempt, lease)) = step.live() else { continue };
            let Some(session) = self.sessions.get_mut(&lease.session) else { continue };
            session.leases.insert(held);
            // Whether this replica waited for its executor to be heard of: who takes over what runs already has heard nothing.
            let waited = self.clocks.get(&held).is_some_and(|clock| !clock.started);
            let clock = self.clocks.entry(held).or_insert_with(|| {
                let clock = Clock::new(no, attempt, lease, step, &workflow.steps[number], now);
                session.held.add(clock.lasts);
                Box::new(clock)
            });
            let started = clock.started;
            if clock.follow(run, lease, step, now) {
                woken.push(lease.session);
            }
            match (started, clock.started) {
                (false, true) => session.running.add(clock.lasts),
                (true, false) => session.running.take(clock.lasts),
                (false, false) | (true, true) => {}
            }
            if clock.started && waited {
                let lasts = self.lasts(lease.session);
                self.sessions.entry(lease.session).and_modify(|session| session.want_time(lasts, now));
            }
        }
        woken
    }

    fn drop_lease(&mut self, held: Held) {
        let Some(clock) = self.clocks.remove(&held) else { return };
        if let Some(session) = self.sessions.get_mut(&clock.session) {
            session.leases.remove(&held);
            session.held.take(clock.lasts);
            if clock.started {
                session.running.take(clock.lasts);
            }
        }
    }

    /// A revocation did not happen; if the lease is still live, its clocks say so again.
    pub fn release(&mut self, run: RunId, step: StepNo) {
        if let Some(clock) = self.clocks.get_mut(&(run, step)) {
            clock.asked = false;
        }
    }

    /// A run that does not exist holds no lease.
    pub fn drop_run(&mut self, run: RunId) {
        let held: Vec<Held> = self.clocks.range(of_run(run)).map(|(held, _)| *held).collect();
        held.into_iter().for_each(|held| self.drop_lease(held));
    }

    /// A run was read: whoever was thought to hold leases in it holds those that have clocks now.
    pub fn searched(&mut self, run: RunId) {
        for id in self.searching.remove(&run).into_iter().flatten() {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.searching -= 1;
            }
        }
    }

    /// Runs to read because an ended or adopted session may hold leases in them.
    pub fn searching(&self) -> impl Iterator<Item = RunId> {
        self.searching.keys().copied()
    }

    fn search(&mut self, id: SessionId, runs: &[RunId]) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for run in runs {
            let known = session.leases.range(of_run(*run)).next().is_some();
            if !known && self.searching.entry(*run).or_default().insert(id) {
                session.searching += 1;
            }
        }
    }

    /// Takes over a session of another replica, of an earlier life, or one that was let go.
    pub fn adopt(&mut self, adopted: &AdoptedSession) {
        let session =
            self.sessions.entry(adopted.id).or_insert_with(|| Session::new(adopted.executor.clone()));
        session.told(adopted.until);
        if adopted.ended {
            self.end(adopted.id);
        }
        self.search(adopted.id, &adopted.runs);
    }

    /// Outages that ended; true if one is news. Who was alive when it began was given more time: how much, the next renewal
    /// says, or the database when it is up.
    pub fn credit(&mut self, outages: Vec<(Timestamp, Duration)>) -> bool {
        let credited = outages.iter().any(|outage| !self.outages.contains(outage));
        if credited {
            self.sessions.values_mut().for_each(|session| session.until = None);
        }
        self.outages = outages;
        credited
    }

    /// For how long clocks that run since then stood still.
    fn credited_since(&self, since: Timestamp) -> Duration {
        let still = self.outages.iter().map(|(began, credit)| (*began + *credit).since(since.max(*began)));
        still.fold(Duration::ZERO, |sum, span| sum + span)
    }

    /// The sessions that want a later end.
    pub fn renewals(&self) -> Vec<SessionWrite> {
        let wanting = self.sessions.iter().filter(|(_, session)| session.renew && !session.ended);
        let write = |(id, session): (&SessionId, &Session)| SessionWrite {
            id: *id,
            executor: session.executor.clone(),
            lasts: self.lasts(*id),
        };
        wanting.map(write).collect()
    }

    /// What a write did to the sessions that it named.
    pub fn renewed(&mut self, asked: &[SessionWrite], ends: &BTreeMap<SessionId, Timestamp>) {
        for write in asked {
            let Some(session) = self.sessions.get_mut(&write.id) else { continue };
            session.renew = false;
            match ends.get(&write.id) {
                Some(until) => session.told(*until),
                None => self.end(write.id),
            }
        }
    }

    /// A write of these renewals was refused: who waits for them is told of the end that stands.
    pub fn not_renewed(&mut self, asked: &[SessionWrite]) {
        for write in asked {
            self.sessions.entry(write.id).and_modify(|session| session.renew = false);
        }
    }

    fn end(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.ended) {
            session.ended = true;
            session.renew = false;
            self.news.push(id);
        }
    }

    /// Sessions that were found to have ended; taken once.
    pub fn news(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.news)
    }

    /// Sessions whose time is up while they hold leases, as far as is known here.
    pub fn expired(&self, now: Timestamp) -> Vec<SessionId> {
        let over = |session: &Session| !session.ended && !session.holds_nothing() && session.is_over(now);
        self.sessions.iter().filter(|(_, session)| over(session)).map(|(id, _)| *id).collect()
    }

    /// Where a session holds leases, if that was not asked since its end was last told. Another replica may have changed it.
    pub fn unverified(&mut self, id: SessionId) -> Vec<RunId> {
        let session = self.sessions.get_mut(&id).filter(|session| !session.verified);
        session.map_or_else(Vec::new, |session| {
            session.verified = true;
            session.leases.iter().map(|(run, _)| *run).collect()
        })
    }

    /// The database says which of the asked sessions have ended and, if that was asked, where they hold leases. Another replica
    /// renewed the others and looks after them; those that hold nothing may have been forgotten, and begun again.
    pub fn ended(&mut self, asked: &Over, ended: &BTreeMap<SessionId, Vec<RunId>>) {
        for id in &asked.ids {
            match ended.get(id) {
                Some(runs) if !asked.look || !runs.is_empty() => {
                    self.end(*id);
                    self.search(*id, runs);
                }
                Some(_) => self.let_go(*id, |_| true),
                None => self.let_go(*id, |clock| clock.started),
            }
        }
    }

    fn let_go(&mut self, id: SessionId, which: impl Fn(&Clock) -> bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.until = None;
        let dropped = |held: &&Held| self.clocks.get(held).is_some_and(|clock| which(clock));
        let dropped: Vec<Held> = session.leases.iter().filter(dropped).copied().collect();
        dropped.into_iter().for_each(|held| self.drop_lease(held));
    }

    /// Sessions to forget: those that hold nothing and have ended, or whose time is up. Those that no write ever named are
    /// forgotten at once.
    pub fn forgettable(&mut self, now: Timestamp) -> Vec<SessionId> {
        self.sessions.retain(|_, session| {
            session.ended
                || session.until.is_some()
                || session.renew
                || !session.holds_nothing()
                || now.since(session.heard) < IDLE
        });
        let over = |session: &Session| session.holds_nothing() && (session.ended || session.is_over(now));
        self.sessions.iter().filter(|(_, session)| over(session)).map(|(id, _)| *id).collect()
    }

    /// Whether the session holds no lease, as far as is known here.
    pub fn holds_nothing(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_none_or(Session::holds_nothing)
    }

    /// Forgets sessions, unless they were heard of or hold something by now.
    pub fn forget(&mut self, ids: &[SessionId]) {
        for id in ids {
            if self.sessions.get(id).is_some_and(|session| session.holds_nothing() && !session.renew) {
                self.sessions.remove(id);
            }
        }
    }

    /// The leases whose clocks have run out; each is told once, until it is [`released`](Sessions::release).
    pub fn overdue(&mut self, now: Timestamp) -> Vec<Revocation> {
        let mut overdue = Vec::new();
        for ((run, step), clock) in self.clocks.iter().filter(|(_, clock)| !clock.asked) {
            let Some(session) = self.sessions.get(&clock.session) else { continue };
            let up = match session.ended {
                true => Some((Cause::LeaseLost, clock.leased_at())),
                false => clock.overdue(session.heard, |since| self.credited_since(since), now),
            };
            if let Some((cause, due)) = up {
                overdue.push(Revocation { run: *run, step: *step, attempt: clock.attempt, cause, due });
            }
        }
        for Revocation { run, step, .. } in &overdue {
            self.clocks.entry((*run, *step)).and_modify(|clock| clock.asked = true);
        }
        overdue
    }

    /// Since when what a clock asks for is due, on the run as it is known now: it may have been read again. None if it is not due.
    pub fn still_due(
        &self,
        pending: &Pending,
        run: Option<&Run>,
        now: Timestamp,
    ) -> Option<Option<Timestamp>> {
        let Origin::Clock(due) = pending.origin else { return Some(None) };
        match &pending.command {
            Command::Fire(timer) => Some(Some(due.max(Rows::of(run?).timers.get(timer).copied()?))),
            Command::Revoke { step, cause: cause @ (Cause::NoProgress | Cause::AttemptTimeout), .. } => {
                let clock = self.clocks.get(&(pending.run, *step))?;
                let heard = self.sessions.get(&clock.session)?.heard;
                let (up, _) = clock.overdue(heard, |since| self.credited_since(since), now)?;
                // Another of its times may be up by now: that is asked for by itself.
                (up == *cause).then_some(Some(due))
            }
            _ => Some(Some(due)),
        }
    }

    /// Where the session stands.
    pub fn standing(&self, id: SessionId, now: Timestamp) -> Option<Standing> {
        let session = self.sessions.get(&id)?;
        if session.ended {
            return Some(Standing::Ended);
        }
        let pace = session.held.shortest().unwrap_or(SESSION_LASTS);
        let remaining = session.until.map_or(Duration::ZERO, |until| until.since(now));
        Some(Standing::Lives { remaining, delay: Duration(pace.0 / 3) })
    }

    /// Whether the session has ended, as far as is known here.
    pub fn has_ended(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.ended)
    }

    /// Whether the session's renewal has to be committed before it is answered.
    pub fn renewing(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.renew)
    }

    /// How long the session is to last: the shortest heartbeat timeout of what its executor knows that it holds.
    fn lasts(&self, id: SessionId) -> Duration {
        self.sessions.get(&id).and_then(|session| session.running.shortest()).unwrap_or(SESSION_LASTS)
    }

    /// Whether the lease is held and its executor has not been heard of.
    pub fn undelivered(&self, run: RunId, step: StepNo, attempt: u32) -> bool {
        self.clocks.get(&(run, step)).is_some_and(|clock| clock.attempt == attempt && !clock.started)
    }

    /// When the executors that hold a run's steps last called, and how far they said they are.
    pub fn inspect(&self, run: RunId) -> (BTreeMap<StepNo, Timestamp>, BTreeMap<StepNo, i64>) {
        let clocks = || self.clocks.range(of_run(run));
        let heard =
            clocks().filter_map(|((_, step), clock)| Some((*step, self.sessions.get(&clock.session)?.heard)));
        (heard.collect(), clocks().map(|((_, step), clock)| (*step, clock.done)).collect())
    }

    /// Runs with live leases here and the version that is known, for replicas that share the work.
    pub fn watched(&self) -> Vec<(RunId, RunNo, i64)> {
        let mut watched: Vec<_> =
            self.clocks.iter().map(|((run, _), clock)| (*run, clock.no, clock.version)).collect();
        watched.dedup_by_key(|(run, ..)| *run);
        watched
    }

    /// Progress that is worth writing; taken once.
    pub fn take_progress(&mut self) -> Vec<ProgressWrite> {
        let news = self.clocks.iter_mut().filter_map(|((_, step), clock)| {
            let Progress { done, total, message } = clock.progress.take()?;
            Some(ProgressWrite { run: clock.no, step: *step, attempt: clock.attempt, done, total, message })
        });
        news.collect()
    }

    /// Whether no session is known, so that no clock has to be looked at.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// How many sessions are known, and how many leases they hold.
    pub fn count(&self) -> (usize, usize) {
        (self.sessions.len(), self.clocks.len())
    }
}
