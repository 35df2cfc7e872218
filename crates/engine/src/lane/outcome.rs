//! What became of a lane's work.

use std::collections::BTreeMap;

use crate::command::Command;
use crate::definition::Workflow;
use crate::ids::{RunId, RunNo, SessionId};
use crate::rows::{Changes, Rows};
use crate::run::Run;
use crate::time::Timestamp;

use super::ask::{Failure, Grant};
use super::batch::{Entry, Flight, Settled, is_ready};
use super::cache::Cached;
use super::dispatch::PollNo;
use super::work::{Committed, Found, Load, Loaded, Over, Place, ReadyStep};
use super::{Lane, Origin, Pending, Random};

impl Lane {
    /// Runs and ready rows were read, as asked for by `load`.
    pub fn loaded(&mut self, load: &Load, loaded: Loaded, now: Timestamp) {
        self.ended();
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
                self.absent.insert(*run, self.issued);
            }
        }
        for (queue, asked) in &load.ready {
            let rows = ready.remove(queue).unwrap_or_default();
            for ReadyStep { run, step, .. } in &rows {
                // Where it is known here, nothing is to be read. If what is known is old, the fence says so.
                let known = self.cache.get(*run).is_some_and(|cached| is_ready(&cached.run, *step));
                if !known && self.shunned_until(*run, now).is_none() {
                    self.refresh.insert(*run);
                }
            }
            self.dispatch.read(queue, *asked, rows);
        }
    }

    /// Work ended, other than a write.
    fn ended(&mut self) {
        self.under_way = false;
        self.untold = true;
    }

    /// The write of this [`number`](super::work::Write::number) ended.
    pub fn committed(&mut self, number: u64, outcome: Committed, now: Timestamp, random: Random<'_>) {
        self.untold = true;
        let Some(at) = self.flights.iter().position(|flight| flight.number == number) else { return };
        let Flight { mut entries, sessions, bound, waiting, .. } = self.flights.remove(at);
        // First, so that what is tried again comes before it.
        waiting.into_iter().rev().for_each(|pending| self.reports.push_front(pending));
        match outcome {
            Committed::Done { written, sessions: ends } => {
                // A write from before a failure says nothing of what failed.
                if bound == self.batch_runs {
                    self.batch_runs = self.batch_runs.saturating_mul(2);
                    self.one_by_one = false;
                }
                self.sessions.renewed(&sessions, &ends);
                let lost: Vec<_> = entries.extract_if(.., |id, _| !written.contains_key(id)).collect();
                for (id, entry) in entries {
                    self.settle_written((id, written[&id], number), *entry, now, random);
                }
                for (id, entry) in lost.into_iter().rev() {
                    self.doubt_sessions(&entry);
                    let waiting = self.try_again(*entry, now, random);
                    if waiting {
                        // It is not in memory any more, so it is read; but creating it would not look.
                        self.stale.insert(id, false);
                    }
                }
            }
            Committed::Failed(_) if entries.len() > 1 => {
                self.batch_runs = entries.len() / 2;
                for entry in entries.into_values().rev() {
                    self.try_again(*entry, now, random);
                }
            }
            Committed::Failed(why) => {
                self.sessions.not_renewed(&sessions);
                for (id, entry) in entries {
                    self.shun(id, now);
                    self.one_by_one = entry.settled.len() > 1;
                    if self.one_by_one {
                        self.try_again(*entry, now, random);
                    } else {
                        self.give_up(*entry, &why, now, random);
                    }
                }
            }
            Committed::Unknown => {
                // The database may have been away: before clocks are judged, it says for how long.
                self.housekeeping_due = now;
                entries.into_iter().rev().for_each(|(id, entry)| self.find_out(id, *entry, now));
            }
        }
    }

    /// Sessions were ended, as asked for; each with the runs in which it holds leases, if these were looked for.
    pub fn sessions_ended(&mut self, asked: &Over, ended: &BTreeMap<SessionId, Vec<RunId>>, now: Timestamp) {
        self.ended();
        self.sessions.ended(asked, ended);
        self.clocks_due = now;
    }

    /// Sessions were forgotten, as asked for.
    pub fn sessions_forgotten(&mut self, asked: &Over) {
        self.ended();
        self.sessions.forget(&asked.ids);
    }

    /// The round of housekeeping is done.
    pub fn found(&mut self, found: Found) {
        self.ended();
        if self.others == 0 && found.others > 0 {
            // From the next round on it is told of their rows.
            self.dispatch.note_all();
        }
        self.others = found.others;
        self.timers.extend(found.timers);
        found.ready.iter().for_each(|queue| self.dispatch.note_row(queue, Place::FIRST));
        let credited = self.sessions.credit(found.outages);
        // After an outage the database has other ends of sessions than this server.
        self.sole = found.others == 0 && (self.sole && !credited || self.is_thorough());
        found.adopted.iter().for_each(|session| self.sessions.adopt(session));
        for run in found.changed {
            self.cache.take(run);
            self.refresh.insert(run);
        }
    }

    /// The fence held: the run is as decided, and everybody can be told.
    fn settle_written(
        &mut self,
        (id, no, fresh): (RunId, RunNo, u64),
        entry: Entry,
        now: Timestamp,
        random: Random<'_>,
    ) {
        self.expect_rows(id, &entry, now);
        let Entry { workflow: Some(workflow), run: Some(run), settled, .. } = entry else { return };
        self.touched.push(id);
        self.follow(no, &run, &workflow, now);
        if !run.is_terminal() {
            self.cache.put(id, Cached { no, run, workflow, fresh });
        }
        for Settled { pending, answer, grant } in settled {
            match pending.origin {
                Origin::Call(ticket, slot) => {
                    self.answer(ticket, slot, answer.map_err(Failure::Refused), now);
                }
                Origin::Poll(poll, _) => self.settle_poll(poll, grant, now, random),
                Origin::Clock(_) => self.clock_is_settled(&pending),
            }
        }
    }

    /// Ready steps and timers that a write brings, if it is or was done.
    fn expect_rows(&mut self, id: RunId, entry: &Entry, now: Timestamp) {
        let Some(run) = &entry.run else { return };
        let Changes { set, unset, .. } = entry.before.changes(&Rows::of(run));
        for timer in unset {
            self.timers.remove(&(entry.before.timers[&timer], id, timer));
        }
        for (row, queue) in entry.newly_ready() {
            self.dispatch.note_row(&queue, row.place);
        }
        let horizon = now + self.horizon();
        let soon = set.iter().filter(|(_, due)| *due <= horizon);
        self.timers.extend(soon.map(|(timer, due)| (*due, id, *timer)));
    }

    /// A match was settled.
    pub(super) fn settle_poll(
        &mut self,
        poll: PollNo,
        grant: Option<Grant>,
        now: Timestamp,
        random: Random<'_>,
    ) {
        if let Some(over) = self.dispatch.settle(poll, grant) {
            self.finish_poll(over, now, random);
        }
    }

    fn give_up(&mut self, entry: Entry, why: &str, now: Timestamp, random: Random<'_>) {
        for Settled { pending, .. } in entry.settled {
            match pending.origin {
                Origin::Call(ticket, slot) => {
                    self.answer(ticket, slot, Err(Failure::Storage(why.to_owned())), now);
                }
                Origin::Poll(poll, _) => self.settle_poll(poll, None, now, random),
                Origin::Clock(due) => self.put_back(&pending, due, now),
            }
        }
    }

    /// Nobody knows whether the run was written: it is read under lock, which waits for a commit that is still on its way, and
    /// its commands are applied again. A run that was to be created has no row to lock: creating it again waits for the other.
    fn find_out(&mut self, id: RunId, mut entry: Entry, now: Timestamp) {
        if entry.no.is_some() {
            self.stale.insert(id, true);
        }
        self.expect_rows(id, &entry, now);
        for Settled { mut pending, .. } in entry.settled.drain(..).rev() {
            pending.tried_at = pending.tried_at.or(entry.began);
            self.reports.push_front(pending);
        }
    }

    /// Perhaps the run was left alone because a session that was to hold a lease has ended: the next write asks.
    fn doubt_sessions(&mut self, entry: &Entry) {
        for Settled { pending, .. } in &entry.settled {
            if let Command::Dispatch { session, .. } = pending.command {
                self.sessions.doubt(session);
            }
        }
    }

    /// Puts commands back in front, in their order. Matches are undone and their polls wait again, but for those that may have
    /// been written by a write whose outcome is unknown. True if there are any commands.
    fn try_again(&mut self, entry: Entry, now: Timestamp, random: Random<'_>) -> bool {
        let mut waiting = false;
        for Settled { pending, .. } in entry.settled.into_iter().rev() {
            match &pending.origin {
                Origin::Poll(poll, queue) if pending.tried_at.is_none() => {
                    self.dispatch.note_row(queue, Place::FIRST);
                    self.settle_poll(*poll, None, now, random);
                }
                Origin::Clock(due) if pending.tried_at.is_none() => self.put_back(&pending, *due, now),
                Origin::Call(..) | Origin::Poll(..) | Origin::Clock(_) => {
                    waiting = true;
                    self.reports.push_front(pending);
                }
            }
        }
        waiting
    }

    /// A timer whose write did not happen is tried again in a moment; the clocks of attempts come back by themselves.
    fn put_back(&mut self, pending: &Pending, due: Timestamp, now: Timestamp) {
        if let Command::Fire(timer) = pending.command {
            self.timers.insert((due.max(now + self.config.clock_period), pending.run, timer));
        }
        self.clock_is_settled(pending);
    }

    /// Clocks and directives follow the committed run.
    pub(super) fn follow(&mut self, no: RunNo, run: &Run, workflow: &Workflow, now: Timestamp) {
        let woken = self.sessions.follow(no, run, workflow, now);
        self.woken.extend(woken);
    }
}
