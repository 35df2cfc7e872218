//! The load: submits requests for content, in a closed or an open loop, and times each until its last step is acknowledged.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use longtake_proto::v1::content_service_client::ContentServiceClient;
use longtake_proto::v1::{self as pb, Reason};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::signals::{self, DONE, Signal};
use super::{REPLY_BYTES, channel, micros, orders};

/// What a load process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub servers: Vec<String>,
    /// Where executors say what they saw.
    pub socket: PathBuf,
    pub pace: Pace,
    /// Requests in a call: 1 is SubmitContent, more BatchSubmitContent.
    pub batch: usize,
}

/// How fast.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Pace {
    /// So many runs are always under way.
    InFlight(usize),
    /// So many runs begin each second, whatever becomes of the others.
    PerSecond(f64),
    /// So many runs in all, as fast as they are taken, finished or not.
    Fill(usize),
}

/// What a load has seen since it was last asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen {
    pub seconds: f64,
    pub calls: u64,
    /// Requests that were acknowledged, in this time and in all.
    pub accepted: u64,
    pub accepted_in_all: u64,
    /// Requests that were refused as overload; without RetryInfo is a fault.
    pub refused: u64,
    pub refused_without_retry_info: u64,
    /// Any other answer.
    pub failed: u64,
    /// Runs that were done in this time, and in all.
    pub done: u64,
    pub done_in_all: u64,
    /// Milliseconds from the submit (when it was meant to be, in an open loop) to the last acknowledgement.
    pub latency: Quantiles,
    /// And its parts: `ack`, then from one executor's step to the next.
    pub legs: BTreeMap<String, Quantiles>,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Quantiles {
    pub count: usize,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Quantiles {
    /// Of values in microseconds.
    pub fn of(mut micros: Vec<i64>) -> Quantiles {
        micros.sort_unstable();
        let at = |share: f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an index
            let place = (micros.len().saturating_sub(1) as f64 * share).round() as usize;
            micros.get(place).map_or(0.0, |value| *value as f64 / 1e3)
        };
        Quantiles { count: micros.len(), p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

/// What became of a request.
enum Answered {
    Accepted,
    /// As overload; whether it was said when to come again.
    Refused {
        told: bool,
    },
    Failed(String),
}

impl From<tonic::Status> for Answered {
    fn from(status: tonic::Status) -> Answered {
        match status.code() {
            Code::ResourceExhausted => Answered::Refused { told: status.get_details_retry_info().is_some() },
            _ => Answered::Failed(status.to_string()),
        }
    }
}

impl From<pb::Verdict> for Answered {
    fn from(verdict: pb::Verdict) -> Answered {
        match verdict.reason() {
            Reason::Unspecified => Answered::Accepted,
            // An item's verdict has no room for it.
            Reason::Overloaded => Answered::Refused { told: true },
            other => Answered::Failed(format!("{other:?}: {}", verdict.message)),
        }
    }
}

/// A run under way.
struct Flight {
    began: i64,
    acked: i64,
    steps: Vec<i64>,
    /// Its place among those that may be under way, given back when it is done.
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
struct Book {
    flights: HashMap<Uuid, Flight>,
    seen: Seen,
    latencies: Vec<i64>,
    legs: BTreeMap<String, Vec<i64>>,
    since: Option<Instant>,
    stopped: bool,
}

struct Load {
    plan: Plan,
    clients: Vec<ContentServiceClient<Channel>>,
    book: RefCell<Book>,
}

/// Submits from `go` to `stop`. To `look` and `stop` it answers with what it has seen since the order before; `stop` waits until
/// all runs are done.
pub async fn run(plan: Plan) -> Result<()> {
    let connect = |server: &String| {
        Ok(ContentServiceClient::new(channel(server)?).max_decoding_message_size(REPLY_BYTES))
    };
    let clients = plan.servers.iter().map(connect).collect::<Result<Vec<_>>>()?;
    let load = Rc::new(Load { plan, clients, book: RefCell::default() });
    let hears = load.clone();
    signals::receive(&load.plan.socket, move |signal| hears.hear(signal))?;
    orders(async |order| {
        match order {
            "go" => load.start(),
            "look" => {}
            "stop" => {
                load.book.borrow_mut().stopped = true;
                let seen = load.look();
                load.drain().await;
                // What was done after the window belongs to no window, but to all.
                let done_in_all = load.book.borrow().seen.done_in_all;
                let accepted_in_all = load.book.borrow().seen.accepted_in_all;
                return Ok(Seen { done_in_all, accepted_in_all, ..seen });
            }
            other => bail!("no order is {other:?}"),
        }
        Ok(load.look())
    })
    .await
}

impl Load {
    fn start(self: &Rc<Load>) {
        match self.plan.pace {
            Pace::InFlight(many) => {
                let places = Arc::new(Semaphore::new(many));
                let loops = if self.plan.batch == 1 { many } else { 2 };
                for number in 0..loops {
                    tokio::task::spawn_local(self.clone().closed(number, places.clone()));
                }
            }
            Pace::PerSecond(rate) => drop(tokio::task::spawn_local(self.clone().open(rate))),
            Pace::Fill(many) => {
                let left = Rc::new(RefCell::new(many));
                for number in 0..4 {
                    tokio::task::spawn_local(self.clone().fill(number, left.clone()));
                }
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.book.borrow().stopped
    }

    async fn closed(self: Rc<Load>, number: usize, places: Arc<Semaphore>) {
        while !self.is_stopped() {
            let Ok(first) = places.clone().acquire_owned().await else { return };
            let mut taken = vec![first];
            while taken.len() < self.plan.batch
                && let Ok(more) = places.clone().try_acquire_owned()
            {
                taken.push(more);
            }
            let began = micros();
            self.submit(number, taken.into_iter().map(|place| (began, Some(place))).collect()).await;
        }
    }

    /// What is late is sent at once and counts from when it was meant to be sent: a slow server is not spared.
    async fn open(self: Rc<Load>, rate: f64) {
        let batch = u64::try_from(self.plan.batch).unwrap_or(1);
        let (sender, mut due) = tokio::sync::mpsc::unbounded_channel();
        // On a thread of its own: the runtime's timers are a millisecond late, which is a part of what is measured.
        std::thread::spawn(move || {
            let (start, began) = (Instant::now(), micros());
            for first in (0..).step_by(usize::try_from(batch).unwrap_or(1)) {
                let offset = Duration::from_secs_f64(first as f64 / rate);
                std::thread::sleep((start + offset).saturating_duration_since(Instant::now()));
                let meant = began + i64::try_from(offset.as_micros()).unwrap_or(i64::MAX);
                if sender.send((first, meant)).is_err() {
                    return;
                }
            }
        });
        while let Some((number, meant)) = due.recv().await {
            if self.is_stopped() {
                return;
            }
            let runs = (0..batch).map(|_| (meant, None)).collect();
            tokio::task::spawn_local(self.clone().submit_one(number, runs));
        }
    }

    async fn submit_one(self: Rc<Load>, number: usize, runs: Vec<(i64, Option<OwnedSemaphorePermit>)>) {
        self.submit(number, runs).await;
    }

    async fn fill(self: Rc<Load>, number: usize, left: Rc<RefCell<usize>>) {
        while !self.is_stopped() {
            let many = self.plan.batch.min(*left.borrow());
            if many == 0 {
                return;
            }
            *left.borrow_mut() -= many;
            let now = micros();
            self.submit(number, (0..many).map(|_| (now, None)).collect()).await;
        }
    }

    async fn submit(&self, number: usize, runs: Vec<(i64, Option<OwnedSemaphorePermit>)>) {
        let mut requests = Vec::with_capacity(runs.len());
        let mut ids = Vec::with_capacity(runs.len());
        for (began, place) in runs {
            let id = Uuid::now_v7();
            let flight = Flight { began, acked: 0, steps: Vec::new(), _place: place };
            self.book.borrow_mut().flights.insert(id, flight);
            requests.push(request(id));
            ids.push(id);
        }
        self.book.borrow_mut().seen.calls += 1;
        let mut client = self.clients[number % self.clients.len()].clone();
        if let [request] = &requests[..] {
            let answer = client.submit_content(request.clone()).await;
            return self.answered(ids[0], answer.map_or_else(Answered::from, |_| Answered::Accepted));
        }
        match client.batch_submit_content(pb::BatchSubmitContentRequest { requests }).await {
            Ok(answer) => {
                for (id, result) in ids.into_iter().zip(answer.into_inner().results) {
                    self.answered(id, result.verdict.unwrap_or_default().into());
                }
            }
            Err(status) => ids.into_iter().for_each(|id| self.answered(id, status.clone().into())),
        }
    }

    fn answered(&self, id: Uuid, answered: Answered) {
        let mut book = self.book.borrow_mut();
        match answered {
            Answered::Accepted => {
                book.seen.accepted += 1;
                book.seen.accepted_in_all += 1;
                // The executors may have been quicker than the acknowledgement.
                if let Some(flight) = book.flights.get_mut(&id) {
                    flight.acked = micros();
                }
                // Nobody waits for what only fills a backlog.
                if !matches!(self.plan.pace, Pace::Fill(_)) {
                    return;
                }
            }
            Answered::Refused { told } => {
                book.seen.refused += 1;
                book.seen.refused_without_retry_info += u64::from(!told);
            }
            Answered::Failed(why) => {
                eprintln!("a submit failed: {why}");
                book.seen.failed += 1;
            }
        }
        book.flights.remove(&id);
    }

    fn hear(&self, Signal { run, what, at }: Signal) {
        let mut book = self.book.borrow_mut();
        if what != DONE {
            if let Some(flight) = book.flights.get_mut(&run) {
                flight.steps.push(at);
            }
            return;
        }
        book.seen.done += 1;
        book.seen.done_in_all += 1;
        let Some(flight) = book.flights.remove(&run) else { return };
        book.latencies.push(at - flight.began);
        let mut leg = |name: String, micros: i64| book.legs.entry(name).or_default().push(micros);
        if flight.acked > 0 {
            leg("submit to acknowledgement".to_owned(), flight.acked - flight.began);
        }
        let ends = flight.steps.iter().copied().skip(1).chain([at]);
        let mut from = flight.began;
        for (number, (began, end)) in flight.steps.iter().zip(ends).enumerate() {
            if number == 0 {
                leg("submit to step 1".to_owned(), began - from);
            }
            from = *began;
            leg(format!("step {} to what follows", number + 1), end - from);
        }
    }

    /// What was seen since the last look.
    fn look(&self) -> Seen {
        let mut book = self.book.borrow_mut();
        let now = Instant::now();
        let seconds = book.since.replace(now).map_or(0.0, |since| (now - since).as_secs_f64());
        let latency = Quantiles::of(std::mem::take(&mut book.latencies));
        let legs = std::mem::take(&mut book.legs);
        let legs = legs.into_iter().map(|(name, values)| (name, Quantiles::of(values))).collect();
        let (accepted_in_all, done_in_all) = (book.seen.accepted_in_all, book.seen.done_in_all);
        let seen = std::mem::take(&mut book.seen);
        book.seen.accepted_in_all = accepted_in_all;
        book.seen.done_in_all = done_in_all;
        Seen { seconds, latency, legs, ..seen }
    }

    /// Waits until nothing is under way, or nothing moves any more.
    async fn drain(&self) {
        let mut before = (usize::MAX, Instant::now());
        loop {
            let left = self.book.borrow().flights.len();
            if left == 0 || before.1.elapsed() > Duration::from_secs(60) {
                return;
            }
            if left != before.0 {
                before = (left, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A request as a content service would send it: about 210 bytes as JSON.
fn request(id: Uuid) -> pb::SubmitContentRequest {
    pb::SubmitContentRequest {
        request_id: id.to_string(),
        student_id: "student-0042".to_owned(),
        student_query: "How do plants turn light into sugar, and what do they do with it at night?"
            .to_owned(),
        grade_level: Some(7),
        interest: "gardening and cooking".to_owned(),
        requested_modalities: vec![pb::Modality::Video.into()],
        preferred_modality: pb::Modality::Video.into(),
        ..pb::SubmitContentRequest::default()
    }
}
