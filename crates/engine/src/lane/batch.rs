//! Building a write: commands are decided in memory, steps that become ready are matched with polls, and each run is written
//! once, whatever happened to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{Answer, Command, Refusal};
use crate::decide::apply;
use crate::definition::Workflow;
use crate::event::{Event, EventKind};
use crate::ids::{RunId, RunNo, Secret, StepNo};
use crate::rows::Rows;
use crate::run::{Checkpoint, Run, RunState, StepState};
use crate::time::Timestamp;

use super::ask::{Failure, Grant};
use super::cache::Cached;
use super::work::{Fence, HotRow, RunWrite, SessionWrite, Work, Write};
use super::{Lane, Origin, Pending, Random};

/// A write under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub entries: BTreeMap<RunId, Entry>,
    pub sessions: Vec<SessionWrite>,
}

/// A run in a batch.
#[derive(Debug)]
pub(super) struct Entry {
    pub no: Option<RunNo>,
    pub workflow: Option<Arc<Workflow>>,
    pub run: Option<Run>,
    /// The rows and the version before this batch.
    pub before: Rows,
    pub version: i64,
    /// The work that read it.
    pub fresh: u64,
    pub events: Vec<Event>,
    pub settled: Vec<Settled>,
    pub not_before: Option<Timestamp>,
}

/// A command that was decided, and what is answered once that is committed.
#[derive(Debug)]
pub(super) struct Settled {
    pub pending: Pending,
    pub answer: Result<Answer, Refusal>,
    pub grant: Option<Grant>,
}

impl Lane {
    pub(super) fn writing(&mut self, now: Timestamp, random: Random<'_>) -> Option<Work> {
        let mut entries = BTreeMap::new();
        for pending in self.take_batch() {
            self.decide_one(&mut entries, pending, now);
        }
        self.absent.clear();
        self.match_backlog(&mut entries, now, random);
        self.match_fresh(&mut entries, now, random);
        for ticket in self.dispatch.end_impatient() {
            self.end_polling(ticket, now);
        }
        let (changed, same): (BTreeMap<_, _>, BTreeMap<_, _>) =
            entries.into_iter().partition(|(_, entry): &(RunId, Entry)| !entry.events.is_empty());
        for (id, entry) in same {
            self.settle_unchanged(id, entry, now);
        }
        self.cache.trim();
        let sessions = self.sessions.renewals();
        if changed.is_empty() && sessions.is_empty() {
            return None;
        }
        let flight = Flight { entries: changed, sessions };
        let write = flight.write();
        self.flight = Some(flight);
        Some(Work::Write(write))
    }

    /// What waits, reports first, up to the bounds. What must be read first stays.
    fn take_batch(&mut self) -> Vec<Pending> {
        let mut taken: Vec<Pending> = Vec::new();
        let mut runs = std::collections::BTreeSet::new();
        for queue in [&mut self.reports, &mut self.submits] {
            while taken.len() < self.config.batch_commands {
                let Some(pending) = queue.front() else { break };
                if !runs.contains(&pending.run) && runs.len() >= self.batch_runs {
                    return taken;
                }
                runs.insert(pending.run);
                taken.extend(queue.pop_front());
            }
        }
        taken
    }

    fn decide_one(&mut self, entries: &mut BTreeMap<RunId, Entry>, pending: Pending, now: Timestamp) {
        let id = pending.run;
        let entry = entries.entry(id).or_insert_with(|| Entry::new(self.cache.take(id), self.issued));
        if entry.workflow.is_none() {
            entry.workflow.clone_from(&pending.workflow);
        }
        let Some(workflow) = entry.workflow.clone() else {
            let answer = Err(match pending.command {
                Command::Report { .. } => Refusal::LeaseUnknown,
                _ => Refusal::RunUnknown(id),
            });
            entry.settled.push(Settled { pending, answer, grant: None });
            return;
        };
        let decision = apply(&workflow, id, &mut entry.run, &pending.command, now);
        let mut answer = decision.answer;
        if !decision.events.is_empty()
            && let Origin::Clock(due) = pending.origin
        {
            entry.not_before = entry.not_before.max(Some(due));
        }
        entry.events.extend(decision.events);
        // A create whose first write had an unknown outcome finds the run that it made itself.
        if let (Ok(Answer::Created { created }), Some(tried)) = (&mut answer, pending.tried_at) {
            *created |= entry.run.as_ref().is_some_and(|run| run.created_at >= tried);
        }
        let grant = match (&pending.command, &answer, &entry.run) {
            (Command::Dispatch { step, secret, session, .. }, Ok(_), Some(run)) => {
                self.sessions.want_time(*session, now);
                Grant::new(&workflow, run, *step, *secret)
            }
            _ => None,
        };
        entry.settled.push(Settled { pending, answer, grant });
    }

    /// Rows that were read for polls that wait go first.
    fn match_backlog(&mut self, entries: &mut BTreeMap<RunId, Entry>, now: Timestamp, random: Random<'_>) {
        while let Some((queue, run, step)) = self.dispatch.next_from_backlog() {
            if !entries.contains_key(&run) && !self.cache.holds(run) {
                // It fell out of memory since it was read; its row is still there.
                self.dispatch.note_rows(&queue);
                continue;
            }
            let entry = entries.entry(run).or_insert_with(|| Entry::new(self.cache.take(run), self.issued));
            if entry.is_ready(step) {
                self.lease(entries, run, step, &queue, now, random);
            }
        }
    }

    /// Steps that this batch made ready go to polls that wait, where nothing older does.
    fn match_fresh(&mut self, entries: &mut BTreeMap<RunId, Entry>, now: Timestamp, random: Random<'_>) {
        let ready: Vec<(RunId, StepNo, Arc<str>)> = entries
            .iter()
            .filter(|(_, entry)| !entry.events.is_empty())
            .flat_map(|(id, entry)| entry.newly_ready().map(|(step, queue)| (*id, step, queue)))
            .collect();
        for (run, step, queue) in ready {
            if self.dispatch.direct(&queue) {
                self.lease(entries, run, step, &queue, now, random);
            }
        }
    }

    fn lease(
        &mut self,
        entries: &mut BTreeMap<RunId, Entry>,
        run: RunId,
        step: StepNo,
        queue: &Arc<str>,
        now: Timestamp,
        random: Random<'_>,
    ) {
        let Some((ticket, session, executor)) = self.dispatch.reserve(queue) else { return };
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&random().to_le_bytes());
        secret[8..].copy_from_slice(&random().to_le_bytes());
        let command = Command::Dispatch { step, secret: Secret(secret), session, executor };
        let origin = Origin::Poll(ticket, queue.clone());
        let pending = Pending { run, workflow: None, command, origin, arrived: self.issued, tried_at: None };
        self.decide_one(entries, pending, now);
    }

    /// A run that this batch does not change is answered at once, unless it says no from memory: then it is read first.
    fn settle_unchanged(&mut self, id: RunId, entry: Entry, now: Timestamp) {
        let Entry { no, workflow, run, fresh, settled, .. } = entry;
        let known = if let (Some(no), Some(run), Some(workflow)) = (no, run, workflow) {
            self.follow(no, &run, &workflow, now);
            self.cache.put(id, Cached { no, run, workflow, fresh });
            true
        } else {
            false
        };
        let mut again = Vec::new();
        for Settled { pending, answer, grant } in settled {
            match &pending.origin {
                Origin::Call(ticket, slot) => {
                    if known && answer.is_err() && fresh <= pending.arrived {
                        again.push(pending);
                    } else {
                        self.answer(*ticket, *slot, answer.map_err(Failure::Refused), now);
                    }
                }
                Origin::Poll(ticket, queue) => drop(self.settle_poll(*ticket, queue, grant, now)),
                Origin::Clock(_) => self.clock_was_wrong(&pending),
            }
        }
        if !again.is_empty() {
            self.stale.entry(id).or_insert(false);
            again.into_iter().rev().for_each(|pending| self.reports.push_front(pending));
        }
    }

    /// A revocation that changed nothing: that attempt is not live.
    fn clock_was_wrong(&mut self, pending: &Pending) {
        if let Command::Revoke { step, attempt, .. } = pending.command {
            self.sessions.drop_lease(pending.run, step, attempt);
        }
    }
}

impl Flight {
    fn write(&self) -> Write {
        let runs = self.entries.iter().filter_map(|(id, entry)| entry.write(*id)).collect();
        Write { runs, sessions: self.sessions.clone() }
    }
}

impl Entry {
    fn new(cached: Option<Cached>, issued: u64) -> Entry {
        let empty = Entry {
            no: None,
            workflow: None,
            run: None,
            before: Rows::default(),
            version: 0,
            fresh: issued,
            events: Vec::new(),
            settled: Vec::new(),
            not_before: None,
        };
        let Some(Cached { no, run, workflow, fresh }) = cached else { return empty };
        Entry {
            no: Some(no),
            before: Rows::of(&run),
            version: run.last_event,
            workflow: Some(workflow),
            run: Some(run),
            fresh,
            ..empty
        }
    }

    fn is_ready(&self, step: StepNo) -> bool {
        self.run.as_ref().is_some_and(|run| {
            run.state == RunState::Running
                && run.steps.get(step).is_some_and(|step| matches!(step.state, StepState::Ready(_)))
        })
    }

    fn newly_ready(&self) -> impl Iterator<Item = (StepNo, Arc<str>)> {
        let steps = self.run.iter().flat_map(|run| 0..run.steps.len());
        steps.filter(|step| self.is_ready(*step) && !self.before.ready.contains_key(step)).filter_map(|step| {
            let queue = &self.workflow.as_ref()?.steps[step].queue;
            Some((step, Arc::from(queue.as_str())))
        })
    }

    fn write(&self, id: RunId) -> Option<RunWrite> {
        let run = self.run.as_ref()?;
        let fence = match self.no {
            Some(no) => Fence::Version { no, version: self.version },
            None => Fence::Absent(run.request.clone()),
        };
        let mut checkpoints: BTreeMap<StepNo, Checkpoint> = BTreeMap::new();
        for event in &self.events {
            if let EventKind::CheckpointCommitted { step, checkpoint } = &event.kind {
                checkpoints.insert(*step, checkpoint.clone());
            }
        }
        Some(RunWrite {
            id,
            fence,
            workflow: self.workflow.clone()?,
            row: HotRow::of(run),
            events: self.events.clone(),
            changes: self.before.changes(&Rows::of(run)),
            checkpoints: checkpoints.into_iter().collect(),
            not_before: self.not_before,
        })
    }
}
