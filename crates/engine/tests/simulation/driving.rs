//! How servers are driven: calls come in, work goes to the database and comes back, replies go out. A server may crash between
//! any two of these.

use std::rc::Rc;

use longtake_engine::lane::work::Work;
use longtake_engine::lane::{Reply, Ticket};
use longtake_engine::time::{Duration, Timestamp};

use crate::call::{Body, Call, Heard};
use crate::db::Late;
use crate::oracle::Given;
use crate::server::{Caller, Doing, Held, Kind, directs};
use crate::stats::Hit;
use crate::trace::Brief;
use crate::world::{Event, World};

impl World {
    /// A call reaches a server.
    pub fn request(&mut self, server: usize, from: (usize, u32), call: Rc<Call>, sending: u32) {
        let (actor, life) = from;
        let lost = self.actors[actor].life != life;
        if lost && (self.calm.is_some() || self.rng.chance(500)) {
            return;
        }
        let here = &self.servers[server];
        if here.lane.is_none() {
            return if self.rng.chance(800) {
                self.respond(actor, life, call.id, &Heard::Unavailable);
            };
        }
        if here.frozen_until > self.now {
            let until = here.frozen_until;
            return self.at(until, Event::Request { server, from, call, sending });
        }
        self.count_left_out(&call);
        let caller = Caller { actor, life, call, sending, arrived: self.now, gone: false, first: None };
        self.take(server, caller);
        self.drive(server);
    }

    fn take(&mut self, server: usize, caller: Caller) {
        let (body, life) = (caller.call.clone(), self.servers[server].life);
        let again = self.servers[server].callers.values().any(|other| other.call.id == body.id);
        if again && matches!(body.body, Body::Poll(..)) {
            self.db.stats.hit(Hit::PollRepeated);
        }
        let Some(ticket) = self.servers[server].take(caller, self.now) else { return };
        if let Body::Poll(_, wait) = body.body {
            let wait = wait.max(Duration::from_secs(1));
            self.after(wait, Event::PollOver { server, life, ticket });
        }
        self.note(format_args!("server {server} takes {ticket:?}: call {} {}", body.id, Brief(&body.body)));
    }

    /// Counts what the database cannot know: who was left out of a heartbeat that should name every lease.
    fn count_left_out(&mut self, call: &Call) {
        let Body::Beat(beat, _) = &call.body else { return };
        for (id, row) in self.db.runs.iter().filter(|_| beat.complete) {
            for (number, step) in row.run.steps.iter().enumerate() {
                let Some((attempt, lease)) = step.live() else { continue };
                let named = beat.leases.iter().any(|lease| {
                    (lease.token.run, lease.token.step(), lease.token.attempt) == (*id, number, attempt)
                });
                if lease.session == beat.session && !named {
                    *self.db.left_out.entry((*id, number, attempt)).or_default() += 1;
                }
            }
        }
    }

    /// Lets a server do what it can.
    pub fn drive(&mut self, server: usize) {
        loop {
            let now = self.now;
            let here = &mut self.servers[server];
            let time = here.now(now);
            let Some(lane) = &mut here.lane else { return };
            let work = lane.next(time, &mut || here.rng.next());
            let (replies, woken) = (lane.replies(), lane.woken());
            lane.touched();
            let mut again = false;
            for reply in replies {
                again |= self.reply(server, reply);
            }
            let woken: Vec<u64> = self.servers[server]
                .held
                .iter()
                .filter(|(_, held)| woken.contains(&held.session))
                .map(|(hold, _)| *hold)
                .collect();
            for hold in woken {
                self.db.stats.hit(Hit::HeldBeatWoken);
                self.release(server, hold);
                again = true;
            }
            if let Some(work) = work {
                self.begin(server, work);
            } else if !again {
                break;
            }
            if self.maybe_crash(server) {
                return;
            }
        }
        self.schedule_wake(server);
    }

    fn schedule_wake(&mut self, server: usize) {
        let now = self.now;
        let here = &mut self.servers[server];
        let time = here.now(now);
        let Some(lane) = here.lane.as_ref().filter(|_| here.busy == 0) else { return };
        let at = now + lane.wake_at().since(time) + Duration(200);
        if at < here.wake || here.wake <= now {
            here.wake = at;
            self.at(at, Event::Wake { server, at });
        }
    }

    pub fn wake(&mut self, server: usize, at: Timestamp) {
        let here = &mut self.servers[server];
        if here.wake != at || here.lane.is_none() {
            return;
        }
        if here.frozen_until > self.now {
            here.wake = here.frozen_until;
            let until = here.frozen_until;
            return self.at(until, Event::Wake { server, at: until });
        }
        here.wake = Timestamp(i64::MAX);
        self.drive(server);
    }

    /// A reply leaves the lane. True if the lane has something to do because of it.
    fn reply(&mut self, server: usize, reply: Reply) -> bool {
        let now = self.now;
        let here = &mut self.servers[server];
        let time = here.now(now);
        let ticket = reply.ticket;
        let caller = here.callers.remove(&ticket).unwrap_or_else(|| panic!("{ticket:?} was answered twice"));
        self.ledger.check(&Given { caller: &caller, reply: &reply, now, here: time }, &mut self.db);
        self.note(format_args!("server {server} answers {ticket:?}: {}", Brief(&reply)));
        if let (Body::Beat(beat, hold), None) = (&caller.call.body, &caller.first)
            && *hold > Duration::ZERO
            && !directs(&reply)
            && !caller.gone
        {
            let (life, session, hold) = (self.servers[server].life, beat.session, *hold);
            let id = self.id();
            self.after(hold, Event::HoldOver { server, life, hold: id });
            let caller = Caller { first: Some(reply), ..caller };
            self.servers[server].held.insert(id, Held { session, caller });
            return false;
        }
        if caller.gone {
            return self.undeliverable(server, &reply);
        }
        self.count_grants(&caller, &reply);
        let reply = match caller.first {
            Some(first) => merged(first, reply),
            None => reply,
        };
        self.respond(caller.actor, caller.life, caller.call.id, &Heard::Reply(Rc::new(reply)));
        false
    }

    fn count_grants(&mut self, caller: &Caller, reply: &Reply) {
        for grant in &reply.grants {
            if grant.at < caller.arrived - Duration::from_secs(1) {
                self.db.stats.hit(Hit::GrantRepeated);
            }
            if matches!(caller.call.body, Body::Report(..)) {
                self.db.stats.hit(Hit::GrantInCompletion);
            }
        }
    }

    /// Nobody is there to take it.
    fn undeliverable(&mut self, server: usize, reply: &Reply) -> bool {
        let now = self.now;
        let here = &mut self.servers[server];
        let time = here.now(now);
        let Some(lane) = &mut here.lane else { return false };
        let tokens: Vec<_> = reply.grants.iter().map(|grant| grant.token).collect();
        if tokens.is_empty() {
            return false;
        }
        lane.hand_back(tokens, time, &mut || here.rng.next());
        true
    }

    /// Asks again for a heartbeat that was held.
    fn release(&mut self, server: usize, hold: u64) {
        if let Some(held) = self.servers[server].held.remove(&hold) {
            self.take(server, held.caller);
        }
    }

    pub fn end_hold(&mut self, server: usize, life: u32, hold: u64) {
        let here = &self.servers[server];
        if here.life != life || here.lane.is_none() {
            return;
        }
        if here.frozen_until > self.now {
            let until = here.frozen_until;
            return self.at(until, Event::HoldOver { server, life, hold });
        }
        self.release(server, hold);
        self.drive(server);
    }

    pub fn end_poll(&mut self, server: usize, life: u32, ticket: Ticket, gone: bool) {
        let now = self.now;
        let here = &mut self.servers[server];
        if here.life != life {
            return;
        }
        if here.frozen_until > now {
            let until = here.frozen_until;
            return self.at(until, Event::PollOver { server, life, ticket });
        }
        let time = here.now(now);
        if let Some(lane) = &mut here.lane {
            lane.end_poll(ticket, gone, time);
            self.drive(server);
        }
    }

    /// The server hears that the callers of a call are gone.
    pub fn gone(&mut self, server: usize, life: u32, call: u64, sending: u32) {
        let here = &mut self.servers[server];
        if here.life != life || here.frozen_until > self.now {
            return;
        }
        let held = here.held.values_mut().map(|held| &mut held.caller);
        held.filter(|caller| caller.call.id == call)
            .for_each(|caller| caller.gone |= caller.sending <= sending);
        let callers = here.callers.iter_mut();
        let callers = callers.filter(|(_, caller)| caller.call.id == call && caller.sending <= sending);
        let polls = callers.filter_map(|(ticket, caller)| {
            caller.gone = true;
            matches!(caller.call.body, Body::Poll(..) | Body::Report(_, Some(_))).then_some(*ticket)
        });
        let polls: Vec<Ticket> = polls.collect();
        for ticket in polls {
            self.db.stats.hit(Hit::CallerGone);
            self.end_poll(server, life, ticket, true);
        }
    }

    /// Work is given to the database.
    fn begin(&mut self, server: usize, work: Work) {
        let here = &mut self.servers[server];
        here.works += 1;
        here.busy += 1;
        if let Work::Write(write) = &work {
            for run in &write.runs {
                let create = matches!(run.fence, longtake_engine::lane::work::Fence::Absent(_));
                assert!(
                    create || !here.in_doubt.contains(&run.id),
                    "a run in doubt was written before it was read"
                );
            }
            match here.busy {
                2 => self.db.stats.hit(Hit::SecondWrite),
                3 => self.db.stats.hit(Hit::ThirdWrite),
                _ => {}
            }
        }
        self.note(format_args!("server {server} begins {}", Brief(&work)));
        self.check_together(server, &work);
        let here = &self.servers[server];
        let doing = Doing {
            server,
            life: here.life,
            replica: here.replica,
            work,
            sent: self.now,
            kind: Kind::Fine,
            done: None,
        };
        self.put_through(doing);
    }

    /// Only writes of different runs are under way together.
    fn check_together(&mut self, server: usize, work: &Work) {
        let life = self.servers[server].life;
        let mine = self.doing.values().filter(|doing| doing.server == server && doing.life == life);
        let mut together = false;
        for other in mine {
            let (Work::Write(ours), Work::Write(theirs)) = (work, &other.work) else {
                panic!("work was given beside other work");
            };
            let same = |id| theirs.runs.iter().any(|run| run.id == id);
            assert!(!ours.runs.iter().any(|run| same(run.id)), "a run is written twice at once");
            together = true;
        }
        if together {
            self.db.stats.hit(Hit::TwoWrites);
        }
    }

    fn put_through(&mut self, mut doing: Doing) {
        let write = matches!(doing.work, Work::Write(_));
        let cut = self.cut_until > self.now;
        doing.kind = match self.calm {
            _ if cut => Kind::Lost { applied: false, late: None },
            Some(_) => Kind::Fine,
            None => self.faults.outcome(write, &mut self.rng),
        };
        let slow = self.calm.is_none() && self.rng.chance(self.faults.database_slow);
        let delay = if slow { self.millis(20, 3000) } else { Duration(self.rng.range(200, 4000)) };
        let delay = if cut { self.millis(50, 1000) } else { delay };
        let id = self.id();
        self.doing.insert(id, doing);
        self.after(delay, Event::Apply(id));
    }

    /// Work reaches the database.
    pub fn apply(&mut self, id: u64) {
        let Some(doing) = self.doing.get_mut(&id) else { return };
        let server = doing.server;
        doing.apply(&mut self.db, self.now);
        match doing.kind {
            Kind::Fine | Kind::Refused => {}
            Kind::Lost { late: Some(_), .. } => self.db.stats.hit(Hit::UnknownLate),
            Kind::Lost { applied: true, .. } => self.db.stats.hit(Hit::UnknownApplied),
            Kind::Lost { applied: false, .. } => self.db.stats.hit(Hit::UnknownNever),
        }
        let kind = doing.kind;
        if let (Kind::Lost { late: Some(executing), .. }, Work::Write(write)) = (kind, &doing.work) {
            let (replica, write) = (doing.replica, write.clone());
            self.be_late(replica, write, executing);
        }
        self.note(format_args!("database did the work of server {server}: {kind:?}"));
        let delay = self.delay_of_outcome();
        self.after(delay, Event::Outcome(id));
        self.maybe_crash(server);
    }

    fn delay_of_outcome(&mut self) -> Duration {
        let slow = self.calm.is_none() && self.rng.chance(self.faults.database_slow);
        if slow { self.millis(20, 1500) } else { Duration(self.rng.range(100, 1500)) }
    }
}

impl World {
    /// Nobody knows when, or whether, this write will be applied.
    fn be_late(&mut self, replica: u64, write: longtake_engine::lane::work::Write, executing: bool) {
        let id = self.id();
        let applies = self.rng.chance(700);
        self.db.late.push(Late { id, write, replica, executing, applies });
        let longest = if self.rng.chance(300) { 20_000 } else { 1000 };
        let delay = self.millis(1, longest);
        self.after(delay, Event::Late(id));
    }

    /// The time of a late write has come.
    pub fn late(&mut self, id: u64) {
        if let Some(at) = self.db.late.iter().position(|late| late.id == id) {
            let late = self.db.late.remove(at);
            self.note(format_args!("late write: {}", late.applies));
            self.db.end_late(&late, self.now);
        }
    }

    /// The outcome of work reaches its server.
    pub fn outcome(&mut self, id: u64) {
        let Some(doing) = self.doing.get(&id) else { return };
        let server = doing.server;
        let here = &self.servers[server];
        if here.frozen_until > self.now && here.life == doing.life {
            let until = here.frozen_until;
            return self.at(until, Event::Outcome(id));
        }
        let Some(doing) = self.doing.remove(&id) else { return };
        if self.servers[server].life != doing.life {
            return;
        }
        if let Some(again) = self.servers[server].finish(doing, self.now) {
            self.db.stats.hit(Hit::WorkRepeated);
            return self.put_through(again);
        }
        self.servers[server].busy -= 1;
        if !self.maybe_crash(server) {
            self.drive(server);
        }
    }
}

/// What the checkpoints were answered stands; directives and sequences are the newer ones.
fn merged(first: Reply, second: Reply) -> Reply {
    let answers = first.answers.into_iter().zip(second.answers);
    let answers = answers.map(|(first, second)| if first.is_err() { first } else { second });
    Reply { answers: answers.collect(), ..second }
}
