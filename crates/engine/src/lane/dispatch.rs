//! Which ready step goes to which poll.
//!
//! A queue's older rows go first: a step that becomes ready is matched in memory only while its queue is known to hold no
//! ready row; else it is written as one, and rows are read for the polls that wait. Of several queues that have rows each gets
//! its turn. Rows are read from the first place on at which there may be one: whoever begins at the head of a queue goes over
//! all that was taken from it since the oldest snapshot that somebody holds.
//!
//! A poll that is matched is reserved: only the writes that it was matched in answer it. When they fail, the poll is back in its
//! old place in every queue that it waits on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::ids::{LeaseToken, RequestId, RunId, SessionId};

use super::ask::{Grant, Poll, Ticket};
use super::work::{Head, Place, ReadyStep};

/// The most ready rows that one read fetches for a queue.
const WINDOW: usize = 256;
/// For how many sessions the grants of their last poll are remembered.
const REMEMBERED: usize = 4096;
/// Queues that are remembered though nobody waits on them.
const QUEUES: usize = 1024;
/// After so many works a poll that does not wait is answered, even if more could be read for it.
const PATIENCE: u64 = 4;

/// Names a poll within its lane, whichever call waits for it; ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PollNo(u64);

/// Queues, and the polls that wait on them.
#[derive(Debug, Default)]
pub(super) struct Dispatch {
    queues: BTreeMap<Arc<str>, Queue>,
    /// The queue that a row was last given of.
    served: Option<Arc<str>>,
    /// Boxed: a tree keeps room for twice what it holds.
    polls: BTreeMap<PollNo, Box<Waiting>>,
    callers: BTreeMap<Ticket, PollNo>,
    named: BTreeMap<(SessionId, RequestId), PollNo>,
    /// Polls that do not wait.
    impatient: BTreeSet<PollNo>,
    /// What a session's last poll was granted.
    granted: BTreeMap<SessionId, (RequestId, Vec<Grant>)>,
    turns: u64,
}

#[derive(Debug)]
struct Queue {
    /// Polls that can take more steps, in their turn.
    seats: BTreeSet<(u64, PollNo)>,
    /// These, and polls that have all that they can take but are not answered yet.
    polls: usize,
    /// A poll came since the last round.
    asked: bool,
    /// Ready rows that were read and not given away yet.
    backlog: VecDeque<ReadyStep>,
    /// The first place at which there may be a ready row that was not read, if there may be any.
    unread: Option<Place>,
}

#[derive(Debug)]
struct Waiting {
    poll: Poll,
    /// The call that is answered; a repetition takes the place of the call before.
    ticket: Ticket,
    /// The lane's work when it came.
    arrived: u64,
    /// Its place in its queues.
    turn: u64,
    /// How many more steps it can take; it has a seat while there are any.
    free: usize,
    /// How many steps it was matched with that are not settled.
    reserved: usize,
    /// Those that were settled.
    grants: Vec<Grant>,
    /// Its call has ended: what it was matched with is handed back.
    gone: bool,
}

/// A poll that is over, and what is to become of its grants.
#[derive(Debug)]
pub(super) struct Over {
    pub ticket: Ticket,
    pub session: SessionId,
    pub request: Option<RequestId>,
    pub grants: Vec<Grant>,
    /// Nobody is there to take them.
    pub gone: bool,
}

impl Queue {
    /// One that nobody has read yet: it may hold rows from before.
    fn unread() -> Queue {
        let unread = Some(Place::FIRST);
        Queue { seats: BTreeSet::new(), polls: 0, asked: true, backlog: VecDeque::new(), unread }
    }

    fn note(&mut self, place: Place) {
        self.unread = Some(self.unread.map_or(place, |unread| unread.min(place)));
    }
}

impl Dispatch {
    /// Parks a poll. Where nobody waited, what was read before is out of date, and if the work is `shared` with other replicas
    /// there may be rows of theirs.
    pub fn park(&mut self, ticket: Ticket, poll: Poll, arrived: u64, shared: bool) {
        self.turns += 1;
        let (number, turn) = (PollNo(self.turns), self.turns);
        if self.queues.len() > QUEUES {
            self.queues.retain(|_, queue| queue.polls > 0);
        }
        for name in &poll.queues {
            let queue = self.queues.entry(name.clone()).or_insert_with(Queue::unread);
            queue.polls += 1;
            queue.asked = true;
            if queue.seats.is_empty() {
                let read = queue.backlog.front().map(|row| row.place);
                queue.backlog.clear();
                if let Some(place) = shared.then_some(Place::FIRST).or(read) {
                    queue.note(place);
                }
            }
        }
        if let Some(request) = poll.request {
            self.named.insert((poll.session, request), number);
        }
        if !poll.park {
            self.impatient.insert(number);
        }
        self.callers.insert(ticket, number);
        let free = poll.max_steps;
        let waiting =
            Waiting { poll, ticket, arrived, turn, free, reserved: 0, grants: Vec::new(), gone: false };
        self.polls.insert(number, Box::new(waiting));
        self.seat(number);
    }

    /// A repetition of a poll that waits, or is reserved, takes its place. Returns the call that is over.
    pub fn take_place(&mut self, ticket: Ticket, poll: &Poll) -> Option<Ticket> {
        let number = *self.named.get(&(poll.session, poll.request?))?;
        let waiting = self.polls.get_mut(&number)?;
        let replaced = std::mem::replace(&mut waiting.ticket, ticket);
        waiting.gone = false;
        waiting.poll.park = poll.park;
        match poll.park {
            true => self.impatient.remove(&number),
            false => self.impatient.insert(number),
        };
        self.callers.remove(&replaced);
        self.callers.insert(ticket, number);
        Some(replaced)
    }

    fn seat(&mut self, number: PollNo) {
        let Some(waiting) = self.polls.get(&number).filter(|waiting| waiting.free > 0) else { return };
        for name in &waiting.poll.queues {
            self.queues.get_mut(name).map(|queue| queue.seats.insert((waiting.turn, number)));
        }
    }

    fn unseat(&mut self, number: PollNo) {
        let Some(waiting) = self.polls.get(&number) else { return };
        for name in &waiting.poll.queues {
            self.queues.get_mut(name).map(|queue| queue.seats.remove(&(waiting.turn, number)));
        }
    }

    fn remove(&mut self, number: PollNo) -> Option<Over> {
        self.unseat(number);
        let Waiting { poll, ticket, grants, gone, .. } = *self.polls.remove(&number)?;
        for name in &poll.queues {
            self.queues.entry(name.clone()).and_modify(|queue| queue.polls -= 1);
        }
        self.impatient.remove(&number);
        self.callers.remove(&ticket);
        if let Some(request) = poll.request {
            self.named.remove(&(poll.session, request));
        }
        Some(Over { ticket, session: poll.session, request: poll.request, grants, gone })
    }

    /// Ends a poll; it is returned if it can be answered now. If it is reserved, the write under way settles it: its grants are
    /// handed back when its caller is `gone`, and else delivered.
    pub fn end(&mut self, ticket: Ticket, gone: bool) -> Option<Over> {
        let number = *self.callers.get(&ticket)?;
        let waiting = self.polls.get_mut(&number)?;
        if waiting.reserved == 0 {
            return self.remove(number);
        }
        waiting.gone |= gone;
        self.impatient.insert(number);
        None
    }

    /// Ends the polls of a session that has ended; those that are reserved end when they are settled.
    pub fn end_session(&mut self, session: SessionId) -> Vec<Over> {
        let of_session = self.polls.iter().filter(|(_, waiting)| waiting.poll.session == session);
        let numbers: Vec<PollNo> = of_session.map(|(number, _)| *number).collect();
        self.impatient.extend(&numbers);
        numbers.into_iter().filter_map(|number| self.remove_idle(number)).collect()
    }

    /// Polls that do not wait and were not matched; they are over. `all` that could be read for them was read, or they are
    /// answered after a few works all the same.
    pub fn end_impatient(&mut self, all: bool, issued: u64) -> Vec<Over> {
        let over = |number: &&PollNo| {
            all || self.polls.get(number).is_some_and(|waiting| issued > waiting.arrived + PATIENCE)
        };
        let numbers: Vec<PollNo> = self.impatient.iter().filter(over).copied().collect();
        numbers.into_iter().filter_map(|number| self.remove_idle(number)).collect()
    }

    fn remove_idle(&mut self, number: PollNo) -> Option<Over> {
        self.polls.get(&number).filter(|waiting| waiting.reserved == 0)?;
        self.remove(number)
    }

    /// Queues whose ready rows should be read for polls that wait, and how many; `spare` more than they can take.
    pub fn wanted(&self, spare: usize) -> BTreeMap<Arc<str>, Head> {
        let hungry =
            self.queues.iter().filter(|(_, queue)| queue.backlog.is_empty() && !queue.seats.is_empty());
        hungry
            .filter_map(|(name, queue)| {
                let from = queue.unread?;
                let free = queue.seats.iter().filter_map(|(_, number)| self.polls.get(number)).take(WINDOW);
                let count = (free.map(|waiting| waiting.free).sum::<usize>() + spare).min(WINDOW);
                Some((name.clone(), Head { from, count }))
            })
            .collect()
    }

    /// Ready rows were read: fewer than asked for means that these are all.
    pub fn read(&mut self, name: &Arc<str>, asked: Head, rows: Vec<ReadyStep>) {
        if let Some(queue) = self.queues.get_mut(name) {
            // There may be more at the place of the last one.
            queue.unread = rows.last().filter(|_| rows.len() >= asked.count).map(|row| row.place);
            queue.backlog.extend(rows);
        }
    }

    /// A ready row was written at that place, or another replica says that there is one. A queue that is not remembered is read
    /// anyway.
    pub fn note_row(&mut self, name: &str, place: Place) {
        if let Some(queue) = self.queues.get_mut(name) {
            queue.note(place);
        }
    }

    /// Every queue may have rows that others wrote.
    pub fn note_all(&mut self) {
        self.queues.values_mut().for_each(|queue| queue.note(Place::FIRST));
    }

    /// Whether steps are, or may be, ready in a queue that executors ask often: then it is not they who are slow.
    pub fn is_behind(&self) -> bool {
        self.queues.values().any(|queue| queue.unread.is_some() || !queue.backlog.is_empty())
    }

    /// Forgets queues that nobody has asked since the round before.
    pub fn round(&mut self) {
        self.queues.retain(|_, queue| queue.polls > 0 || std::mem::take(&mut queue.asked));
    }

    /// Whether a row that was read can be given to a poll.
    pub fn can_match(&self) -> bool {
        self.queues.values().any(|queue| !queue.backlog.is_empty() && !queue.seats.is_empty())
    }

    /// The next row that was read and that a poll waits for. A queue whose next run is `awaited` waits with it: older rows go first.
    ///
    /// Queues take turns. A poll that waits on several would else get nothing of the last one while the first ones are full, and
    /// runs whose last step is there would never end.
    pub fn next_from_backlog(&mut self, awaited: impl Fn(RunId) -> bool) -> Option<(Arc<str>, ReadyStep)> {
        let fed = |queue: &Queue| {
            !queue.seats.is_empty() && queue.backlog.front().is_some_and(|row| !awaited(row.run))
        };
        let after = self.served.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.queues.range::<str, _>((after, Bound::Unbounded));
        let (name, _) = later.chain(&self.queues).find(|(_, queue)| fed(queue))?;
        let name = name.clone();
        let row = self.queues.get_mut(&name)?.backlog.pop_front()?;
        self.served = Some(name.clone());
        Some((name, row))
    }

    /// Whether a step that becomes ready in this queue goes straight to a poll: one waits, and nothing older does.
    pub fn direct(&self, name: &str) -> bool {
        let queue = self.queues.get(name);
        queue.is_some_and(|queue| {
            queue.unread.is_none() && queue.backlog.is_empty() && !queue.seats.is_empty()
        })
    }

    /// Reserves the poll whose turn it is for one step, and puts it last if it can take more.
    pub fn reserve(&mut self, name: &str) -> Option<(PollNo, SessionId, Arc<str>)> {
        let (_, number) = *self.queues.get(name)?.seats.first()?;
        self.unseat(number);
        self.turns += 1;
        let waiting = self.polls.get_mut(&number)?;
        waiting.turn = self.turns;
        waiting.free -= 1;
        waiting.reserved += 1;
        let reserved = (number, waiting.poll.session, waiting.poll.executor.clone());
        self.seat(number);
        Some(reserved)
    }

    /// A match of the poll was settled: its step was granted, or it waits again where it was. Returns the poll when it is over.
    pub fn settle(&mut self, number: PollNo, grant: Option<Grant>) -> Option<Over> {
        self.unseat(number);
        let waiting = self.polls.get_mut(&number)?;
        waiting.reserved -= 1;
        waiting.free += usize::from(grant.is_none());
        waiting.grants.extend(grant);
        waiting.turn = number.0;
        if waiting.reserved == 0 && (waiting.gone || !waiting.grants.is_empty()) {
            return self.remove(number);
        }
        // Who has something to take waits for no more than what is under way.
        if waiting.grants.is_empty() {
            self.seat(number);
        }
        None
    }

    /// Remembers what a poll was granted, for its repetition.
    pub fn remember(&mut self, session: SessionId, request: RequestId, grants: &[Grant]) {
        if self.granted.len() >= REMEMBERED {
            self.granted.pop_first();
        }
        self.granted.insert(session, (request, grants.to_vec()));
    }

    /// Forgets grants that are not `undelivered` any more.
    pub fn forget_grants(&mut self, undelivered: impl Fn(&LeaseToken) -> bool) {
        self.granted.retain(|_, (_, grants)| {
            grants.retain(|grant| undelivered(&grant.token));
            !grants.is_empty()
        });
    }

    /// What the same poll was granted before.
    pub fn granted(&self, poll: &Poll) -> &[Grant] {
        match self.granted.get(&poll.session) {
            Some((request, grants)) if Some(*request) == poll.request => grants,
            _ => &[],
        }
    }

    /// How many polls wait on a queue.
    pub fn waiting(&self, name: &str) -> usize {
        self.queues.get(name).map_or(0, |queue| queue.seats.len())
    }

    /// Queues on which polls wait.
    pub fn parked_queues(&self) -> Vec<Arc<str>> {
        self.queues
            .iter()
            .filter(|(_, queue)| !queue.seats.is_empty())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// How many polls wait or are reserved.
    pub fn count(&self) -> usize {
        self.polls.len()
    }
}

#[cfg(test)]
mod tests {
    use crate::time::Timestamp;

    use super::*;

    fn row(number: u8) -> ReadyStep {
        let place = Place::new(0, Timestamp(i64::from(number)));
        ReadyStep { run: RunId(uuid::Uuid::from_bytes([number; 16])), step: 0, place }
    }

    /// A dispatch with a poll of six steps that waits on queues.
    fn waiting(queues: &[Arc<str>]) -> Dispatch {
        let mut dispatch = Dispatch::default();
        let (session, executor) = (SessionId(uuid::Uuid::nil()), Arc::from("executor"));
        let poll =
            Poll { session, executor, queues: queues.to_vec(), max_steps: 6, request: None, park: true };
        dispatch.park(Ticket(1), poll, 0, false);
        dispatch
    }

    /// A poll that waits on several queues is given of each, however many steps wait in the first one by name.
    #[test]
    fn queues_that_have_rows_take_turns() {
        let queues: Vec<Arc<str>> = ["audio", "script", "video"].map(Arc::from).to_vec();
        let mut dispatch = waiting(&queues);
        let four = Head { from: Place::FIRST, count: 4 };
        dispatch.read(&queues[0], four, (0..4).map(row).collect());
        dispatch.read(&queues[1], four, vec![row(4)]);
        dispatch.read(&queues[2], four, (5..9).map(row).collect());
        let given: Vec<Arc<str>> = std::iter::from_fn(|| {
            let (queue, ..) = dispatch.next_from_backlog(|_| false)?;
            dispatch.reserve(&queue).map(|_| queue)
        })
        .collect();
        let given: Vec<&str> = given.iter().map(|queue| &**queue).collect();
        assert_eq!(given, ["audio", "script", "video", "audio", "video", "audio"]);
    }

    /// A queue is read from the first place on at which there may be a row.
    #[test]
    fn rows_are_read_from_where_there_may_be_one() {
        let queue: Arc<str> = Arc::from("audio");
        let mut dispatch = waiting(std::slice::from_ref(&queue));
        let from = |dispatch: &Dispatch| dispatch.wanted(0).get(&queue).map(|head| head.from);
        assert_eq!(from(&dispatch), Some(Place::FIRST), "nobody has looked yet");
        assert_eq!((dispatch.waiting(&queue), dispatch.waiting("nobody's")), (1, 0));
        let two = Head { from: Place::FIRST, count: 2 };
        dispatch.read(&queue, two, vec![row(1), row(2)]);
        while dispatch.next_from_backlog(|_| false).is_some() {}
        assert_eq!(from(&dispatch), Some(row(2).place), "there may be more at the last one's place");
        dispatch.note_row(&queue, row(7).place);
        assert_eq!(from(&dispatch), Some(row(2).place));
        assert!(!dispatch.direct(&queue), "older rows go first");
        dispatch.read(&queue, two, vec![row(7)]);
        assert!(!dispatch.direct(&queue), "also those that were read");
        while dispatch.next_from_backlog(|_| false).is_some() {}
        assert_eq!(from(&dispatch), None, "these were all");
        assert!(dispatch.direct(&queue));
        dispatch.note_row(&queue, row(9).place);
        dispatch.note_row(&queue, row(8).place);
        assert_eq!(from(&dispatch), Some(row(8).place));
        dispatch.note_row(&queue, Place::new(1, Timestamp(9)));
        assert_eq!(from(&dispatch), Some(Place::new(1, Timestamp(9))), "the larger priority goes first");
    }
}
