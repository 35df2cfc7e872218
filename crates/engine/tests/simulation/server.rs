//! A server: a real lane and its driver, as `orchestrator` drives it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use longtake_engine::command::Answer;
use longtake_engine::ids::{RunId, SessionId};
use longtake_engine::lane::work::{Committed, Found, Loaded, Work};
use longtake_engine::lane::{Ask, Beat, Config, Lane, LeaseBeat, Reply, Ticket};
use longtake_engine::time::Timestamp;

use crate::call::{Body, Call};
use crate::db::{Db, Replica};
use crate::rng::Rng;
use crate::stats::Hit;

pub struct Server {
    /// Counts its lives; what belongs to an earlier one is lost.
    pub life: u32,
    pub replica: Replica,
    /// None while it is down.
    pub lane: Option<Lane>,
    pub frozen_until: Timestamp,
    pub callers: BTreeMap<Ticket, Caller>,
    pub held: BTreeMap<u64, Held>,
    pub rng: Rng,
    /// How much work the database does for it; it is woken by the outcomes.
    pub busy: usize,
    /// When it is woken next.
    pub wake: Timestamp,
    /// Works since its life began.
    pub works: u64,
    /// Runs that were part of a write whose outcome is unknown: to be read under lock before anything else.
    pub in_doubt: BTreeSet<RunId>,
    tickets: u64,
    clock: Clock,
}

/// A call that a server has taken in.
pub struct Caller {
    pub actor: usize,
    pub life: u32,
    pub call: Rc<Call>,
    /// Which sending of the call it was.
    pub sending: u32,
    pub arrived: Timestamp,
    /// Its connection is closed.
    pub gone: bool,
    /// The first answer to a heartbeat that was held.
    pub first: Option<Reply>,
}

/// A heartbeat that is held until there is a directive or its time is up.
pub struct Held {
    pub session: SessionId,
    pub caller: Caller,
}

/// Work that a server has given to the database.
pub struct Doing {
    pub server: usize,
    pub life: u32,
    pub replica: Replica,
    pub work: Work,
    pub sent: Timestamp,
    pub kind: Kind,
    pub done: Option<Done>,
}

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fine,
    /// It is refused; nothing happened.
    Refused,
    /// The connection is lost; it happened, or not, or may happen later.
    Lost {
        applied: bool,
        late: Option<bool>,
    },
}

/// Its outcome.
pub enum Done {
    Loaded(Loaded),
    Committed(Committed, Timestamp),
    Ended(BTreeMap<SessionId, Vec<RunId>>),
    Forgotten,
    Found(Box<Found>, Timestamp),
    /// To be done again.
    Broken,
}

/// The database's clock as a server knows it: the last time that it was told, and its own since, which may be fast or slow.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    told: Timestamp,
    told_at: Timestamp,
    drift_permille: i64,
}

impl Clock {
    fn now(&self, now: Timestamp) -> Timestamp {
        let since = now.since(self.told_at).0;
        Timestamp(self.told.0 + since + since * self.drift_permille / 1000)
    }

    /// The database said what time it was at some moment since `sent`. A clock that was fast steps back.
    fn sync(&mut self, database: Timestamp, sent: Timestamp, now: Timestamp) {
        self.told = self.now(now).clamp(database, database + now.since(sent));
        self.told_at = now;
    }
}

impl Server {
    pub fn new(rng: Rng) -> Server {
        Server {
            life: 0,
            replica: 0,
            lane: None,
            frozen_until: Timestamp::default(),
            callers: BTreeMap::new(),
            held: BTreeMap::new(),
            rng,
            busy: 0,
            wake: Timestamp(i64::MAX),
            works: 0,
            in_doubt: BTreeSet::new(),
            tickets: 0,
            clock: Clock::default(),
        }
    }

    pub fn start(&mut self, replica: Replica, config: Config, now: Timestamp, drift_permille: i64) {
        self.life += 1;
        self.replica = replica;
        self.lane = Some(Lane::new(config));
        self.works = 0;
        self.busy = 0;
        self.clock = Clock { told: now, told_at: now, drift_permille };
    }

    /// The process is gone, and all that it knew.
    pub fn crash(&mut self) -> Vec<Caller> {
        self.lane = None;
        self.wake = Timestamp(i64::MAX);
        self.in_doubt.clear();
        self.frozen_until = Timestamp::default();
        let held = std::mem::take(&mut self.held).into_values().map(|held| held.caller);
        std::mem::take(&mut self.callers).into_values().chain(held).collect()
    }

    pub fn now(&self, now: Timestamp) -> Timestamp {
        self.clock.now(now)
    }

    /// Takes a call in; the ticket names it here.
    pub fn take(&mut self, caller: Caller, now: Timestamp) -> Option<Ticket> {
        let here = self.now(now);
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let ask = match (&caller.call.body, &caller.first) {
            (Body::Beat(beat, _), Some(_)) => Ask { beat: Some(once_more(beat)), ..caller.call.ask(ticket) },
            _ => caller.call.ask(ticket),
        };
        self.callers.insert(ticket, caller);
        self.lane.as_mut()?.ask(ask, here);
        Some(ticket)
    }

    /// The outcome of work reaches the server. Returns the work if it is to be done again.
    pub fn finish(&mut self, doing: Doing, now: Timestamp) -> Option<Doing> {
        let (Some(done), Some(_)) = (doing.done, &self.lane) else { return None };
        if let Done::Committed(Committed::Done { .. }, time) | Done::Found(_, time) = &done {
            self.clock.sync(*time, doing.sent, now);
        }
        let here = self.now(now);
        let lane = self.lane.as_mut()?;
        match (done, &doing.work) {
            (Done::Loaded(loaded), Work::Load(load)) => {
                for run in &load.runs {
                    assert!(
                        *run.1 || !self.in_doubt.contains(run.0),
                        "a run in doubt was read without a lock"
                    );
                    self.in_doubt.remove(run.0);
                }
                lane.loaded(load, loaded, here);
            }
            (Done::Committed(committed, _), Work::Write(write)) => {
                if matches!(committed, Committed::Unknown) {
                    let written = write.runs.iter().filter(|run| {
                        matches!(run.fence, longtake_engine::lane::work::Fence::Version { .. })
                    });
                    self.in_doubt.extend(written.map(|run| run.id));
                }
                lane.committed(write.number, committed, here, &mut || self.rng.next());
            }
            (Done::Ended(ended), Work::EndSessions(over)) => lane.sessions_ended(over, &ended, here),
            (Done::Forgotten, Work::ForgetSessions(over)) => lane.sessions_forgotten(over),
            (Done::Found(found, _), Work::Housekeep(_)) => lane.found(*found),
            (Done::Broken, _) => return Some(Doing { done: None, ..doing }),
            _ => panic!("an outcome of another work"),
        }
        None
    }
}

impl Doing {
    /// It reaches the database.
    pub fn apply(&mut self, db: &mut Db, now: Timestamp) {
        if let Work::Write(write) = &self.work {
            let refused = self.kind == Kind::Refused || db.refuses(write, now);
            if refused {
                self.kind = Kind::Refused;
                db.stats.hit(Hit::FailedWrite);
                db.refused.extend(write.runs.iter().map(|run| (run.id, now)));
                return self.done = Some(Done::Committed(Committed::Failed("simulated".to_owned()), now));
            }
        }
        let (happens, told) = match self.kind {
            Kind::Fine => (true, true),
            Kind::Refused => (false, false),
            Kind::Lost { applied, .. } => (applied, false),
        };
        let done = happens.then(|| self.act(db, now));
        self.done = match (done, &self.work) {
            (Some(done), _) if told => Some(done),
            (_, Work::Write(_)) => Some(Done::Committed(Committed::Unknown, Timestamp::default())),
            _ => Some(Done::Broken),
        };
    }

    fn act(&self, db: &mut Db, now: Timestamp) -> Done {
        match &self.work {
            Work::Load(load) => Done::Loaded(db.load(load, now)),
            Work::Write(write) => {
                if write.runs.len() > 2 {
                    db.stats.hit(Hit::BigBatch);
                }
                let applied = db.write(write, self.replica, now);
                let committed = Committed::Done { written: applied.written, sessions: applied.sessions };
                Done::Committed(committed, now)
            }
            Work::EndSessions(over) => Done::Ended(db.end_sessions(over, now)),
            Work::ForgetSessions(over) => {
                db.forget_sessions(over, now);
                Done::Forgotten
            }
            Work::Housekeep(round) => Done::Found(Box::new(db.housekeep(round, self.replica, now)), now),
        }
    }
}

/// The second half of a heartbeat that was held: it brings nothing and misses nobody.
fn once_more(beat: &Beat) -> Beat {
    let leases =
        beat.leases.iter().map(|lease| LeaseBeat { checkpoint: None, progress: None, ..lease.clone() });
    Beat { leases: leases.collect(), complete: false, ..beat.clone() }
}

/// Whether a reply to a heartbeat is worth more than waiting.
pub fn directs(reply: &Reply) -> bool {
    reply
        .answers
        .iter()
        .any(|answer| matches!(answer, Ok(Answer::Reported { directive: Some(_), .. }) | Err(_)))
}
