//! The world of one seed: an agenda under a virtual clock, a network that loses, doubles and delays, and the faults.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Arguments;
use std::rc::Rc;
use std::sync::Arc;

use longtake_engine::ids::RunId;
use longtake_engine::lane::Ticket;
use longtake_engine::time::{Duration, Timestamp};

use crate::call::{Alarm, Call, Effect, Hands, Heard, Seen};
use crate::client::{Client, Liar};
use crate::db::Db;
use crate::executor::Executor;
use crate::faults::Faults;
use crate::oracle::Ledger;
use crate::rng::Rng;
use crate::server::{Doing, Server};
use crate::shrink::Without;
use crate::stats::Hit;

/// When every seed begins.
pub const DAWN: Timestamp = Timestamp(1_700_000_000_000_000);
pub enum Event {
    Request {
        server: usize,
        from: (usize, u32),
        call: Rc<Call>,
        sending: u32,
    },
    Response {
        actor: usize,
        life: u32,
        call: u64,
        heard: Heard,
    },
    Alarm {
        actor: usize,
        life: u32,
        alarm: Alarm,
    },
    Apply(u64),
    Outcome(u64),
    Late(u64),
    Wake {
        server: usize,
        at: Timestamp,
    },
    PollOver {
        server: usize,
        life: u32,
        ticket: Ticket,
    },
    HoldOver {
        server: usize,
        life: u32,
        hold: u64,
    },
    /// The caller of a call went away, and of its sendings until this one.
    Gone {
        server: usize,
        life: u32,
        call: u64,
        sending: u32,
    },
    Crash(usize),
    Restart(usize),
    Freeze(usize),
    ActorCrash(usize),
    ActorFreeze(usize),
    Drain(usize),
    Poison(Option<RunId>),
    /// The database cannot be reached.
    Cut,
    Calm,
    Look,
}

pub enum Role {
    Client(Client),
    Liar(Liar),
    Executor(Box<Executor>),
    /// It crashed for good.
    Nobody,
}

pub struct Actor {
    pub life: u32,
    pub frozen_until: Timestamp,
    pub role: Role,
}

/// An event on the agenda: the earliest is the greatest.
struct Due {
    at: Timestamp,
    sequence: u64,
    event: Event,
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Due {}

pub struct World {
    pub now: Timestamp,
    pub rng: Rng,
    pub faults: Faults,
    pub without: Without,
    /// Until when the database cannot be reached.
    pub cut_until: Timestamp,
    /// Faults have stopped, and since when.
    pub calm: Option<Timestamp>,
    pub db: Db,
    pub ledger: Ledger,
    pub servers: Vec<Server>,
    pub actors: Vec<Actor>,
    pub doing: BTreeMap<u64, Doing>,
    pub queues: Vec<Arc<str>>,
    pub runs: Vec<RunId>,
    /// Since when every run has ended.
    pub ended_at: Option<Timestamp>,
    /// Works of all servers at that time plus a minute.
    pub works_then: Option<(Timestamp, u64)>,
    pub over: bool,
    pub ids: u64,
    pub calls: u64,
    pub seen: Seen,
    agenda: BinaryHeap<Due>,
    sequence: u64,
    /// The last lines of what happened, if anybody wants to know, and how many.
    pub trace: Option<VecDeque<String>>,
    lines: usize,
}

impl World {
    /// A world with a trace of so many lines; without one it is faster.
    pub fn new(seed: u64, without: Without, lines: usize) -> World {
        let mut rng = Rng::new(seed);
        let mut faults = Faults::draw(&mut rng);
        faults.leave_out(without);
        let db = Db::new(rng.chance(500));
        World {
            now: DAWN,
            faults,
            without,
            cut_until: DAWN,
            calm: None,
            db,
            ledger: Ledger::default(),
            servers: Vec::new(),
            actors: Vec::new(),
            doing: BTreeMap::new(),
            queues: Vec::new(),
            runs: Vec::new(),
            ended_at: None,
            works_then: None,
            over: false,
            ids: 0,
            calls: 0,
            seen: Seen::default(),
            agenda: BinaryHeap::new(),
            sequence: 0,
            trace: (lines > 0).then(VecDeque::new),
            lines,
            rng,
        }
    }

    pub fn note(&mut self, line: Arguments<'_>) {
        let since = self.now.since(DAWN).0;
        let Some(trace) = &mut self.trace else { return };
        trace.push_back(format!("{:>4}.{:06} {line}", since / 1_000_000, since % 1_000_000));
        if trace.len() > self.lines {
            trace.pop_front();
        }
    }

    pub fn at(&mut self, at: Timestamp, event: Event) {
        self.sequence += 1;
        self.agenda.push(Due { at: at.max(self.now), sequence: self.sequence, event });
    }

    pub fn after(&mut self, span: Duration, event: Event) {
        self.at(self.now + span, event);
    }

    pub fn millis(&mut self, from: i64, to: i64) -> Duration {
        Duration(self.rng.range(from * 1000, to * 1000))
    }

    pub fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Until the seed is over.
    pub fn run(&mut self) {
        let mut steps = 0;
        while !self.over {
            let Due { at, event, .. } = self.agenda.pop().expect("something to do");
            self.now = at;
            self.handle(event);
            steps += 1;
            assert!(steps < 400_000, "it goes round and round");
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request { server, from, call, sending } => self.request(server, from, call, sending),
            Event::Response { actor, life, call, heard } => self.act(actor, life, News::Heard(call, heard)),
            Event::Alarm { actor, life, alarm } => self.act(actor, life, News::Alarm(alarm)),
            Event::Apply(id) => self.apply(id),
            Event::Outcome(id) => self.outcome(id),
            Event::Late(id) => self.late(id),
            Event::Wake { server, at } => self.wake(server, at),
            Event::PollOver { server, life, ticket } => self.end_poll(server, life, ticket, false),
            Event::HoldOver { server, life, hold } => self.end_hold(server, life, hold),
            Event::Gone { server, life, call, sending } => self.gone(server, life, call, sending),
            Event::Crash(server) => self.crash(server),
            Event::Restart(server) => self.restart(server),
            Event::Freeze(server) => self.freeze(server),
            Event::ActorCrash(actor) => self.crash_actor(actor),
            Event::ActorFreeze(actor) => self.freeze_actor(actor),
            Event::Drain(actor) => self.drain(actor),
            Event::Poison(run) => self.db.poison = run,
            Event::Cut => self.cut(),
            Event::Calm => self.becalm(),
            Event::Look => self.look(),
        }
    }

    /// Tells an actor something, unless it is frozen: then later.
    fn act(&mut self, actor: usize, life: u32, news: News) {
        let held = &mut self.actors[actor];
        if held.life != life {
            return;
        }
        if held.frozen_until > self.now {
            let (until, event) = (held.frozen_until, news.event(actor, life));
            return self.at(until, event);
        }
        let mut role = std::mem::replace(&mut held.role, Role::Nobody);
        self.with_hands(actor, |hands| match (&mut role, &news) {
            (Role::Client(client), News::Heard(call, heard)) => client.heard(*call, heard, hands),
            (Role::Client(client), News::Alarm(alarm)) => client.alarm(*alarm, hands),
            (Role::Executor(executor), News::Heard(call, heard)) => executor.heard(*call, heard, hands),
            (Role::Executor(executor), News::Alarm(alarm)) => executor.alarm(*alarm, hands),
            (Role::Liar(liar), News::Alarm(alarm)) => liar.alarm(*alarm, hands),
            (Role::Liar(_), News::Heard(..)) | (Role::Nobody, _) => {}
        });
        self.actors[actor].role = role;
    }

    /// Runs `what` with hands for an actor, and then does what it wanted.
    pub fn with_hands<R>(&mut self, actor: usize, what: impl FnOnce(&mut Hands<'_>) -> R) -> R {
        let mut effects = Vec::new();
        let mut hands = Hands {
            now: self.now,
            calm: self.calm.is_some(),
            rng: &mut self.rng,
            calls: &mut self.calls,
            effects: &mut effects,
            seen: &mut self.seen,
        };
        let result = what(&mut hands);
        let life = self.actors.get(actor).map_or(1, |actor| actor.life);
        for effect in effects {
            match effect {
                Effect::Send(call) => self.send(actor, life, &call),
                Effect::Abandon(call) => self.abandon(&call),
                Effect::Alarm(at, alarm) => self.at(at, Event::Alarm { actor, life, alarm }),
            }
        }
        result
    }

    /// A new actor, made by `role`.
    pub fn enlist(&mut self, role: impl FnOnce(&mut Hands<'_>) -> Role) -> usize {
        let actor = self.actors.len();
        let role = self.with_hands(actor, role);
        self.actors.push(Actor { life: 1, frozen_until: Timestamp::default(), role });
        actor
    }

    fn send(&mut self, actor: usize, life: u32, call: &Rc<Call>) {
        call.sends.set(call.sends.get() + 1);
        let copies = self.copies();
        for _ in 0..copies {
            let server = self.choose_server(actor);
            let delay = self.delay();
            let sending = call.sends.get();
            self.after(delay, Event::Request { server, from: (actor, life), call: call.clone(), sending });
        }
        if copies > 1 {
            call.sends.set(call.sends.get() + 1);
        }
    }

    /// Most callers stay with one server for as long as it is up.
    fn choose_server(&mut self, actor: usize) -> usize {
        let home = actor % self.servers.len();
        let up: Vec<usize> =
            (0..self.servers.len()).filter(|server| self.servers[*server].lane.is_some()).collect();
        if up.is_empty() || self.rng.chance(self.faults.blind) {
            return self.rng.below(self.servers.len());
        }
        if up.contains(&home) && !self.rng.chance(self.faults.wander) { home } else { *self.rng.pick(&up) }
    }

    pub fn respond(&mut self, actor: usize, life: u32, call: u64, heard: &Heard) {
        for _ in 0..self.copies() {
            let delay = self.delay();
            self.after(delay, Event::Response { actor, life, call, heard: heard.clone() });
        }
    }

    fn copies(&mut self) -> usize {
        if self.calm.is_some() {
            return 1;
        }
        if self.rng.chance(self.faults.lose) {
            self.db.stats.hit(Hit::MessageLost);
            return 0;
        }
        if self.rng.chance(self.faults.double) {
            self.db.stats.hit(Hit::MessageDoubled);
            return 2;
        }
        1
    }

    fn delay(&mut self) -> Duration {
        let slow = self.calm.is_none() && self.rng.chance(self.faults.slow);
        if slow { self.millis(50, 4000) } else { Duration(self.rng.range(100, 5000)) }
    }

    /// The callers of this call go away; the servers may hear of it.
    fn abandon(&mut self, call: &Call) {
        for server in 0..self.servers.len() {
            if self.calm.is_some() || self.rng.chance(700) {
                // Not before the call itself.
                let delay = self.delay() + Duration::from_millis(5);
                let (life, call, sending) = (self.servers[server].life, call.id, call.sends.get());
                self.after(delay, Event::Gone { server, life, call, sending });
            }
        }
    }

    pub fn executors(&self) -> impl Iterator<Item = (usize, &Executor)> {
        self.actors.iter().enumerate().filter_map(|(number, actor)| match &actor.role {
            Role::Executor(executor) => Some((number, &**executor)),
            Role::Client(_) | Role::Liar(_) | Role::Nobody => None,
        })
    }
}

/// What an actor is told; when it is frozen, when it thaws.
enum News {
    Heard(u64, Heard),
    Alarm(Alarm),
}

impl News {
    fn event(self, actor: usize, life: u32) -> Event {
        match self {
            News::Heard(call, heard) => Event::Response { actor, life, call, heard },
            News::Alarm(alarm) => Event::Alarm { actor, life, alarm },
        }
    }
}
