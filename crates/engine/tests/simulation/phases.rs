//! The course of a seed: everybody begins, faults strike, they stop, every run ends, and then nothing is left.

use std::collections::BTreeSet;
use std::sync::Arc;

use longtake_engine::event::EventKind;
use longtake_engine::run::{Cause, RunState};
use longtake_engine::time::{Duration, Timestamp};

use crate::call::Body;
use crate::client::{Client, Liar, operation, resume, submit};
use crate::db::fold;
use crate::executor::{Executor, Hazards};
use crate::server::Server;
use crate::workflows;
use crate::world::{DAWN, Event, Role, World};

/// Within what time of calm every run has ended.
const ENDS_WITHIN: Duration = Duration::from_secs(15 * 60);
/// Then nobody asks for anything for so long.
const IDLE: Duration = Duration::from_secs(150);
/// Works of an idle server in a minute: twelve or thirteen rounds of housekeeping, a few for what is left over, and the heads of queues
/// on which polls came again while another server is there.
const IDLE_WORKS: u64 = 20;

impl World {
    /// Puts everybody in place.
    pub fn begin_all(&mut self) {
        let servers = 1 + self.rng.below(3);
        for _ in 0..if self.without.has("servers") { 1 } else { servers } {
            let rng = self.rng.split();
            self.servers.push(Server::new(rng));
        }
        for server in 0..self.servers.len() {
            self.after(Duration::ZERO, Event::Restart(server));
        }
        let chaos = Duration::from_secs(self.rng.range(5, 45));
        self.hire_clients(chaos);
        self.hire_executors(chaos);
        let half = Duration(chaos.0 / 2);
        let struck = if self.without.has("freezes") { 0 } else { self.servers.len() };
        for server in 0..struck {
            if self.rng.chance(250) {
                let at = self.rng.range(0, chaos.0);
                self.after(Duration(at), Event::Freeze(server));
            }
            if self.rng.chance(250) {
                let at = self.rng.range(0, chaos.0);
                self.after(Duration(at), Event::Crash(server));
            }
        }
        if self.rng.chance(120) && !self.without.has("cuts") {
            let at = self.rng.range(0, chaos.0);
            self.after(Duration(at), Event::Cut);
        }
        if self.faults.poison {
            let run = *self.rng.pick(&self.runs);
            self.after(Duration(half.0 / 2), Event::Poison(Some(run)));
            self.after(half, Event::Poison(None));
        }
        self.after(chaos, Event::Calm);
    }

    fn hire_clients(&mut self, chaos: Duration) {
        let mut queues = BTreeSet::new();
        let mut requests = Vec::new();
        let runs = 1 + self.rng.below(5);
        for _ in 0..if self.without.has("runs") { 1 } else { runs } {
            let workflow = self.rng.pick(workflows::pool()).clone();
            queues.extend(workflow.steps.iter().map(|step| step.queue.clone()));
            let id = self.rng.run();
            self.runs.push(id);
            let request = workflows::request(id, &workflow, DAWN, &mut self.rng);
            requests.push((Arc::new(request), workflow));
        }
        self.queues = queues.into_iter().map(Arc::from).collect();
        let client = self.enlist(|_| Role::Client(Client::default()));
        let span = |rng: &mut crate::rng::Rng| Duration(rng.range(0, chaos.0));
        let mut plan = Vec::new();
        for (request, workflow) in &requests {
            let soon = Duration(self.rng.range(0, chaos.0 / 2));
            plan.push((soon, Body::Submit(vec![submit(request, workflow)])));
            if self.rng.chance(200) {
                plan.push((span(&mut self.rng), Body::Submit(vec![submit(request, workflow)])));
            }
            if self.rng.chance(100) {
                let other = Arc::new(longtake_engine::run::NewRun {
                    content_hash: self.rng.hash(),
                    ..(**request).clone()
                });
                plan.push((span(&mut self.rng) + chaos, Body::Submit(vec![submit(&other, workflow)])));
            }
        }
        if requests.len() > 2 && self.rng.chance(300) {
            let all = requests.iter().map(|(request, workflow)| submit(request, workflow)).collect();
            plan.push((Duration(self.rng.range(0, chaos.0 / 4)), Body::Submit(all)));
        }
        for _ in 0..self.rng.below(8) {
            let (at, number) = (span(&mut self.rng), self.rng.below(requests.len()));
            let (request, workflow) = &requests[number];
            let stranger = self.rng.chance(30).then(|| self.rng.run());
            let (run, steps) = (stranger.unwrap_or(request.id), workflow.steps.len());
            let asked = self.with_hands(client, |hands| operation(run, steps, hands));
            plan.push((at, Body::Operate(asked)));
        }
        self.instruct(client, |client, hands| {
            for (at, body) in plan {
                client.plan(at, body, hands);
            }
        });
    }

    fn instruct(&mut self, client: usize, what: impl FnOnce(&mut Client, &mut crate::call::Hands<'_>)) {
        let mut role = std::mem::replace(&mut self.actors[client].role, Role::Nobody);
        if let Role::Client(client_role) = &mut role {
            self.with_hands(client, |hands| what(client_role, hands));
        }
        self.actors[client].role = role;
    }

    /// What may be wrong with an executor.
    pub fn hazards(&mut self) -> Hazards {
        let rng = &mut self.rng;
        let mut some = |permille: u64, most: i64| {
            if rng.chance(permille) { u64::try_from(rng.range(1, most)).unwrap_or(0) } else { 0 }
        };
        Hazards {
            fail: some(500, 400),
            fatal: some(200, 300),
            give_back: some(300, 200),
            stall: some(200, 400),
            forget: some(150, 300),
            lazy: some(200, 500),
            zombie: self.rng.chance(200),
        }
    }

    fn hire_executors(&mut self, chaos: Duration) {
        for number in 0..1 + self.rng.below(3) {
            let queues: Vec<Arc<str>> =
                self.queues.iter().filter(|_| self.rng.chance(700)).cloned().collect();
            let queues = if queues.is_empty() { self.queues.clone() } else { queues };
            let (slots, hazards) = (1 + self.rng.below(3), self.hazards());
            let name = format!("executor-{number}");
            let actor = self.enlist(|hands| {
                Role::Executor(Box::new(Executor::new(&name, queues, slots, hazards, hands)))
            });
            let fates = [Event::ActorCrash as fn(usize) -> Event, Event::ActorFreeze, Event::Drain];
            for fate in fates {
                if self.rng.chance(250) {
                    let at = self.rng.range(0, chaos.0);
                    self.after(Duration(at), fate(actor));
                }
            }
        }
        if self.rng.chance(300) {
            let queues = self.queues.clone();
            self.enlist(|hands| Role::Liar(Liar::new(queues, hands)));
        }
    }

    /// Faults stop: servers are up, executors are honest, messages arrive.
    pub fn becalm(&mut self) {
        let actors = self.actors.iter().map(|actor| actor.frozen_until);
        let servers = self.servers.iter().map(|server| server.frozen_until);
        let thaw = servers.chain(actors).max().unwrap_or_default().max(self.cut_until);
        if thaw > self.now {
            return self.at(thaw, Event::Calm);
        }
        self.note(format_args!("calm"));
        self.calm = Some(self.now);
        self.db.poison = None;
        for server in 0..self.servers.len() {
            self.restart(server);
        }
        for actor in 0..self.actors.len() {
            let mut role = std::mem::replace(&mut self.actors[actor].role, Role::Nobody);
            match &mut role {
                Role::Executor(_) if self.rng.chance(500) => self.lose_actor(actor),
                Role::Executor(executor) => {
                    self.with_hands(actor, |hands| executor.reform(hands));
                    self.actors[actor].role = role;
                }
                Role::Client(_) | Role::Liar(_) | Role::Nobody => self.actors[actor].role = role,
            }
        }
        for number in 0..2 {
            let (queues, name) = (self.queues.clone(), format!("honest-{number}"));
            self.enlist(|hands| {
                Role::Executor(Box::new(Executor::new(&name, queues, 4, Hazards::default(), hands)))
            });
        }
        self.after(Duration::from_secs(1), Event::Look);
    }

    /// Looks around while it is calm.
    pub fn look(&mut self) {
        let calm = self.calm.expect("calm");
        let waited = self.now.since(calm);
        self.check_callers();
        self.check_ready(calm);
        let open = self.db.runs.values().any(|row| !row.run.is_terminal());
        if open {
            assert!(waited < ENDS_WITHIN, "a run does not end: {}", self.open_runs());
            if waited.0 / 1_000_000 % 5 == 0 {
                self.resume_paused();
            }
        }
        let submitted = self.runs.iter().all(|run| self.db.runs.contains_key(run));
        match self.ended_at {
            None if !open && submitted && waited > Duration::from_secs(60) => self.ended_at = Some(self.now),
            Some(_) if open => self.ended_at = None,
            Some(ended) => self.look_at_idle(ended),
            None => {}
        }
        if !self.over {
            self.after(Duration::from_secs(1), Event::Look);
        }
    }

    fn open_runs(&self) -> String {
        let open = self.db.runs.iter().filter(|(_, row)| !row.run.is_terminal());
        let shown = open.map(|(id, row)| {
            let steps: Vec<_> = row.run.steps.iter().map(|step| step.state).collect();
            let held: Vec<_> = row
                .hot
                .sessions
                .iter()
                .flatten()
                .map(|id| {
                    (
                        *id,
                        self.db
                            .sessions
                            .get(id)
                            .map(|row| (row.until.since(self.now), row.ended, row.replica)),
                    )
                })
                .collect();
            format!("{id} {:?} {steps:?} {held:?}", row.run.state)
        });
        shown.collect::<Vec<_>>().join("; ")
    }

    fn resume_paused(&mut self) {
        let paused = self.db.runs.iter().filter(|(_, row)| row.run.state == RunState::Paused);
        let paused: Vec<_> = paused.map(|(id, _)| *id).collect();
        for run in paused {
            let asked = resume(run, &mut self.rng);
            self.instruct(0, |client, hands| client.ask(Body::Operate(asked), hands));
        }
    }

    /// Every call is answered soon, but for polls, which are answered when their time is up.
    fn check_callers(&self) {
        for (number, server) in self.servers.iter().enumerate() {
            for (ticket, caller) in &server.callers {
                let wait = match &caller.call.body {
                    Body::Poll(_, wait) | Body::Beat(_, wait) => *wait,
                    Body::Submit(_) | Body::Operate(_) | Body::Report(..) => Duration::ZERO,
                };
                let since = self.now.since(caller.arrived.max(self.calm.unwrap_or_default()));
                let within = wait + Duration::from_secs(15);
                assert!(
                    since < within,
                    "server {number} does not answer {ticket:?}, call {}",
                    caller.call.id
                );
            }
        }
    }

    /// No step waits for long while a poll waits for it, unless the database refused to store its run.
    fn check_ready(&self, calm: Timestamp) {
        // A single server knows what it made ready itself; of what others did, housekeeping learns: also of what was still on its
        // way from the process before, when that died.
        let sole = match &self.servers[..] {
            [server] => Some(server.replica),
            _ => None,
        };
        for (id, row) in &self.db.runs {
            if self.db.refused.get(id).is_some_and(|at| self.now.since(*at) < Duration::from_secs(130)) {
                continue;
            }
            let changed = row.history.last().map_or(calm, |(at, _)| *at);
            let patience = Duration::from_secs(if sole == Some(row.by) { 3 } else { 8 });
            for step in row.ready.keys() {
                let queue = &row.workflow.steps[*step].queue;
                let long = |since: Timestamp| self.now.since(since.max(calm)) > patience;
                let polls = self.servers.iter().flat_map(|server| server.callers.values()).filter(|caller| {
                    matches!(&caller.call.body, Body::Poll(poll, _) if poll.queues.iter().any(|name| **name == **queue))
                });
                let waits = polls.filter(|caller| !caller.gone && long(caller.arrived)).count();
                assert!(
                    waits == 0 || !long(changed),
                    "step {step} of {id} is ready since {changed:?}, and a poll waits"
                );
            }
        }
    }

    fn look_at_idle(&mut self, ended: Timestamp) {
        let works: u64 = self.servers.iter().map(|server| server.works).sum();
        let idle = self.now.since(ended);
        let minute = Duration::from_secs(60);
        if idle + minute >= IDLE && self.works_then.is_none() {
            self.works_then = Some((self.now, works));
        }
        if idle < IDLE {
            return;
        }
        let (_, before) = self.works_then.expect("a minute before");
        let most = IDLE_WORKS * self.servers.len() as u64;
        assert!(works - before <= most, "idle servers did {} works in a minute", works - before);
        self.check_left_over();
        self.over = true;
    }

    /// Nothing is left of runs that have ended and of executors that only wait.
    fn check_left_over(&self) {
        assert!(self.doing.len() <= self.servers.len(), "work is left over");
        for row in self.db.runs.values() {
            assert!(row.ready.is_empty() && row.timers.is_empty(), "ready rows or timers are left over");
            let again = fold(&row.events).expect("a run");
            assert_eq!(*row.run, again, "the state is not the fold of the events");
        }
        assert!(self.db.sessions.is_empty(), "sessions are left over");
        let live = self.executors().count();
        for (number, server) in self.servers.iter().enumerate() {
            let counts = server.lane.as_ref().expect("a server that is up").counts();
            let left = counts.commands + counts.leases + counts.timers;
            assert_eq!(left, 0, "server {number} holds {counts:?}");
            assert!(
                counts.calls <= live && counts.polls == counts.calls && counts.sessions <= live,
                "{counts:?}"
            );
            assert_eq!(counts.calls, server.callers.len(), "server {number} holds {counts:?}");
        }
        self.check_spurious();
        self.ledger.check_end(&self.db);
    }

    /// While it was calm, no executor lost what it had been given then.
    fn check_spurious(&self) {
        let settled = self.calm.expect("calm") + Duration::from_secs(30);
        for (id, row) in &self.db.runs {
            for (number, step) in row.run.steps.iter().enumerate() {
                for attempt in step.attempts.iter().filter(|attempt| attempt.leased_at > settled) {
                    let Some(end) = &attempt.end else { continue };
                    let lost =
                        matches!(end.cause, Cause::LeaseLost | Cause::DispatchTimeout | Cause::NoProgress);
                    assert!(
                        !lost,
                        "step {number} of {id} lost its lease of {:?} for nothing: {:?}",
                        attempt.leased_at, end
                    );
                }
            }
            let created =
                row.events.iter().filter(|event| matches!(event.kind, EventKind::RunCreated { .. }));
            assert_eq!(created.count(), 1);
        }
    }
}
