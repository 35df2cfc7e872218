//! Building a write: commands are decided in memory, steps that become ready are matched with polls, and each run is written
//! once, whatever happened to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::command::{Answer, Command, Refusal, Report};
use crate::decide::apply;
use crate::definition::Workflow;
use crate::event::{Event, EventKind};
use crate::ids::{RunId, RunNo, Secret, StepNo};
use crate::rows::Rows;
use crate::run::{Checkpoint, Run, RunState, StepState};
use crate::time::Timestamp;

use super::ask::{Failure, Grant};
use super::cache::{Cached, size};
use super::work::{Fence, HotRow, Place, ReadyStep, RunWrite, SessionWrite, Work, Write};
use super::{Lane, Origin, Pending, Random};

/// So many submits go into every write, however much else waits: while executors get what they wait for, and while they do not.
const NEW_RUNS: (usize, usize) = (64, 8);

/// The runs of a write, in order. Boxed: a tree moves about what it holds.
pub(super) type Batch = BTreeMap<RunId, Box<Entry>>;

/// A write under way.
#[derive(Debug)]
pub(super) struct Flight {
    /// Its place among the lane's works, as [`Lane::issued`] counts.
    pub number: u64,
    pub entries: Batch,
    pub sessions: Vec<SessionWrite>,
    /// The bound that it was built under ([`Lane::batch_runs`]).
    pub bound: usize,
    /// What was asked of its runs since it left, in order.
    pub waiting: Vec<Pending>,
}

/// Commands for a write.
#[derive(Default)]
struct Taken {
    commands: Vec<Pending>,
    runs: BTreeSet<RunId>,
    bytes: usize,
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
    pub was_open: bool,
    /// The work that read it, or found that it does not exist.
    pub fresh: u64,
    /// Until they are written.
    pub events: Vec<Event>,
    /// When the first of them happened.
    pub began: Option<Timestamp>,
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
    /// The next write, of what can be decided on what is in memory; `all` that waits can be.
    pub(super) fn writing(&mut self, all: bool, now: Timestamp, random: Random<'_>) -> Option<Work> {
        let mut entries = Batch::new();
        for pending in self.take_batch() {
            self.decide_one(&mut entries, pending, now);
        }
        self.absent.clear();
        self.match_backlog(&mut entries, now, random);
        self.match_fresh(&mut entries, now, random);
        for over in self.dispatch.end_impatient(all, self.issued) {
            self.end_polling(over.ticket, over.grants, now);
        }
        let same: Vec<_> = entries.extract_if(.., |_, entry| entry.events.is_empty()).collect();
        for (id, entry) in same {
            self.settle_unchanged(id, *entry, now, random);
        }
        self.cache.trim();
        let sessions = self.sessions.renewals();
        if entries.is_empty() && sessions.is_empty() {
            return None;
        }
        let (number, bound) = (self.issued + 1, self.batch_runs);
        let mut flight = Flight { number, entries, sessions, bound, waiting: Vec::new() };
        let write = flight.write();
        self.flights.push(flight);
        Some(Work::Write(write))
    }

    /// What waits, reports first, up to the bounds and up to what must be read first.
    fn take_batch(&mut self) -> Vec<Pending> {
        let all = if self.one_by_one { 1 } else { self.config.batch_commands };
        let mut taken = Taken::default();
        while taken.commands.len() < all
            && self.reports.front().is_some_and(|pending| self.takes(&taken, pending))
        {
            let next = self.reports.pop_front();
            self.take(&mut taken, next);
        }
        let reports = taken.commands.len();
        self.busy = self.busy / 2 + reports;
        let room = if self.busy == 0 { all } else { all.min(reports + self.new_runs()) };
        while taken.commands.len() < room
            && self.submits.front().is_some_and(|pending| self.takes(&taken, pending))
        {
            let next = self.submits.pop_front();
            self.take(&mut taken, next);
        }
        taken.commands
    }

    /// How many submits a write takes beside the reports of these days. What is begun is brought to its end first: else runs pile
    /// up that nobody has time for. Four reports to a new run is what a workflow of four steps keeps up with; half of that while
    /// steps wait that executors ask for.
    fn new_runs(&self) -> usize {
        let (fed, starving) = NEW_RUNS;
        if self.dispatch.is_behind() { starving.max(self.busy / 16) } else { fed.max(self.busy / 8) }
    }

    /// Commands that the next write would take.
    pub(super) fn waiting_commands(&self) -> usize {
        self.reports.len() + self.submits.len().min(self.new_runs())
    }

    fn takes(&self, taken: &Taken, pending: &Pending) -> bool {
        taken.bytes < self.config.batch_bytes
            && (taken.runs.contains(&pending.run) || taken.runs.len() < self.batch_runs)
            && self.is_read(pending)
    }

    fn take(&mut self, taken: &mut Taken, pending: Option<Pending>) {
        let Some(pending) = pending else { return };
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.entries.contains_key(&pending.run))
        {
            return flight.waiting.push(pending);
        }
        taken.runs.insert(pending.run);
        taken.bytes += weight(&pending.command);
        taken.commands.push(pending);
    }

    /// A run's place in the batch.
    fn entry<'a>(&mut self, entries: &'a mut Batch, id: RunId) -> &'a mut Entry {
        let absent = self.absent.get(&id).copied().unwrap_or(0);
        entries.entry(id).or_insert_with(|| Box::new(Entry::new(self.cache.take(id), absent)))
    }

    fn decide_one(&mut self, entries: &mut Batch, pending: Pending, now: Timestamp) {
        let id = pending.run;
        let entry = self.entry(entries, id);
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
        let Some(due) = self.sessions.still_due(&pending, entry.run.as_ref(), now) else {
            entry.settled.push(Settled { pending, answer: Ok(Answer::Done { changed: false }), grant: None });
            return;
        };
        let decision = apply(&workflow, id, &mut entry.run, &pending.command, now);
        let mut answer = decision.answer;
        if !decision.events.is_empty() {
            entry.not_before = entry.not_before.max(due);
        }
        entry.events.extend(decision.events);
        // A create whose first write had an unknown outcome finds the run that it made itself.
        if let (Ok(Answer::Created { created }), Some(tried)) = (&mut answer, pending.tried_at) {
            *created |= entry.run.as_ref().is_some_and(|run| run.created_at >= tried);
        }
        let grant = match (&pending.command, &answer, &entry.run) {
            (Command::Dispatch { step, secret, session, executor }, Ok(_), Some(run)) => {
                self.sessions.grant(*session, executor, now);
                Grant::new(&workflow, run, *step, *secret)
            }
            _ => None,
        };
        entry.settled.push(Settled { pending, answer, grant });
    }

    /// Rows that were read for polls that wait go first.
    fn match_backlog(&mut self, entries: &mut Batch, now: Timestamp, random: Random<'_>) {
        while entries.len() < self.batch_runs {
            let awaited = |run| self.refresh.contains(&run);
            let Some((queue, row)) = self.dispatch.next_from_backlog(awaited) else { return };
            let ReadyStep { run, step, place } = row;
            if self.shunned_until(run, now).is_some() {
                continue;
            }
            let known = entries.contains_key(&run) || self.cache.holds(run);
            if !known || self.stale.contains_key(&run) {
                // It fell out of memory since it was read, or is in doubt; its row is still there.
                self.dispatch.note_row(&queue, place);
                continue;
            }
            if self.entry(entries, run).is_ready(step) {
                self.lease(entries, (run, step), &queue, now, random);
            }
        }
    }

    /// Steps that this batch made ready go to polls that wait, where nothing older does.
    fn match_fresh(&mut self, entries: &mut Batch, now: Timestamp, random: Random<'_>) {
        let ready: Vec<(ReadyStep, Arc<str>)> = entries
            .iter()
            .filter(|(id, entry)| !entry.events.is_empty() && self.shunned_until(**id, now).is_none())
            .flat_map(|(_, entry)| entry.newly_ready())
            .collect();
        for (ReadyStep { run, step, place }, queue) in ready {
            if self.dispatch.direct(&queue) {
                self.lease(entries, (run, step), &queue, now, random);
            } else {
                // It will be a row, and older than what the next write makes ready.
                self.dispatch.note_row(&queue, place);
            }
        }
    }

    fn lease(
        &mut self,
        entries: &mut Batch,
        (run, step): (RunId, StepNo),
        queue: &Arc<str>,
        now: Timestamp,
        random: Random<'_>,
    ) {
        let Some((poll, session, executor)) = self.dispatch.reserve(queue) else { return };
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&random().to_le_bytes());
        secret[8..].copy_from_slice(&random().to_le_bytes());
        let command = Command::Dispatch { step, secret: Secret(secret), session, executor };
        let origin = Origin::Poll(poll, queue.clone());
        let pending = Pending { run, workflow: None, command, origin, arrived: self.issued, tried_at: None };
        self.decide_one(entries, pending, now);
    }

    /// A run that this batch does not change is answered at once. But who is told no, or that there is nothing to change, is told
    /// so from what was read after the call came: else the run is read first.
    fn settle_unchanged(&mut self, id: RunId, entry: Entry, now: Timestamp, random: Random<'_>) {
        let Entry { no, workflow, run, fresh, settled, .. } = entry;
        if let (Some(no), Some(run), Some(workflow)) = (no, run, workflow) {
            self.follow(no, &run, &workflow, now);
            self.cache.put(id, Cached { no, run, workflow, fresh });
        } else {
            self.sessions.drop_run(id);
        }
        let mut again = Vec::new();
        for Settled { pending, answer, grant } in settled {
            let negative = matches!(answer, Err(_) | Ok(Answer::Done { changed: false }));
            match &pending.origin {
                Origin::Poll(poll, _) => self.settle_poll(*poll, grant, now, random),
                _ if negative && fresh <= pending.arrived => again.push(pending),
                Origin::Call(ticket, slot) => {
                    self.answer(*ticket, *slot, answer.map_err(Failure::Refused), now);
                }
                Origin::Clock(_) => self.clock_is_settled(&pending),
            }
        }
        if !again.is_empty() {
            self.stale.entry(id).or_insert(false);
            again.into_iter().rev().for_each(|pending| self.reports.push_front(pending));
        }
    }

    /// A clock's command was seen to. If that took no lease back, its clocks run on.
    pub(super) fn clock_is_settled(&mut self, pending: &Pending) {
        if let Command::Revoke { step, .. } = pending.command {
            self.sessions.release(pending.run, step);
        }
    }
}

/// Roughly how many bytes of payload a command writes.
fn weight(command: &Command) -> usize {
    match command {
        Command::Create(request) => size(&request.input),
        Command::Report { report: Report::Complete { output, .. }, .. } => size(&output.data),
        Command::Report { report, .. } => {
            report.checkpoint().map_or(0, |checkpoint| size(&checkpoint.data.data))
        }
        Command::Dispatch { .. } | Command::Revoke { .. } | Command::Fire(_) | Command::Operate { .. } => 0,
    }
}

/// Whether a step of a run can be dispatched.
pub(super) fn is_ready(run: &Run, step: StepNo) -> bool {
    run.state == RunState::Running
        && run.steps.get(step).is_some_and(|step| matches!(step.state, StepState::Ready(_)))
}

impl Flight {
    fn write(&mut self) -> Write {
        let runs = self.entries.iter_mut().filter_map(|(id, entry)| entry.write(*id)).collect();
        Write { number: self.number, runs, sessions: self.sessions.clone() }
    }
}

impl Entry {
    /// What is known of a run: `cached`, or, by the work `absent`, that it does not exist.
    fn new(cached: Option<Cached>, absent: u64) -> Entry {
        let empty = Entry {
            no: None,
            workflow: None,
            run: None,
            before: Rows::default(),
            version: 0,
            was_open: false,
            fresh: absent,
            events: Vec::new(),
            began: None,
            settled: Vec::new(),
            not_before: None,
        };
        let Some(Cached { no, run, workflow, fresh }) = cached else { return empty };
        Entry {
            no: Some(no),
            before: Rows::of(&run),
            version: run.last_event,
            was_open: !run.is_terminal(),
            workflow: Some(workflow),
            run: Some(run),
            fresh,
            ..empty
        }
    }

    fn is_ready(&self, step: StepNo) -> bool {
        self.run.as_ref().is_some_and(|run| is_ready(run, step))
    }

    /// Steps that the batch made ready, and their queues.
    pub(super) fn newly_ready(&self) -> impl Iterator<Item = (ReadyStep, Arc<str>)> {
        let steps = self.run.iter().flat_map(|run| run.steps.iter().enumerate().map(move |step| (run, step)));
        steps.filter_map(|(run, (number, step))| {
            let StepState::Ready(since) = step.state else { return None };
            let place = Place::new(run.request.priority, since);
            let row = ReadyStep { run: run.request.id, step: number, place };
            let new = is_ready(run, number) && self.before.ready.get(&number) != Some(&since);
            let queue = &self.workflow.as_ref().filter(|_| new)?.steps[number].queue;
            Some((row, Arc::from(queue.as_str())))
        })
    }

    /// The row and all that goes with it; the events go with it too.
    fn write(&mut self, id: RunId) -> Option<RunWrite> {
        self.began = self.events.first().map(|event| event.at);
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
            priority: run.request.priority,
            was_open: self.was_open,
            row: HotRow::of(run),
            events: std::mem::take(&mut self.events),
            changes: self.before.changes(&Rows::of(run)),
            checkpoints: checkpoints.into_iter().collect(),
            not_before: self.not_before,
        })
    }
}
