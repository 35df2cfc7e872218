//! More is submitted than can be done, for as long as it lasts.

use std::collections::VecDeque;
use std::sync::Arc;

use longtake_engine::command::{Command, Lease, Report};
use longtake_engine::ids::SessionId;
use longtake_engine::lane::work::{Committed, Work};
use longtake_engine::lane::{Ask, Asked, Config, Grant, Lane, Poll, Ticket};
use longtake_engine::time::{Duration, Timestamp};

use crate::db::{Applied, Db};
use crate::rng::Rng;
use crate::{client, workflows, world};

/// Executors, each with one call of so many steps under way.
const EXECUTORS: u64 = 4;
const STEPS: usize = 100;
/// How many works it takes an executor to do its steps.
const BUSY: usize = 3;

struct Overloaded {
    lane: Lane,
    db: Db,
    rng: Rng,
    now: Timestamp,
    submitted: u64,
    /// Leases that were granted, and after how many works they are reported.
    working: VecDeque<(usize, u64, Vec<Grant>)>,
}

impl Overloaded {
    /// Everything that executors do not say.
    const SUBMIT: Ticket = Ticket(1 << 32);

    fn submit(&mut self) {
        let pool = workflows::pool();
        let workflow = pool.iter().find(|workflow| workflow.name == "content").expect("it is shipped");
        while self.lane.waiting_submits() < 2_000 {
            self.submitted += 1;
            let mut request = workflows::request(self.rng.run(), workflow, self.now, &mut self.rng);
            request.deadline = None;
            let commands = vec![client::submit(&Arc::new(request), workflow)];
            let ticket = Ticket(Self::SUBMIT.0 + self.submitted);
            self.lane.ask(Ask { ticket, commands, sheddable: true, beat: None, poll: None }, self.now);
        }
    }

    /// An executor completes what it has, and asks for more.
    fn call(&mut self, executor: u64, leases: &[Grant]) {
        let commands = leases.iter().map(|grant| {
            let output = workflows::output(&grant.workflow, grant.token.step(), executor, &mut self.rng);
            let report = Report::Complete { output, cost: None };
            let command = Command::Report { lease: Lease::from(&grant.token), report };
            Asked { run: grant.token.run, workflow: None, command }
        });
        let commands = commands.collect();
        let queues = ["audio", "finalize", "script", "video"].map(Arc::from).to_vec();
        let session = SessionId(uuid::Uuid::from_u64_pair(executor, 1));
        let poll =
            Some(Poll { session, executor: "e".into(), queues, max_steps: STEPS, request: None, park: true });
        self.lane
            .ask(Ask { ticket: Ticket(executor), commands, sheddable: false, beat: None, poll }, self.now);
    }

    /// One work, and what follows from it.
    fn turn(&mut self) {
        self.now = self.now + Duration::from_millis(10);
        self.submit();
        while self.working.front().is_some_and(|(left, ..)| *left == 0) {
            let (_, executor, leases) = self.working.pop_front().expect("there is one");
            self.call(executor, &leases);
        }
        self.working.iter_mut().for_each(|(left, ..)| *left -= 1);
        match self.lane.next(self.now, &mut || self.rng.next()).expect("there is always something to do") {
            Work::Load(load) => {
                let loaded = self.db.load(&load, self.now);
                self.lane.loaded(&load, loaded, self.now);
            }
            Work::Write(write) => {
                let Applied { written, sessions } = self.db.write(&write, 1, self.now);
                let done = Committed::Done { written, sessions };
                self.lane.committed(write.number, done, self.now, &mut || self.rng.next());
            }
            Work::Housekeep(round) => {
                let found = self.db.housekeep(&round, 1, self.now);
                self.lane.found(found);
            }
            Work::EndSessions(_) | Work::ForgetSessions(_) => panic!("nobody's time is up"),
        }
        for reply in self.lane.replies() {
            if reply.ticket.0 < Self::SUBMIT.0 {
                self.working.push_back((BUSY, reply.ticket.0, reply.grants));
            }
        }
    }

    fn ended(&self) -> usize {
        self.db.runs.values().filter(|row| row.run.is_terminal()).count()
    }
}

/// What was begun is brought to its end before more is begun: the runs under way do not grow with what is offered.
#[test]
fn runs_do_not_pile_up_while_more_is_submitted_than_can_be_done() {
    let mut world = Overloaded {
        lane: Lane::new(Config::default()),
        db: Db::new(false),
        rng: Rng::new(1),
        now: world::DAWN,
        submitted: 0,
        working: VecDeque::new(),
    };
    (0..EXECUTORS).for_each(|executor| world.call(executor, &[]));
    (0..600).for_each(|_| world.turn());
    let (begun, ended) = (world.db.runs.len(), world.ended());
    assert!(ended > 2_000, "{ended} of {begun} runs have ended");
    assert!(begun - ended < 3 * STEPS * 4, "{} runs are under way, {ended} have ended", begun - ended);
}
