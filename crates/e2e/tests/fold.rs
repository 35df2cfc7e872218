//! What the real lane makes of commands is what the engine alone makes of them.
//!
//! The lane runs against a real PostgreSQL, with several writes under way, and other runs' commands in every batch. Beside it each
//! run is followed by the engine alone: after each call, what was stored must be what the engine decides at the stored times, and
//! the caller must have been told what the engine answers. Only timers may have fired in between, and only those that were due. In the
//! end every row is what the run says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use longtake_e2e::{Database, World, definitions, eventually};
use longtake_engine::command::{
    Answer, Command, Deadline, Lease, NewCheckpoint, Operation, Refusal, Report, Timer,
};
use longtake_engine::decide::apply;
use longtake_engine::definition::Workflow;
use longtake_engine::ids::{LeaseToken, RequestId, RunId, SessionId, StepNo};
use longtake_engine::lane::work::{HotRow, Load};
use longtake_engine::lane::{Asked, Failure, Poll};
use longtake_engine::money::Money;
use longtake_engine::rows::Rows;
use longtake_engine::run::{CheckpointData, NewRun, Outcome, Output, Run, RunState, StepError, StepState};
use longtake_engine::time::{Duration, Timestamp};
use longtake_orchestrator::clock::Clock;
use longtake_orchestrator::codec::{self, decode_events, encode_events};
use longtake_orchestrator::lane::{self, Hubs, LaneHandle};
use longtake_orchestrator::stored::read_runs;
use longtake_orchestrator::workflows::Workflows;
use longtake_proto::v1 as pb;
use longtake_store::{Reads, Store};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use sqlx::Row as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Runs that go on at the same time, and calls for each.
const RUNS: u64 = 16;
const CALLS: usize = 80;
/// So many kinds of events must have happened.
const KINDS: usize = 15;

/// Each run has a queue to itself, so that its own poll takes its steps.
fn definition(number: u64) -> String {
    format!(
        r#"
format = 1
name = "fork{number}"

[[step]]
name = "left"
queue = "fork{number}"
price_usd = "0.10"
retry = {{ initial_delay = "5ms", max_delay = "20ms" }}
budgets = {{ failures = 3, losses = 3, yields = 4 }}

[[step]]
name = "right"
queue = "fork{number}"
step_timeout = "1h"
retry = {{ initial_delay = "5ms", max_delay = "20ms" }}
on_exhausted = "pause"
budgets = {{ failures = 2, losses = 3, yields = 4 }}

[[step]]
name = "join"
queue = "fork{number}"
needs = ["left", "right"]
when = "steps.left.output.wanted"
"#
    )
}

/// The lane and what is stored.
#[derive(Clone)]
struct Here {
    lane: LaneHandle,
    reads: Reads,
    workflows: Workflows,
}

/// One run, followed by the engine alone.
struct Followed {
    here: Here,
    workflow: Arc<Workflow>,
    request: Arc<NewRun>,
    run: Option<Run>,
    session: SessionId,
    tokens: BTreeMap<StepNo, LeaseToken>,
    last: Vec<Command>,
    dice: StdRng,
}

impl Followed {
    fn new(here: Here, workflow: Arc<Workflow>, seed: u64) -> Followed {
        let id = RunId(Uuid::new_v4());
        let request = NewRun {
            id,
            tenant: "default".to_owned(),
            version: workflow.version,
            input: Arc::new(json!({"topic": "light"})),
            requested: Vec::new(),
            labels: [("seed".to_owned(), seed.to_string())].into(),
            priority: 1,
            deadline: None,
            content_hash: [7; 32],
            trace: BTreeMap::new(),
            when: BTreeMap::new(),
        };
        Followed {
            here,
            workflow,
            request: Arc::new(request),
            run: None,
            session: SessionId(Uuid::new_v4()),
            tokens: BTreeMap::new(),
            last: Vec::new(),
            dice: StdRng::seed_from_u64(seed),
        }
    }

    fn id(&self) -> RunId {
        self.request.id
    }

    async fn live(mut self) -> Followed {
        self.ask(vec![Command::Create(self.request.clone())]).await;
        for _ in 0..CALLS {
            let ready = self.run.as_ref().is_some_and(|run| !Rows::of(run).ready.is_empty());
            if ready && self.dice.random_ratio(2, 3) {
                self.poll().await;
                continue;
            }
            let commands = match self.dice.random_range(0..10) {
                // A caller that has heard nothing asks again.
                0 => self.last.clone(),
                1..3 => vec![self.command(), self.command()],
                _ => vec![self.command()],
            };
            self.ask(commands).await;
        }
        self
    }

    async fn ask(&mut self, commands: Vec<Command>) {
        let asked = commands.iter().map(|command| Asked {
            run: self.id(),
            workflow: matches!(command, Command::Create(_)).then(|| self.workflow.clone()),
            command: command.clone(),
        });
        let reply = self.here.lane.command(asked.collect(), None).await.expect("the lane answers");
        let mut rest = self.stored().await;
        assert_eq!(reply.answers.len(), commands.len());
        for (command, answer) in commands.iter().zip(reply.answers) {
            while !self.follow(command, &mut rest, |expected| told(expected) == answer) {
                assert!(
                    self.fire(&mut rest),
                    "{command:?} was answered {answer:?}; {}",
                    self.unexplained(&rest)
                );
            }
        }
        self.only_timers(rest);
        self.last = commands;
    }

    async fn poll(&mut self) {
        let name = &self.workflow.steps[0].queue;
        let poll = Poll {
            session: self.session,
            executor: "test".into(),
            queues: vec![name.as_str().into()],
            max_steps: self.dice.random_range(1..3),
            request: Some(RequestId(Uuid::new_v4())),
            park: false,
        };
        let never = CancellationToken::new();
        let reply =
            self.here.lane.poll(poll, StdDuration::from_secs(1), &never).await.expect("the lane answers");
        let mut rest = self.stored().await;
        for grant in reply.grants {
            let token = grant.token;
            let (step, secret) = (token.step(), token.secret);
            let command = Command::Dispatch { step, secret, session: self.session, executor: "test".into() };
            let leased =
                |answer: &Result<Answer, Refusal>| *answer == Ok(Answer::Leased { attempt: token.attempt });
            while !self.follow(&command, &mut rest, leased) {
                assert!(self.fire(&mut rest), "{token} was granted; {}", self.unexplained(&rest));
            }
            self.tokens.insert(step, token);
        }
        self.only_timers(rest);
    }

    /// What was stored since.
    async fn stored(&self) -> Vec<pb::Event> {
        let after = self.run.as_ref().map_or(0, |run| run.last_event);
        let rows = self.here.reads.events(self.id(), after, 1000).await.expect("the database answers");
        let rows = rows.unwrap_or_default();
        let events = rows.iter().flat_map(|bytes| decode_events(bytes).expect("what is stored can be read"));
        events.filter(|event| event.number > after).collect()
    }

    /// Whether what is stored begins with what the engine decides on this command; then the run has it behind it.
    fn follow(
        &mut self,
        command: &Command,
        stored: &mut Vec<pb::Event>,
        is_answer: impl Fn(&Result<Answer, Refusal>) -> bool,
    ) -> bool {
        let at = stored.first().map_or_else(|| self.now(), |event| self.time(event));
        let mut run = self.run.clone();
        let decision = apply(&self.workflow, self.id(), &mut run, command, at);
        let attempts = run.as_ref().map(|run| HotRow::of(run).attempts).unwrap_or_default();
        let encoded = encode_events(&self.workflow, &attempts, &decision.events);
        let expected = decode_events(&encoded).expect("what was encoded can be read");
        let holds = stored.starts_with(&expected) && is_answer(&decision.answer);
        if holds {
            stored.drain(..expected.len());
            self.run = run;
        }
        holds
    }

    /// Whether a timer that was due explains what comes next.
    fn fire(&mut self, stored: &mut Vec<pb::Event>) -> bool {
        let (Some(first), Some(run)) = (stored.first(), &self.run) else { return false };
        let at = self.time(first);
        let timers = Rows::of(run).timers;
        let due = timers.into_iter().filter(|(_, due)| *due <= at);
        let due: Vec<_> = due.map(|(timer, _)| timer).collect();
        let before = stored.len();
        due.into_iter()
            .any(|timer| self.follow(&Command::Fire(timer), stored, Result::is_ok) && stored.len() < before)
    }

    fn only_timers(&mut self, mut rest: Vec<pb::Event>) {
        while !rest.is_empty() {
            assert!(self.fire(&mut rest), "{}", self.unexplained(&rest));
        }
    }

    /// Follows what still fires by itself: backoffs, which are short.
    async fn settle(&mut self) {
        eventually(StdDuration::from_secs(5), async || {
            let rest = self.stored().await;
            self.only_timers(rest);
            let timers = self.run.as_ref().map(|run| Rows::of(run).timers).unwrap_or_default();
            let backoff = timers.keys().find(|timer| matches!(timer, Timer::Backoff(_)));
            backoff.map_or(Ok(()), |backoff| Err(format!("{backoff:?}")))
        })
        .await;
    }

    fn unexplained(&self, rest: &[pb::Event]) -> String {
        format!("not explained: {rest:#?}\nof {:#?}", self.run)
    }

    fn time(&self, event: &pb::Event) -> Timestamp {
        codec::fold::event(&self.workflow, event.clone()).expect("what is stored can be read").at
    }

    fn now(&self) -> Timestamp {
        self.run.as_ref().map_or(Timestamp(0), |run| run.updated_at)
    }

    /// Something that may be asked of the run as it is, or was.
    fn command(&mut self) -> Command {
        let reason = "a test".to_owned();
        let operation = match self.dice.random_range(0..40) {
            0 => Operation::Cancel { reason },
            1 | 2 => Operation::Pause { reason },
            3 | 4 => Operation::Resume,
            5 => Operation::Retry { deadline: None },
            6 => Operation::ExtendDeadline {
                which: self.deadline(),
                to: self.now() + hours(self.dice.random_range(1..9)),
            },
            7 => return Command::Create(self.request.clone()),
            8 => {
                let other = NewRun { content_hash: [8; 32], ..NewRun::clone(&self.request) };
                return Command::Create(Arc::new(other));
            }
            _ => match self.report() {
                Some(report) => return report,
                None => match self.run.as_ref().map(|run| run.state) {
                    Some(RunState::Ended(Outcome::Succeeded)) | None => Operation::Resume,
                    Some(RunState::Ended(_)) => Operation::Retry { deadline: Some(self.now() + hours(5)) },
                    Some(_) => Operation::Resume,
                },
            },
        };
        Command::Operate { call: RequestId(Uuid::new_v4()), operation }
    }

    fn deadline(&mut self) -> Deadline {
        match self.dice.random_range(0..3) {
            0 => Deadline::Run,
            1 => Deadline::Step(1),
            _ => Deadline::Attempt(self.dice.random_range(0..3)),
        }
    }

    /// A report under a lease that is live, or was.
    fn report(&mut self) -> Option<Command> {
        let steps = &self.run.as_ref()?.steps;
        let live = |step: &StepNo| matches!(steps[*step].state, StepState::Leased | StepState::Running);
        let held: Vec<StepNo> = self.tokens.keys().copied().filter(live).collect();
        let stale = held.is_empty() || self.dice.random_ratio(1, 10);
        let among: Vec<StepNo> = if stale { self.tokens.keys().copied().collect() } else { held };
        let step = *among.get(self.dice.random_range(0..among.len().max(1)))?;
        let token = self.tokens[&step];
        let last = steps[step].checkpoint.as_ref().filter(|last| last.attempt == token.attempt);
        let last = last.map_or(0, |last| last.sequence);
        let checkpoint = self.dice.random_bool(0.5).then(|| NewCheckpoint {
            sequence: last + self.dice.random_range(0..3),
            done: self.dice.random_range(0..100),
            total: 100,
            data: Arc::new(CheckpointData { data: json!({"at": last}), artifacts: Vec::new() }),
        });
        let jitter = self.dice.random();
        let cost = self.dice.random_bool(0.5).then(|| Money(self.dice.random_range(0..1_000_000)));
        let report = match self.dice.random_range(0..8) {
            0 => {
                let retryable = self.dice.random_bool(0.8);
                let (code, message) = ("TEST".to_owned(), "it was to fail".to_owned());
                let error = StepError { code, message, retryable, details: Value::Null };
                Report::Fail { error, retry_after: None, checkpoint, cost, jitter }
            }
            1 => Report::Yield { reason: "it was to yield".to_owned(), checkpoint, cost, jitter },
            2 | 3 => {
                let data = Arc::new(json!({"wanted": self.dice.random_bool(0.7)}));
                Report::Complete { output: Output { data, artifacts: Arc::new([]) }, cost }
            }
            _ => Report::Heartbeat { checkpoint },
        };
        Some(Command::Report { lease: Lease::from(&token), report })
    }
}

/// What a caller is told when the engine answers so.
fn told(answer: &Result<Answer, Refusal>) -> Result<Answer, Failure> {
    answer.clone().map_err(Failure::Refused)
}

fn hours(hours: i64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// Everything that is stored of a run is what the run says.
async fn compare(database: &Database, store: &Store, followed: &Followed) {
    let run = followed.run.as_ref().expect("it exists");
    let Here { reads, workflows, .. } = &followed.here;
    let mut read = read_runs(reads, workflows, &[followed.id()]).await.expect("it can be read");
    assert_eq!(read.pop().map(|read| read.run).as_ref(), Some(run));
    let mut lane = store.lane(Uuid::new_v4(), 1).await.pop().expect("a connection");
    let load = Load { runs: [(followed.id(), false)].into(), ready: BTreeMap::new() };
    let rows = lane.load(&load).await.expect("it can be read").runs.pop().expect("it exists");
    assert_eq!(rows.row, HotRow::of(run));
    let asked = Rows::of(run);
    let mut connection = database.connect().await;
    let sql = "select step::int8 from ready where run_no = $1 order by 1";
    let ready = sqlx::query(sql).bind(rows.no.0).fetch_all(&mut connection).await.expect("rows");
    let ready: Vec<i64> = ready.iter().map(|row| row.get(0)).collect();
    assert_eq!(ready, asked.ready.keys().map(|step| *step as i64).collect::<Vec<_>>());
    let sql = "select (extract(epoch from due) * 1000000)::int8 from timer where run_no = $1 order by 1";
    let timers = sqlx::query(sql).bind(rows.no.0).fetch_all(&mut connection).await.expect("rows");
    let timers: Vec<i64> = timers.iter().map(|row| row.get(0)).collect();
    let mut due: Vec<i64> = asked.timers.values().map(|due| due.0).collect();
    due.sort_unstable();
    assert_eq!(timers, due);
    let sql = "select count(*) from open_run where run_no = $1";
    let open: i64 =
        sqlx::query_scalar(sql).bind(rows.no.0).fetch_one(&mut connection).await.expect("a count");
    assert_eq!(open == 1, !run.is_terminal());
}

#[tokio::test]
async fn the_lane_makes_of_commands_what_the_engine_makes_of_them() {
    let world = World::new().await;
    let files: Vec<(String, String)> =
        (0..RUNS).map(|number| (format!("fork{number}"), definition(number))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let folder = definitions(world.folder("definitions"), &files);
    let store = Store::connect(world.database().url(), 4).await.expect("the database answers");
    store.migrate().await.expect("the schema is made");
    let replica = Uuid::new_v4();
    let now = store.begin_service(replica, false).await.expect("service begins");
    let reads = store.reads();
    let workflows = Workflows::new(reads.clone());
    workflows.load(&folder).await.expect("the definitions are stored");
    let config =
        longtake_engine::lane::Config { batch_commands: 12, ahead_commands: 2, ..Default::default() };
    let connections = store.lane(replica, config.writes_at_once).await;
    let clock = Arc::new(Clock::new(now));
    let (lane, driver) = lane::lane(config, connections, &workflows, clock, Hubs::default());
    let driving = tokio::spawn(driver.run(CancellationToken::new()));
    let here = Here { lane, reads, workflows };
    let mut living = tokio::task::JoinSet::new();
    for seed in 0..RUNS {
        let workflow = here.workflows.current(&format!("fork{seed}")).expect("it is loaded");
        living.spawn(Followed::new(here.clone(), workflow, seed).live());
    }
    drop(here);
    let mut seen = BTreeMap::new();
    for mut one in living.join_all().await {
        one.settle().await;
        compare(world.database(), &store, &one).await;
        for bytes in one.here.reads.events(one.id(), 0, 10_000).await.expect("events").unwrap_or_default() {
            for event in decode_events(&bytes).expect("what is stored can be read") {
                let kind = format!("{:?}", event.kind.expect("a kind"));
                *seen.entry(kind[..kind.find('(').unwrap_or(kind.len())].to_owned()).or_insert(0) += 1;
            }
        }
    }
    assert!(seen.len() >= KINDS, "too little happened: {seen:?}");
    driving.await.expect("the driver ends when nobody holds the lane");
}
