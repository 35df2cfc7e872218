//! Which faults a seed has, and how crashes and pauses go. Each seed draws its own mixture, so that some have only one kind.

use longtake_engine::lane::Config;
use longtake_engine::time::{Duration, Timestamp};

use crate::call::Heard;
use crate::rng::Rng;
use crate::server::Kind;
use crate::shrink::Without;
use crate::stats::Hit;
use crate::world::{Event, Role, World};

/// How often, of a thousand.
pub struct Faults {
    pub lose: u64,
    pub double: u64,
    pub slow: u64,
    /// A caller tries a server that is down.
    pub blind: u64,
    /// A caller goes to another server than before.
    pub wander: u64,
    pub database_slow: u64,
    pub refused: u64,
    pub lost: u64,
    /// A server crashes after an effect.
    pub crash: u64,
    /// Servers' clocks run so much faster or slower.
    pub drift: i64,
    pub poison: bool,
    pub small_lanes: bool,
}

impl Faults {
    pub fn draw(rng: &mut Rng) -> Faults {
        let mut some = |permille: u64, most: i64| {
            let drawn = if rng.chance(permille) { rng.range(1, most) } else { 0 };
            u64::try_from(drawn).unwrap_or(0)
        };
        Faults {
            lose: some(500, 150),
            double: some(500, 150),
            slow: some(400, 100),
            blind: some(500, 100),
            wander: some(500, 600),
            database_slow: some(400, 100),
            refused: some(300, 100),
            lost: some(500, 150),
            crash: some(300, 6),
            drift: rng.range(-10, 10) * i64::from(rng.chance(300)),
            poison: rng.chance(80),
            small_lanes: rng.chance(300),
        }
    }

    /// Makes it simpler.
    pub fn leave_out(&mut self, without: Without) {
        let rates = [
            ("lose", &mut self.lose),
            ("double", &mut self.double),
            ("slow", &mut self.slow),
            ("blind", &mut self.blind),
            ("wander", &mut self.wander),
            ("database_slow", &mut self.database_slow),
            ("refused", &mut self.refused),
            ("lost", &mut self.lost),
            ("crash", &mut self.crash),
        ];
        rates.into_iter().filter(|(name, _)| without.has(name)).for_each(|(_, rate)| *rate = 0);
        self.poison &= !without.has("poison");
        self.drift *= i64::from(!without.has("drift"));
    }

    /// How a work goes.
    pub fn outcome(&self, write: bool, rng: &mut Rng) -> Kind {
        if write && rng.chance(self.refused) {
            return Kind::Refused;
        }
        if !rng.chance(self.lost) {
            return Kind::Fine;
        }
        let late = (write && rng.chance(400)).then(|| rng.chance(700));
        Kind::Lost { applied: late.is_none() && rng.chance(500), late }
    }

    fn config(&self, rng: &mut Rng) -> Config {
        let clock_period = Duration::from_millis(*rng.pick(&[200, 1000, 1000, 1000]));
        if !self.small_lanes {
            return Config { clock_period, ..Config::default() };
        }
        Config {
            batch_commands: 1 + rng.below(6),
            ahead_commands: 1 + rng.below(4),
            writes_at_once: 1 + rng.below(4),
            batch_bytes: 200 + rng.below(1000),
            waiting_submits: 1 + rng.below(3),
            cached_runs: 1 + rng.below(3),
            clock_period,
            ..Config::default()
        }
    }
}

impl World {
    /// A server may crash after any effect. True if it did.
    pub fn maybe_crash(&mut self, server: usize) -> bool {
        let crashes = self.calm.is_none() && self.rng.chance(self.faults.crash);
        if crashes {
            self.crash(server);
        }
        crashes
    }

    pub fn crash(&mut self, server: usize) {
        if self.servers[server].lane.is_none() || self.calm.is_some() {
            return;
        }
        self.note(format_args!("server {server} crashes"));
        self.db.stats.hit(Hit::ServerCrash);
        let life = self.servers[server].life;
        let under_way: Vec<u64> = self
            .doing
            .iter()
            .filter(|(_, doing)| doing.server == server && doing.life == life && doing.done.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in under_way {
            self.db.stats.hit(Hit::CrashWithWork);
            if self.rng.chance(500) {
                self.doing.remove(&id);
            }
        }
        for caller in self.servers[server].crash() {
            if self.rng.chance(700) {
                self.respond(caller.actor, caller.life, caller.call.id, &Heard::Unavailable);
            }
        }
        let long = self.rng.chance(300);
        let down = if long { self.millis(5_000, 40_000) } else { self.millis(100, 3000) };
        self.after(down, Event::Restart(server));
    }

    pub fn restart(&mut self, server: usize) {
        if self.servers[server].lane.is_some() {
            return;
        }
        let replica = self.id();
        let mut config = self.faults.config(&mut self.rng);
        if self.calm.is_some() {
            config.clock_period = Duration::from_secs(1);
        }
        let drift = self.faults.drift;
        self.servers[server].start(replica, config, self.now, drift);
        self.note(format_args!("server {server} starts as replica {replica}"));
        self.drive(server);
    }

    pub fn freeze(&mut self, server: usize) {
        if self.calm.is_some() || self.servers[server].lane.is_none() {
            return;
        }
        self.db.stats.hit(Hit::ServerFreeze);
        let long = self.rng.chance(400);
        let span = if long { self.millis(5_000, 45_000) } else { self.millis(100, 4000) };
        self.note(format_args!("server {server} stands still for {span}"));
        self.servers[server].frozen_until = self.now + span;
    }

    pub fn crash_actor(&mut self, actor: usize) {
        if self.calm.is_some() {
            return;
        }
        self.db.stats.hit(Hit::ExecutorCrash);
        self.note(format_args!("executor {actor} crashes"));
        self.lose_actor(actor);
        let (queues, hazards) = (self.queues.clone(), self.hazards());
        let role = self.with_hands(actor, |hands| {
            Role::Executor(Box::new(crate::executor::Executor::new("again", queues, 2, hazards, hands)))
        });
        self.actors[actor].role = role;
    }

    /// The actor is gone, and its connections with it.
    pub fn lose_actor(&mut self, actor: usize) {
        let held = &mut self.actors[actor];
        held.life += 1;
        held.frozen_until = Timestamp::default();
        held.role = Role::Nobody;
        for server in 0..self.servers.len() {
            let life = self.servers[server].life;
            let callers = self.servers[server].callers.values().filter(|caller| caller.actor == actor);
            let calls: Vec<(u64, u32)> = callers.map(|caller| (caller.call.id, caller.sending)).collect();
            for (call, sending) in calls {
                if self.calm.is_some() || self.rng.chance(700) {
                    let delay = self.millis(1, 30);
                    self.after(delay, Event::Gone { server, life, call, sending });
                }
            }
        }
    }

    /// Nothing reaches the database for a while, and what is on its way is lost.
    pub fn cut(&mut self) {
        if self.calm.is_none() {
            self.db.stats.hit(Hit::DatabaseCut);
            let span = self.millis(1_000, 40_000);
            self.note(format_args!("the database is cut off for {span}"));
            self.cut_until = self.now + span;
        }
    }

    pub fn freeze_actor(&mut self, actor: usize) {
        if self.calm.is_some() {
            return;
        }
        self.db.stats.hit(Hit::ExecutorFreeze);
        let span = self.millis(1_000, 50_000);
        self.note(format_args!("executor {actor} stands still for {span}"));
        self.actors[actor].frozen_until = self.now + span;
    }

    pub fn drain(&mut self, actor: usize) {
        let mut role = std::mem::replace(&mut self.actors[actor].role, Role::Nobody);
        if let (Role::Executor(executor), None) = (&mut role, self.calm) {
            self.db.stats.hit(Hit::Drain);
            self.with_hands(actor, |hands| executor.drain(hands));
        }
        self.actors[actor].role = role;
        let pause = self.millis(1000, 9000);
        self.after(pause, Event::ActorCrash(actor));
    }
}
