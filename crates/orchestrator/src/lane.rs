//! Drives the engine's lane against Postgres: takes calls in, does the lane's works, hands replies out.
//!
//! The driver is a task of its own: a caller that goes away cancels its wait, never a statement under way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration as StdDuration, Instant};

use longtake_engine::ids::{LeaseToken, RunId, SessionId};
use longtake_engine::lane::work::{Committed, Found, Load, Loaded, Over, Work};
use longtake_engine::lane::{Ask, Asked, Beat, Config, Failure, Inspection, Lane, Poll, Reply, Ticket};
use longtake_engine::time::{Duration, Timestamp};
use longtake_store::LaneConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::errors::{Refused, stopping};
use crate::hub::Hub;
use crate::stored;
use crate::workflows::Workflows;

/// Calls that may wait for the driver to take them in.
const WAITING_CALLS: usize = 16_384;
/// How long the driver waits before it tries again what the database refused.
const BREATH: StdDuration = StdDuration::from_millis(50);

enum Message {
    Ask(Ask, oneshot::Sender<Reply>),
    EndPoll { ticket: Ticket, gone: bool },
    HandBack(Vec<LeaseToken>),
    Inspect { run: RunId, queues: Vec<Arc<str>>, answer: oneshot::Sender<Inspection> },
}

/// What callers hold.
#[derive(Clone)]
pub struct LaneHandle {
    messages: mpsc::Sender<Message>,
    tickets: Arc<AtomicU64>,
    queue: Arc<Queue>,
}

/// Submits that wait in the lane, as of its last turn, and the bounds.
struct Queue {
    waiting: AtomicUsize,
    bounds: Config,
}

/// Tells the lane that a poll's caller went away, unless it was answered.
struct PollGuard<'a> {
    handle: &'a LaneHandle,
    ticket: Ticket,
    answered: bool,
}

impl Drop for PollGuard<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let message = Message::EndPoll { ticket: self.ticket, gone: true };
            if let Err(mpsc::error::TrySendError::Full(message)) = self.handle.messages.try_send(message) {
                // The channel is full of calls: waiting for room must not be tied to the caller, who is gone.
                let messages = self.handle.messages.clone();
                tokio::spawn(async move { messages.send(message).await });
            }
        }
    }
}

impl LaneHandle {
    fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    async fn send(&self, message: Message) -> Result<(), Refused> {
        self.messages.send(message).await.map_err(|_| stopping())
    }

    async fn ask(&self, ask: Ask) -> Result<Reply, Refused> {
        let (sender, reply) = oneshot::channel();
        self.send(Message::Ask(ask, sender)).await?;
        reply.await.map_err(|_| stopping())
    }

    /// Asks something of runs; each is answered on its own once it is committed. With `next`, also for steps in that commit.
    pub async fn command(&self, commands: Vec<Asked>, next: Option<Poll>) -> Result<Reply, Refused> {
        let ticket = self.ticket();
        let mut guard = next.is_some().then_some(PollGuard { handle: self, ticket, answered: false });
        let reply = self.ask(Ask { ticket, commands, sheddable: false, beat: None, poll: next }).await;
        if let Some(guard) = &mut guard {
            guard.answered = true;
        }
        reply
    }

    /// Refuses submits that the lane would refuse, before anything is spent on them: under overload that is most of the work.
    pub fn check_room(&self, submits: usize) -> Result<(), Refused> {
        let waiting = self.queue.waiting.load(Ordering::Relaxed);
        if self.queue.bounds.has_room(waiting, submits) { Ok(()) } else { Err(Failure::Overloaded.into()) }
    }

    /// Submits runs: the first to be refused when too much is waiting.
    pub async fn submit(&self, commands: Vec<Asked>) -> Result<Reply, Refused> {
        self.ask(Ask { ticket: self.ticket(), commands, sheddable: true, beat: None, poll: None }).await
    }

    /// Renews a session and its leases.
    pub async fn beat(&self, beat: Beat) -> Result<Reply, Refused> {
        let ask = Ask {
            ticket: self.ticket(),
            commands: Vec::new(),
            sheddable: false,
            beat: Some(beat),
            poll: None,
        };
        self.ask(ask).await
    }

    /// Waits for steps until there is one, `wait` is over, or the server stops.
    pub async fn poll(
        &self,
        poll: Poll,
        wait: StdDuration,
        stop: &CancellationToken,
    ) -> Result<Reply, Refused> {
        let ticket = self.ticket();
        let (sender, mut reply) = oneshot::channel();
        let ask = Ask { ticket, commands: Vec::new(), sheddable: false, beat: None, poll: Some(poll) };
        // Boxed, so that a poll that is held does not keep room for what it was.
        Box::pin(self.send(Message::Ask(ask, sender))).await?;
        let mut guard = PollGuard { handle: self, ticket, answered: false };
        let answered = tokio::select! {
            reply = &mut reply => Some(reply),
            () = tokio::time::sleep(wait) => None,
            () = stop.cancelled() => None,
        };
        let reply = match answered {
            Some(reply) => reply,
            None => {
                Box::pin(self.send(Message::EndPoll { ticket, gone: false })).await?;
                reply.await
            }
        };
        guard.answered = true;
        reply.map_err(|_| stopping())
    }

    /// Gives back leases whose executor could not be told of them.
    pub async fn hand_back(&self, tokens: Vec<LeaseToken>) {
        // A server that stops leaves them to the dispatch timeout.
        let _ = self.messages.send(Message::HandBack(tokens)).await;
    }

    /// What the lane knows of a run's leases and of who waits on queues.
    pub async fn inspect(&self, run: RunId, queues: Vec<Arc<str>>) -> Result<Inspection, Refused> {
        let (answer, inspection) = oneshot::channel();
        self.send(Message::Inspect { run, queues, answer }).await?;
        inspection.await.map_err(|_| stopping())
    }
}

/// Whom the driver tells of changes.
#[derive(Clone, Default)]
pub struct Hubs {
    /// Watchers of runs.
    pub runs: Hub<RunId>,
    /// Heartbeats that are held.
    pub sessions: Hub<SessionId>,
}

/// The driver.
pub struct Driver {
    lane: Lane,
    idle: Vec<Worker>,
    /// Tasks of their own: a batch is encoded while the next one is decided.
    under_way: JoinSet<(Worker, Instant, Done)>,
    clock: Arc<Clock>,
    hubs: Hubs,
    messages: mpsc::Receiver<Message>,
    callers: HashMap<Ticket, oneshot::Sender<Reply>>,
    queue: Arc<Queue>,
}

/// A lane's handle and its driver, which is to be spawned. There are as many works under way as there are connections.
pub fn lane(
    config: Config,
    connections: Vec<LaneConnection>,
    workflows: &Workflows,
    clock: Arc<Clock>,
    hubs: Hubs,
) -> (LaneHandle, Driver) {
    let (sender, messages) = mpsc::channel(WAITING_CALLS);
    let queue = Arc::new(Queue { waiting: AtomicUsize::new(0), bounds: config.clone() });
    let handle = LaneHandle { messages: sender, tickets: Arc::default(), queue: queue.clone() };
    let worker = |connection| Worker { connection, workflows: workflows.clone() };
    let driver = Driver {
        lane: Lane::new(config),
        idle: connections.into_iter().map(worker).collect(),
        under_way: JoinSet::new(),
        clock,
        hubs,
        messages,
        callers: HashMap::new(),
        queue,
    };
    (handle, driver)
}

impl Driver {
    /// Runs until every handle is gone and all that was asked is answered, or `abandon` is cancelled.
    pub async fn run(mut self, abandon: CancellationToken) {
        tokio::select! {
            () = self.drive() => {}
            () = abandon.cancelled() => tracing::warn!("the lane was abandoned with work under way"),
        }
    }

    async fn drive(&mut self) {
        let mut open = true;
        loop {
            while let Ok(message) = self.messages.try_recv() {
                self.take(message);
            }
            while !self.idle.is_empty()
                && let Some(work) = self.lane.next(self.clock.now(), &mut rand::random::<u64>)
            {
                if let Some(worker) = self.idle.pop() {
                    self.under_way.spawn(worker.work(work));
                }
            }
            self.deliver();
            if self.under_way.is_empty() && !open {
                return;
            }
            let until = self.lane.wake_at().since(self.clock.now()).to_std();
            tokio::select! {
                biased;
                Some(ended) = self.under_way.join_next() => {
                    let Some((worker, sent, done)) = ended.map_or_else(fell, Some) else { return };
                    self.idle.push(worker);
                    self.done(sent, done);
                }
                message = self.messages.recv(), if open => match message {
                    Some(message) => self.take(message),
                    None => open = false,
                },
                () = tokio::time::sleep(until), if self.under_way.is_empty() => {}
            }
        }
    }

    fn done(&mut self, sent: Instant, done: Done) {
        match done {
            Done::Loaded(load, loaded) => self.lane.loaded(&load, loaded, self.clock.now()),
            Done::Written(number, outcome, time) => {
                time.into_iter().for_each(|time| self.clock.sync(time, sent));
                self.lane.committed(number, outcome, self.clock.now(), &mut rand::random::<u64>);
            }
            Done::Ended(over, ended) => self.lane.sessions_ended(&over, &ended, self.clock.now()),
            Done::Forgotten(over) => self.lane.sessions_forgotten(&over),
            Done::Found(found, time) => {
                self.clock.sync(time, sent);
                self.lane.found(found);
            }
        }
    }

    fn take(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Ask(ask, caller) => {
                self.callers.insert(ask.ticket, caller);
                self.lane.ask(ask, now);
            }
            Message::EndPoll { ticket, gone } => self.lane.end_poll(ticket, gone, now),
            Message::HandBack(tokens) => self.lane.hand_back(tokens, now, &mut rand::random::<u64>),
            Message::Inspect { run, queues, answer } => {
                // Nobody left to tell is fine.
                let _ = answer.send(self.lane.inspect(run, &queues));
            }
        }
    }

    /// Hands out replies; grants that nobody is there to take go back at once.
    fn deliver(&mut self) {
        self.queue.waiting.store(self.lane.waiting_submits(), Ordering::Relaxed);
        for reply in self.lane.replies() {
            let Some(caller) = self.callers.remove(&reply.ticket) else { continue };
            if let Err(reply) = caller.send(reply) {
                let tokens: Vec<_> = reply.grants.iter().map(|grant| grant.token).collect();
                self.lane.hand_back(tokens, self.clock.now(), &mut rand::random::<u64>);
            }
        }
        self.lane.touched().into_iter().for_each(|run| self.hubs.runs.hint(run));
        self.lane.woken().into_iter().for_each(|session| self.hubs.sessions.hint(session));
    }
}

/// Does a lane's works, one at a time, on a connection of its own.
struct Worker {
    connection: LaneConnection,
    workflows: Workflows,
}

/// A work and its outcome.
enum Done {
    Loaded(Load, Loaded),
    Written(u64, Committed, Option<Timestamp>),
    Ended(Over, BTreeMap<SessionId, Vec<RunId>>),
    Forgotten(Over),
    Found(Found, Timestamp),
}

impl Worker {
    /// Returns when it began, too: no statement of it was sent before.
    async fn work(mut self, work: Work) -> (Worker, Instant, Done) {
        let began = Instant::now();
        let done = match work {
            Work::Load(load) => loop {
                let rows = self.connection.load(&load).await;
                match stored::decode_loaded(rows, &self.workflows).await {
                    Ok(loaded) => break Done::Loaded(load, loaded),
                    Err(error) => breathe("reading runs", &error).await,
                }
            },
            Work::Write(write) => {
                let encoded = stored::encode(&write);
                let (outcome, time) = self.connection.write(&write, &encoded).await;
                if let Committed::Failed(why) = &outcome {
                    tracing::warn!(%why, runs = write.runs.len(), "a write failed");
                    tokio::time::sleep(BREATH).await;
                }
                Done::Written(write.number, outcome, time)
            }
            Work::EndSessions(over) => loop {
                match self.connection.end_sessions(&over).await {
                    Ok(ended) => break Done::Ended(over, ended),
                    Err(error) => breathe("ending sessions", &error).await,
                }
            },
            Work::ForgetSessions(over) => {
                while let Err(error) = self.connection.forget_sessions(&over).await {
                    breathe("forgetting sessions", &error).await;
                }
                Done::Forgotten(over)
            }
            Work::Housekeep(round) => loop {
                match self.connection.housekeep(&round).await {
                    Ok((found, time)) => break Done::Found(found, time),
                    Err(error) => breathe("housekeeping", &error).await,
                }
            },
        };
        (self, began, done)
    }
}

/// A work that panicked takes the lane with it: nothing is known of what it did. One that was ended goes with the process.
fn fell(error: JoinError) -> Option<(Worker, Instant, Done)> {
    if let Ok(panic) = error.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
    None
}

async fn breathe(what: &str, error: &(dyn std::error::Error + Send + Sync)) {
    tracing::warn!(%error, "{what} failed; trying again");
    tokio::time::sleep(BREATH).await;
}

/// The bounds of the lane, from the server's.
pub(crate) fn config(waiting_submits: usize) -> Config {
    Config { waiting_submits, housekeeping: Duration::from_secs(5), ..Config::default() }
}
