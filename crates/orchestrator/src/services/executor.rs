//! ExecutorService: what executors speak.

use std::sync::Arc;
use std::time::{Duration as StdDuration, Instant};

use longtake_engine::command::{Answer, Command, Lease, Report};
use longtake_engine::ids::{LeaseToken, RequestId, SessionId};
use longtake_engine::lane::{Asked, Beat, Failure, LeaseBeat, Poll, Reply};
use longtake_engine::run::Directive;
use longtake_engine::time::Duration;
use longtake_proto::v1::executor_service_server::ExecutorService;
use longtake_proto::v1::{self as pb, Reason};
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::codec;
use crate::errors::{Refused, accepted};
use crate::validate::{self, Problems};

use super::Shared;

/// The longest that a poll or a heartbeat is held.
const MAX_WAIT: Duration = Duration::from_secs(50);
/// Bytes of leases in one reply; a single lease may be larger.
const POLL_BYTES: usize = 4 << 20;
/// Leases in one heartbeat, reports in one batch.
const ITEMS: usize = 1_000;

/// The service.
#[derive(Clone)]
pub struct Executors(pub Shared);

/// One item of a call: refused at the edge, or the command's place in the ask.
type Item = Result<(), Refused>;

impl Executors {
    /// The leases of a reply, as many as one message should hold; the others are given back.
    async fn poll_response(&self, reply: &Reply, received: Instant) -> pb::PollStepsResponse {
        let (session_remaining, next_heartbeat_delay) = codec::session(reply.session, received.elapsed());
        let now = self.0.now();
        let mut leases: Vec<pb::StepLease> = Vec::with_capacity(reply.grants.len());
        let (mut bytes, mut surplus) = (0, Vec::new());
        for grant in &reply.grants {
            let lease = codec::step_lease(grant, now);
            bytes += lease.encoded_len();
            if bytes > POLL_BYTES && !leases.is_empty() {
                surplus.push(grant.token);
            } else {
                leases.push(lease);
            }
        }
        if !surplus.is_empty() {
            self.0.lane.hand_back(surplus).await;
        }
        pb::PollStepsResponse { leases, session_remaining, next_heartbeat_delay }
    }

    fn next_poll(session: SessionId, next: &pb::NextPoll) -> Result<Poll, Refused> {
        let mut problems = Problems::default();
        let queues = queues(&mut problems, &next.queues);
        let max_steps = max_steps(&mut problems, next.max_steps);
        let request = problems.request_id(&next.request_id);
        let executor =
            next.executor.as_ref().map_or_else(|| Arc::from(""), |info| executor(&mut problems, info));
        problems.finish()?;
        Ok(Poll { session, executor, queues, max_steps, request: Some(request), park: false })
    }

    /// A poll by itself, and how long it may be held.
    fn parked(&self, request: &pb::PollStepsRequest) -> Result<(Poll, StdDuration), Refused> {
        let mut problems = Problems::default();
        let session = SessionId(problems.uuid("session_id", &request.session_id).unwrap_or_default());
        let info = request.executor.as_ref();
        let executor = executor(&mut problems, info.unwrap_or(&pb::ExecutorInfo::default()));
        let queues = queues(&mut problems, &request.queues);
        let max_steps = max_steps(&mut problems, request.max_steps);
        let wait = problems.span("wait", request.wait.as_ref(), MAX_WAIT);
        let named: Option<RequestId> =
            (!request.request_id.is_empty()).then(|| problems.request_id(&request.request_id));
        problems.finish()?;
        let park = wait > Duration::ZERO && !self.0.stop.is_cancelled();
        let poll = Poll { session, executor, queues, max_steps, request: named, park };
        Ok((poll, if park { wait.to_std() } else { StdDuration::from_secs(1) }))
    }

    /// Asks for reports; the answers come in their order.
    async fn report(
        &self,
        session: &str,
        reports: Vec<Result<(LeaseToken, Report), Refused>>,
        next: Option<&pb::NextPoll>,
    ) -> Result<(Vec<Result<pb::Verdict, Refused>>, Option<pb::PollStepsResponse>), Refused> {
        let poll = match next {
            Some(next) => Some(Self::next_poll(validate::session_id(session)?, next)?),
            None => None,
        };
        let polled = poll.is_some();
        let mut commands = Vec::new();
        let mut items: Vec<Item> = Vec::new();
        for report in reports {
            items.push(report.map(|(token, report)| {
                let command = Command::Report { lease: Lease::from(&token), report };
                commands.push(Asked { run: token.run, workflow: None, command });
            }));
        }
        let received = Instant::now();
        let reply = self.0.lane.command(commands, poll).await?;
        let next = if polled { Some(self.poll_response(&reply, received).await) } else { None };
        let mut answers = reply.answers.into_iter();
        let verdicts = items.into_iter().map(|item| {
            item.and_then(|()| verdict(answers.next().unwrap_or(Err(Failure::Overloaded))))
                .map(|(verdict, ..)| verdict)
        });
        Ok((verdicts.collect(), next))
    }

    async fn report_one(
        &self,
        session: &str,
        report: Result<(LeaseToken, Report), Refused>,
        next: Option<&pb::NextPoll>,
    ) -> Result<(Option<pb::Verdict>, Option<pb::PollStepsResponse>), Refused> {
        let (mut verdicts, next) = self.report(session, vec![report], next).await?;
        let verdict = verdicts.pop().unwrap_or_else(|| Err(Refused::new(Reason::Internal, "no verdict")))?;
        Ok((Some(verdict), next))
    }

    async fn heartbeat(
        &self,
        request: pb::HeartbeatStepsRequest,
    ) -> Result<pb::HeartbeatStepsResponse, Refused> {
        let mut problems = Problems::default();
        problems.check(request.leases.len() <= ITEMS, "leases", "at most 1000");
        let session = SessionId(problems.uuid("session_id", &request.session_id).unwrap_or_default());
        let wait = problems.span("wait", request.wait.as_ref(), MAX_WAIT);
        problems.finish()?;
        let received = Instant::now();
        let mut hints = self.0.hubs.sessions.wait_for(session);
        let tokens: Vec<String> = request.leases.iter().map(|lease| lease.lease_token.clone()).collect();
        let known: Vec<i32> = request.leases.iter().map(|lease| lease.directive).collect();
        let (beats, items) = beats(request.leases);
        let complete = !request.partial && items.iter().all(|item| item.token.is_ok());
        let read = known.iter().zip(&items).filter(|(_, item)| item.token.is_ok());
        let known: Vec<i32> = read.map(|(directive, _)| *directive).collect();
        let beat = Beat { session, executor: Arc::from(""), leases: beats, complete };
        let held =
            beat.leases.iter().map(|lease| LeaseBeat { checkpoint: None, progress: None, ..lease.clone() });
        let held = Beat { leases: held.collect(), complete: false, ..beat.clone() };
        let mut reply = self.0.lane.beat(beat).await?;
        if wait > Duration::ZERO && !brings_news(&reply, &known) {
            tokio::select! {
                () = hints.hint() => {}
                () = tokio::time::sleep(wait.to_std()) => {}
                () = self.0.stop.cancelled() => {}
            }
            let again = self.0.lane.beat(held).await?;
            // What the checkpoints were answered stands; directives and sequences are the newer ones.
            let merged = reply.answers.into_iter().zip(again.answers);
            let answers = merged.map(|(first, second)| if first.is_err() { first } else { second }).collect();
            reply = Reply { answers, ..again };
        }
        Ok(heartbeat_response(tokens, items, reply, received))
    }
}

/// One lease of a heartbeat: whether its token could be read, and whether what came with it was refused.
struct BeatItem {
    token: Item,
    extra: Item,
}

fn beats(leases: Vec<pb::LeaseHeartbeat>) -> (Vec<LeaseBeat>, Vec<BeatItem>) {
    let mut beats = Vec::new();
    let mut items = Vec::new();
    for lease in leases {
        let checkpoint = lease.checkpoint.map(validate::checkpoint).transpose();
        let progress = lease.progress.map(validate::progress).transpose();
        let extra = checkpoint.as_ref().err().or(progress.as_ref().err()).cloned().map_or(Ok(()), Err);
        let token = validate::lease_token(&lease.lease_token).map(|token| {
            let (checkpoint, progress) = (checkpoint.ok().flatten(), progress.ok().flatten());
            beats.push(LeaseBeat { token, checkpoint, progress });
        });
        items.push(BeatItem { token, extra });
    }
    (beats, items)
}

fn heartbeat_response(
    tokens: Vec<String>,
    items: Vec<BeatItem>,
    reply: Reply,
    received: Instant,
) -> pb::HeartbeatStepsResponse {
    let (session_remaining, next_heartbeat_delay) = codec::session(reply.session, received.elapsed());
    let mut answers = reply.answers.into_iter();
    let leases = tokens.into_iter().zip(items).map(|(lease_token, BeatItem { token, extra })| {
        let answer = token.and_then(|()| verdict(answers.next().unwrap_or(Err(Failure::Overloaded))));
        let (verdict, committed_sequence, directive) = match (answer, extra) {
            (Err(refused), _) => (refused.verdict(), 0, None),
            (Ok((_, sequence, directive)), Err(refused)) => (refused.verdict(), sequence, directive),
            (Ok((verdict, sequence, directive)), Ok(())) => (verdict, sequence, directive),
        };
        pb::LeaseStatus {
            lease_token,
            verdict: Some(verdict),
            committed_sequence,
            directive: codec::directive(directive).into(),
        }
    });
    pb::HeartbeatStepsResponse { leases: leases.collect(), session_remaining, next_heartbeat_delay }
}

/// Whether a reply says what its caller does not know: a refusal, or another directive than the one that it named.
fn brings_news(reply: &Reply, known: &[i32]) -> bool {
    reply.answers.iter().zip(known).any(|(answer, known)| match answer {
        Ok(Answer::Reported { directive, .. }) => i32::from(codec::directive(*directive)) != *known,
        Ok(_) => false,
        Err(_) => true,
    })
}

fn verdict(answer: Result<Answer, Failure>) -> Result<(pb::Verdict, i64, Option<Directive>), Refused> {
    match answer {
        Ok(Answer::Reported { fresh, sequence, directive }) => Ok((accepted(fresh), sequence, directive)),
        Ok(Answer::Created { .. } | Answer::Leased { .. } | Answer::Done { .. }) => {
            Ok((accepted(true), 0, None))
        }
        Err(failure) => Err(failure.into()),
    }
}

fn queues(problems: &mut Problems, queues: &[String]) -> Vec<Arc<str>> {
    problems.check((1..=64).contains(&queues.len()), "queues", "must be 1 to 64 names");
    queues.iter().for_each(|queue| problems.text("queues", queue, 1, 63));
    let mut names: Vec<Arc<str>> = queues.iter().map(|queue| Arc::from(queue.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Who asks, by name.
fn executor(problems: &mut Problems, info: &pb::ExecutorInfo) -> Arc<str> {
    problems.text("executor.name", &info.name, 1, 200);
    problems.text("executor.host", &info.host, 0, 253);
    problems.text("executor.version", &info.version, 0, 100);
    Arc::from(info.name.as_str())
}

fn max_steps(problems: &mut Problems, max_steps: i32) -> usize {
    problems.check((1..=100).contains(&max_steps), "max_steps", "must be between 1 and 100");
    usize::try_from(max_steps).unwrap_or(1).max(1)
}

fn complete(request: pb::CompleteStepRequest) -> Result<(LeaseToken, Report), Refused> {
    let token = validate::lease_token(&request.lease_token)?;
    let output = validate::output(request.output, request.artifacts)?;
    Ok((token, Report::Complete { output, cost: validate::cost(request.cost.as_ref())? }))
}

fn fail(request: pb::FailStepRequest) -> Result<(LeaseToken, Report), Refused> {
    let token = validate::lease_token(&request.lease_token)?;
    let report = Report::Fail {
        error: validate::error(request.error)?,
        retry_after: validate::retry_after(request.retry_after.as_ref())?,
        checkpoint: request.checkpoint.map(validate::checkpoint).transpose()?,
        cost: validate::cost(request.cost.as_ref())?,
        jitter: rand::random(),
    };
    Ok((token, report))
}

fn give_back(request: pb::YieldStepRequest) -> Result<(LeaseToken, Report), Refused> {
    let token = validate::lease_token(&request.lease_token)?;
    let report = Report::Yield {
        reason: validate::reason(&request.reason)?,
        checkpoint: request.checkpoint.map(validate::checkpoint).transpose()?,
        cost: validate::cost(request.cost.as_ref())?,
        jitter: rand::random(),
    };
    Ok((token, report))
}

#[tonic::async_trait]
impl ExecutorService for Executors {
    async fn poll_steps(
        &self,
        request: Request<pb::PollStepsRequest>,
    ) -> Result<Response<pb::PollStepsResponse>, Status> {
        let (poll, wait) = self.parked(&request.into_inner())?;
        let received = Instant::now();
        let reply = self.0.lane.poll(poll, wait, &self.0.stop).await?;
        // Boxed, as what a poll that is held does not need yet: there may be ten thousand of them.
        Ok(Response::new(Box::pin(self.poll_response(&reply, received)).await))
    }

    async fn heartbeat_steps(
        &self,
        request: Request<pb::HeartbeatStepsRequest>,
    ) -> Result<Response<pb::HeartbeatStepsResponse>, Status> {
        Ok(Response::new(self.heartbeat(request.into_inner()).await?))
    }

    async fn complete_step(
        &self,
        request: Request<pb::CompleteStepRequest>,
    ) -> Result<Response<pb::CompleteStepResponse>, Status> {
        let mut request = request.into_inner();
        let (session, next) = (std::mem::take(&mut request.session_id), request.next.take());
        let (verdict, next) = self.report_one(&session, complete(request), next.as_ref()).await?;
        Ok(Response::new(pb::CompleteStepResponse { verdict, next }))
    }

    async fn fail_step(
        &self,
        request: Request<pb::FailStepRequest>,
    ) -> Result<Response<pb::FailStepResponse>, Status> {
        let (verdict, _) = self.report_one("", fail(request.into_inner()), None).await?;
        Ok(Response::new(pb::FailStepResponse { verdict }))
    }

    async fn yield_step(
        &self,
        request: Request<pb::YieldStepRequest>,
    ) -> Result<Response<pb::YieldStepResponse>, Status> {
        let (verdict, _) = self.report_one("", give_back(request.into_inner()), None).await?;
        Ok(Response::new(pb::YieldStepResponse { verdict }))
    }

    async fn report_steps(
        &self,
        request: Request<pb::ReportStepsRequest>,
    ) -> Result<Response<pb::ReportStepsResponse>, Status> {
        let request = request.into_inner();
        let mut problems = Problems::default();
        problems.check((1..=ITEMS).contains(&request.reports.len()), "reports", "must be 1 to 1000");
        problems.finish()?;
        let reports = request.reports.into_iter().map(|report| match report.report {
            Some(pb::step_report::Report::Complete(request)) => complete(request),
            Some(pb::step_report::Report::Fail(request)) => fail(request),
            Some(pb::step_report::Report::Yield(request)) => give_back(request),
            None => {
                Err(Refused::new(Reason::FieldInvalid, "report: one of complete, fail, yield must be set"))
            }
        });
        let reports = reports.collect();
        let (verdicts, next) = self.report(&request.session_id, reports, request.next.as_ref()).await?;
        let verdicts =
            verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(|refused| refused.verdict())).collect();
        Ok(Response::new(pb::ReportStepsResponse { verdicts, next }))
    }
}
