//! What became of a lane's work.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::Command;
use crate::definition::Workflow;
use crate::ids::{LeaseToken, RunId, RunNo, SessionId};
use crate::rows::Rows;
use crate::run::Run;
use crate::time::Timestamp;

use super::ask::{Failure, Grant, Ticket};
use super::batch::{Entry, Flight, Settled};
use super::cache::Cached;
use super::dispatch::Served;
use super::work::{Committed, Found, Load, Loaded};
use super::{Lane, Origin, Random};

impl Lane {
    /// Runs and ready rows were read, as asked for by `load`.
    pub fn loaded(&mut self, load: &Load, loaded: Loaded, now: Timestamp) {
        self.under_way = false;
        self.absent.clear();
        let mut ready = loaded.ready;
        for stored in loaded.runs {
            let id = stored.run.request.id;
            self.follow(stored.no, &stored.run, &stored.workflow, now);
            let fresh = self.issued;
            self.cache.put(id, Cached { no: stored.no, run: stored.run, workflow: stored.workflow, fresh });
        }
        for run in load.runs.keys() {
            self.stale.remove(run);
            self.refresh.remove(run);
            self.sessions.searched(*run);
            if !self.cache.holds(*run) {
                self.absent.insert(*run);
            }
        }
        for (queue, asked) in &load.ready {
            self.dispatch.read(queue, *asked, ready.remove(queue).unwrap_or_default());
        }
    }

    /// A write ended.
    pub fn committed(&mut self, outcome: Committed, now: Timestamp, random: Random<'_>) {
        self.under_way = false;
        let Some(Flight { entries, sessions }) = self.flight.take() else { return };
        match outcome {
            Committed::Done { written, sessions: ends } => {
                self.batch_runs = self.batch_runs.saturating_mul(2);
                self.sessions.renewed(&sessions, &ends);
                let (held, lost): (BTreeMap<_, _>, BTreeMap<_, _>) =
                    entries.into_iter().partition(|(id, _): &(RunId, Entry)| written.contains_key(id));
                for (id, entry) in held {
                    self.settle_written(id, written[&id], entry, now, random);
                }
                for (id, entry) in lost {
                    self.stale.insert(id, false);
                    self.try_again(entry, now);
                }
            }
            Committed::Failed(why) => {
                if entries.len() <= 1 {
                    entries.into_values().for_each(|entry| self.give_up(entry, &why, now));
                } else {
                    self.batch_runs = entries.len() / 2;
                    entries.into_values().rev().for_each(|entry| self.try_again(entry, now));
                }
            }
            Committed::Unknown => {
                for (id, mut entry) in entries.into_iter().rev() {
                    if entry.no.is_some() {
                        self.stale.insert(id, true);
                    }
                    let began = entry.events.first().map(|event| event.at);
                    for settled in &mut entry.settled {
                        settled.pending.tried_at = settled.pending.tried_at.or(began);
                    }
                    entry.settled.into_iter().rev().for_each(|settled| self.reports.push_front(settled.pending));
                }
            }
        }
        self.finish_beats(now);
    }

    /// Sessions were ended, as asked for; each with the runs in which it holds leases.
    pub fn sessions_ended(&mut self, asked: &[SessionId], ended: &[(SessionId, Vec<RunId>)], now: Timestamp) {
        self.under_way = false;
        self.sessions.ended(asked, ended, now);
        self.clocks_due = now;
    }

    /// Sessions were forgotten, as asked for.
    pub fn sessions_forgotten(&mut self, asked: &[SessionId]) {
        self.under_way = false;
        self.sessions.forget(asked);
    }

    /// The round of housekeeping is done.
    pub fn found(&mut self, found: Found) {
        self.under_way = false;
        self.others = found.others;
        self.timers.extend(found.timers);
        found.ready.iter().for_each(|queue| self.dispatch.note_rows(queue));
        for session in &found.adopted {
            self.sessions.adopt(session.id, &session.executor, session.until, session.ended, &session.runs);
        }
        for run in found.changed {
            self.cache.take(run);
            self.refresh.insert(run);
        }
        self.sessions.outages = found.outages;
    }

    /// The fence held: the run is as decided, and everybody can be told.
    fn settle_written(&mut self, id: RunId, no: RunNo, entry: Entry, now: Timestamp, random: Random<'_>) {
        let Entry { workflow: Some(workflow), run: Some(run), before, settled, .. } = entry else { return };
        let changes = before.changes(&Rows::of(&run));
        for (step, _) in &changes.ready {
            self.dispatch.note_rows(&Arc::from(workflow.steps[*step].queue.as_str()));
        }
        let horizon = now + crate::time::Duration(self.config.housekeeping.0 * 2);
        let soon = changes.set.iter().filter(|(_, due)| *due <= horizon);
        self.timers.extend(soon.map(|(timer, due)| (*due, id, *timer)));
        self.touched.push(id);
        self.follow(no, &run, &workflow, now);
        let fresh = self.issued;
        if !run.is_terminal() {
            self.cache.put(id, Cached { no, run, workflow, fresh });
        }
        let mut orphans = Vec::new();
        for Settled { pending, answer, grant } in settled {
            match pending.origin {
                Origin::Call(ticket, slot) => self.answer(ticket, slot, answer.map_err(Failure::Refused), now),
                Origin::Poll(ticket, queue) => {
                    orphans.extend(self.settle_poll(ticket, &queue, grant, now));
                }
                Origin::Clock(_) => {}
            }
        }
        self.hand_back(orphans, now, random);
    }

    /// A match was settled. Returns grants that nobody is there to take.
    pub(super) fn settle_poll(
        &mut self,
        ticket: Ticket,
        queue: &Arc<str>,
        grant: Option<Grant>,
        now: Timestamp,
    ) -> Vec<LeaseToken> {
        let granted = grant.is_some();
        if let Some(call) = self.calls.get_mut(&ticket) {
            call.grants.extend(grant);
        }
        match self.dispatch.settle(ticket, queue, granted) {
            Served::Waiting => {}
            Served::Over => {
                if let Some(call) = self.calls.get(&ticket)
                    && let (Some(session), Some(request)) = (call.session, call.request)
                {
                    self.dispatch.remember(session, request, &call.grants);
                }
                self.end_polling(ticket, now);
            }
            Served::Gone => {
                let grants = self.calls.remove(&ticket).map(|call| call.grants).unwrap_or_default();
                return grants.iter().map(|grant| grant.token).collect();
            }
        }
        Vec::new()
    }

    fn give_up(&mut self, entry: Entry, why: &str, now: Timestamp) {
        for Settled { pending, .. } in entry.settled {
            match pending.origin {
                Origin::Call(ticket, slot) => {
                    self.answer(ticket, slot, Err(Failure::Storage(why.to_owned())), now);
                }
                Origin::Poll(ticket, queue) => drop(self.settle_poll(ticket, &queue, None, now)),
                Origin::Clock(due) => self.put_timer_back(&pending.command, pending.run, due, now),
            }
        }
    }

    /// Puts commands back in front, in their order. Matches are undone: their polls wait again.
    fn try_again(&mut self, entry: Entry, now: Timestamp) {
        for Settled { pending, .. } in entry.settled.into_iter().rev() {
            match &pending.origin {
                Origin::Call(..) => self.reports.push_front(pending),
                Origin::Poll(ticket, queue) => {
                    let (ticket, queue) = (*ticket, queue.clone());
                    self.settle_poll(ticket, &queue, None, now);
                    self.dispatch.note_rows(&queue);
                }
                Origin::Clock(due) => {
                    let due = *due;
                    self.put_timer_back(&pending.command, pending.run, due, now);
                }
            }
        }
    }

    /// A timer whose write did not happen is tried again in a moment; the clocks of attempts come back by themselves.
    fn put_timer_back(&mut self, command: &Command, run: RunId, due: Timestamp, now: Timestamp) {
        if let Command::Fire(timer) = command {
            self.timers.insert((due.max(now + self.config.clock_period), run, *timer));
        }
    }

    /// Clocks and directives follow the committed run.
    pub(super) fn follow(&mut self, no: RunNo, run: &Run, workflow: &Workflow, now: Timestamp) {
        let woken = self.sessions.follow(no, run, workflow, now);
        self.woken.extend(woken);
    }

    /// Heartbeats that waited for their session's renewal.
    fn finish_beats(&mut self, now: Timestamp) {
        for ticket in std::mem::take(&mut self.beating) {
            self.finish(ticket, now);
            if self.calls.contains_key(&ticket) {
                self.beating.push(ticket);
            }
        }
    }
}
