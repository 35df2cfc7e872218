//! Which ready step goes to which poller.
//!
//! A queue's older rows go first: a step that becomes ready is matched in memory only while its queue is known to hold no
//! ready row; else it is written as one, and rows are read for the pollers that wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::ids::{RequestId, RunId, SessionId, StepNo};

use super::ask::{Grant, Poll, Ticket};

/// The most ready rows that one read fetches for a queue.
const WINDOW: usize = 256;
/// For how many sessions the grants of their last poll are remembered.
const REMEMBERED: usize = 4096;

/// Queues, and the polls that wait on them.
#[derive(Debug, Default)]
pub(super) struct Dispatch {
    queues: BTreeMap<Arc<str>, Queue>,
    pollers: BTreeMap<Ticket, Poller>,
    /// What a session's last poll was granted.
    granted: BTreeMap<SessionId, (RequestId, Vec<Grant>)>,
}

#[derive(Debug)]
struct Queue {
    /// Polls in the order in which they came; those that are gone are skipped.
    parked: VecDeque<Ticket>,
    /// Ready rows that were read and not given away yet.
    backlog: VecDeque<(RunId, StepNo)>,
    /// There may be ready rows that were not read.
    rows: bool,
}

#[derive(Debug)]
pub(super) struct Poller {
    pub poll: Poll,
    /// How many more steps it can take.
    free: usize,
    /// How many steps it was matched with in the write under way.
    reserved: usize,
    /// How many of those were granted.
    granted: usize,
    /// Its call has ended: what it was matched with is handed back.
    gone: bool,
}

/// What became of a poll when one of its matches was settled.
pub(super) enum Served {
    /// It waits, for other matches or for steps.
    Waiting,
    /// It is over: its call is to be answered.
    Over,
    /// It is over, and its call has ended.
    Gone,
}

impl Dispatch {
    /// Parks a poll. An earlier poll of the same session with the same request id is replaced; its ticket is returned.
    pub fn park(&mut self, ticket: Ticket, poll: Poll) -> Option<Ticket> {
        let same = |other: &Poller| {
            poll.request.is_some() && other.poll.request == poll.request && other.poll.session == poll.session
        };
        let replaced = self
            .pollers
            .iter()
            .find(|(_, other)| other.reserved == 0 && !other.gone && same(other))
            .map(|(ticket, _)| *ticket);
        replaced.iter().for_each(|old| drop(self.pollers.remove(old)));
        for queue in &poll.queues {
            self.prune(queue);
            self.queue(queue).parked.push_back(ticket);
        }
        self.pollers.insert(ticket, Poller { free: poll.max_steps, poll, reserved: 0, granted: 0, gone: false });
        replaced
    }

    fn queue(&mut self, name: &Arc<str>) -> &mut Queue {
        // A queue that nobody has read yet may hold rows from before.
        let new = || Queue { parked: VecDeque::new(), backlog: VecDeque::new(), rows: true };
        self.queues.entry(name.clone()).or_insert_with(new)
    }

    /// Ends a poll; true if it can be answered now. If it was matched, the write under way settles it: its grants are handed
    /// back when its caller is `gone`, and else delivered.
    pub fn end(&mut self, ticket: Ticket, gone: bool) -> bool {
        match self.pollers.get_mut(&ticket) {
            Some(poller) if poller.reserved > 0 => {
                poller.gone = gone;
                poller.poll.park = false;
                false
            }
            Some(_) => self.pollers.remove(&ticket).is_some(),
            None => false,
        }
    }

    /// Queues whose ready rows should be read for pollers that wait, and how many.
    pub fn wanted(&self) -> BTreeMap<Arc<str>, usize> {
        let hungry = self.queues.iter().filter(|(_, queue)| queue.rows && queue.backlog.is_empty());
        hungry
            .map(|(name, queue)| {
                let demand = queue.parked.iter().filter_map(|ticket| self.pollers.get(ticket));
                (name.clone(), demand.map(|poller| poller.free).sum::<usize>().min(WINDOW))
            })
            .filter(|(_, demand)| *demand > 0)
            .collect()
    }

    /// Ready rows were read: fewer than asked for means that these are all.
    pub fn read(&mut self, name: &Arc<str>, asked: usize, rows: Vec<(RunId, StepNo)>) {
        let queue = self.queue(name);
        queue.rows = rows.len() >= asked;
        queue.backlog.extend(rows);
    }

    /// A ready row was written, or another replica says that there is one.
    pub fn note_rows(&mut self, name: &Arc<str>) {
        self.queue(name).rows = true;
    }

    /// The next row that was read and that a poller waits for.
    pub fn next_from_backlog(&mut self) -> Option<(Arc<str>, RunId, StepNo)> {
        let names: Vec<Arc<str>> =
            self.queues.iter().filter(|(_, queue)| !queue.backlog.is_empty()).map(|(name, _)| name.clone()).collect();
        names.into_iter().find_map(|name| {
            self.prune(&name);
            let queue = self.queues.get_mut(&name)?;
            queue.parked.front()?;
            let (run, step) = queue.backlog.pop_front()?;
            Some((name, run, step))
        })
    }

    /// Whether a step that becomes ready in this queue goes straight to a poller: one waits, and nothing older does.
    pub fn direct(&mut self, name: &Arc<str>) -> bool {
        self.prune(name);
        self.queues
            .get(name)
            .is_some_and(|queue| !queue.rows && queue.backlog.is_empty() && !queue.parked.is_empty())
    }

    /// Reserves the poller that waits longest in this queue for one step, and puts it last if it can take more.
    pub fn reserve(&mut self, name: &Arc<str>) -> Option<(Ticket, SessionId, Arc<str>)> {
        self.prune(name);
        let queue = self.queues.get_mut(name)?;
        let ticket = queue.parked.pop_front()?;
        let poller = self.pollers.get_mut(&ticket)?;
        poller.free -= 1;
        poller.reserved += 1;
        if poller.free > 0 {
            queue.parked.push_back(ticket);
        }
        Some((ticket, poller.poll.session, poller.poll.executor.clone()))
    }

    /// Drops the polls at the front of a queue that are gone or full.
    fn prune(&mut self, name: &Arc<str>) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        while let Some(ticket) = queue.parked.front() {
            if self.pollers.get(ticket).is_some_and(|poller| poller.free > 0 && !poller.gone) {
                return;
            }
            queue.parked.pop_front();
        }
    }

    /// A match of the poll was settled: its step was granted, or it waits again, in front.
    pub fn settle(&mut self, ticket: Ticket, name: &Arc<str>, granted: bool) -> Served {
        let Some(poller) = self.pollers.get_mut(&ticket) else { return Served::Gone };
        poller.reserved -= 1;
        poller.granted += usize::from(granted);
        poller.free += usize::from(!granted);
        if poller.reserved > 0 {
            return Served::Waiting;
        }
        if poller.granted == 0 && !poller.gone {
            let queue = self.queue(name);
            if !queue.parked.contains(&ticket) {
                queue.parked.push_front(ticket);
            }
            return Served::Waiting;
        }
        let gone = poller.gone;
        self.pollers.remove(&ticket);
        if gone { Served::Gone } else { Served::Over }
    }

    /// Remembers what a poll was granted, for its repetition.
    pub fn remember(&mut self, session: SessionId, request: RequestId, grants: &[Grant]) {
        if self.granted.len() >= REMEMBERED {
            self.granted.pop_first();
        }
        self.granted.insert(session, (request, grants.to_vec()));
    }

    /// What the same poll was granted before.
    pub fn granted(&self, poll: &Poll) -> &[Grant] {
        match self.granted.get(&poll.session) {
            Some((request, grants)) if Some(*request) == poll.request => grants,
            _ => &[],
        }
    }

    /// Polls that do not wait and were not matched; they are over.
    pub fn end_impatient(&mut self) -> Vec<Ticket> {
        let impatient = self.pollers.iter().filter(|(_, poller)| !poller.poll.park && poller.reserved == 0);
        let tickets: Vec<Ticket> = impatient.map(|(ticket, _)| *ticket).collect();
        tickets.iter().for_each(|ticket| drop(self.pollers.remove(ticket)));
        tickets
    }

    /// How many polls wait on a queue.
    pub fn waiting(&self, name: &Arc<str>) -> usize {
        let parked = self.queues.get(name).map(|queue| &queue.parked).into_iter().flatten();
        parked.filter(|ticket| self.pollers.get(ticket).is_some_and(|poller| poller.free > 0)).count()
    }

    /// Queues on which polls wait.
    pub fn parked_queues(&self) -> Vec<Arc<str>> {
        let waiting = self.queues.iter().filter(|(_, queue)| {
            queue.parked.iter().any(|ticket| self.pollers.get(ticket).is_some_and(|poller| poller.free > 0))
        });
        waiting.map(|(name, _)| name.clone()).collect()
    }
}
