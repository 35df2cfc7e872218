//! Those who submit and operate, and those who lie.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use longtake_engine::command::{Command, Deadline, Operation, Report};
use longtake_engine::definition::Workflow;
use longtake_engine::ids::{LeaseToken, RunId, StepNo};
use longtake_engine::lane::{Asked, Beat, Failure, LeaseBeat, Poll};
use longtake_engine::run::NewRun;
use longtake_engine::time::Duration;

use crate::call::{Alarm, Body, Call, Effect, Hands, Heard, Outbox};
use crate::rng::Rng;
use crate::workflows;

/// Asks what it is given to ask, when its time has come, until it is answered.
#[derive(Default)]
pub struct Client {
    outbox: Outbox,
    plan: BTreeMap<u64, Body>,
}

impl Client {
    /// Something to ask later.
    pub fn plan(&mut self, after: Duration, body: Body, hands: &mut Hands<'_>) {
        let act = self.plan.len() as u64;
        self.plan.insert(act, body);
        hands.alarm(after, Alarm::Act(act));
    }

    pub fn ask(&mut self, body: Body, hands: &mut Hands<'_>) {
        self.outbox.send(body, hands);
    }

    pub fn alarm(&mut self, alarm: Alarm, hands: &mut Hands<'_>) {
        match alarm {
            Alarm::Act(act) => {
                if let Some(body) = self.plan.get_mut(&act) {
                    let body = std::mem::replace(body, Body::Submit(Vec::new()));
                    self.outbox.send(body, hands);
                }
            }
            Alarm::Timeout(call, sent) if self.outbox.timed_out(call, sent) => {
                self.outbox.unanswered(call, u32::MAX, hands);
            }
            Alarm::Timeout(..) => {}
            Alarm::Again(call) => self.outbox.again(call, hands),
        }
    }

    pub fn heard(&mut self, call: u64, heard: &Heard, hands: &mut Hands<'_>) {
        let Heard::Reply(reply) = heard else {
            self.outbox.unanswered(call, u32::MAX, hands);
            return;
        };
        let Some(answered) = self.outbox.answered(call) else { return };
        let failed =
            |answer: &Result<_, Failure>| matches!(answer, Err(Failure::Overloaded | Failure::Storage(_)));
        if reply.answers.iter().any(failed) {
            self.outbox.resend(&answered, hands);
        }
    }
}

/// A submission of a run.
pub fn submit(request: &Arc<NewRun>, workflow: &Arc<Workflow>) -> Asked {
    Asked { run: request.id, workflow: Some(workflow.clone()), command: Command::Create(request.clone()) }
}

/// Something that an operator may want of a run.
pub fn operation(run: RunId, steps: usize, hands: &mut Hands<'_>) -> Asked {
    let step: StepNo = hands.rng.below(steps + 1);
    let rng = &mut *hands.rng;
    let operation = match rng.below(12) {
        0 => Operation::Cancel { reason: String::new() },
        1..=3 => Operation::Pause { reason: "a look".to_owned() },
        4..=6 => Operation::Resume,
        7 | 8 => Operation::Retry {
            deadline: rng.chance(300).then(|| hands.now + Duration::from_secs(rng.range(-5, 200))),
        },
        _ => Operation::ExtendDeadline {
            which: *rng.pick(&[Deadline::Run, Deadline::Step(step), Deadline::Attempt(step)]),
            to: hands.now + Duration::from_secs(rng.range(-2, 120)),
        },
    };
    Asked { run, workflow: None, command: Command::Operate { call: hands.rng.request(), operation } }
}

/// Resumes a paused run.
pub fn resume(run: RunId, rng: &mut Rng) -> Asked {
    let command = Command::Operate { call: rng.request(), operation: Operation::Resume };
    Asked { run, workflow: None, command }
}

/// Speaks with tokens that are forged, stale or stolen, repeats what others said, and takes work without doing it.
pub struct Liar {
    queues: Vec<Arc<str>>,
}

impl Liar {
    pub fn new(queues: Vec<Arc<str>>, hands: &mut Hands<'_>) -> Liar {
        hands.alarm(Duration::from_secs(1), Alarm::Act(0));
        Liar { queues }
    }

    pub fn alarm(&mut self, alarm: Alarm, hands: &mut Hands<'_>) {
        let Alarm::Act(_) = alarm else { return };
        if hands.calm {
            return;
        }
        hands.alarm_within(100, 3000, Alarm::Act(0));
        let call = self.lie(hands);
        hands.effects.push(Effect::Send(call));
    }

    fn lie(&self, hands: &mut Hands<'_>) -> Rc<Call> {
        if hands.rng.chance(400) && !hands.seen.reports.is_empty() {
            return hands.rng.pick(&hands.seen.reports).clone();
        }
        if hands.rng.chance(100) {
            let (session, executor) = (hands.rng.session(), Arc::from("liar"));
            let queues = self.queues.clone();
            let poll = Poll { session, executor, queues, max_steps: 2, request: None, park: true };
            return hands.call(Body::Poll(poll, Duration::from_secs(2)));
        }
        let token = self.token(hands);
        if hands.rng.chance(400) {
            let leases = vec![LeaseBeat { token, checkpoint: None, progress: None }];
            let session = hands.rng.session();
            return hands.call(Body::Beat(
                Beat { session, executor: Arc::from("liar"), leases, complete: true },
                Duration::ZERO,
            ));
        }
        let workflow = &workflows::pool()[0];
        let output = workflows::output(workflow, 0, hands.rng.next() >> 12, hands.rng);
        hands.call(Body::Report(vec![(token, Report::Complete { output, cost: None })], None))
    }

    /// A token that proves nothing any more, or never did.
    fn token(&self, hands: &mut Hands<'_>) -> LeaseToken {
        let forged = LeaseToken { run: hands.rng.run(), step: 0, attempt: 1, secret: hands.rng.secret() };
        if hands.seen.tokens.is_empty() {
            return forged;
        }
        let seen = *hands.rng.pick(&hands.seen.tokens);
        match hands.rng.below(4) {
            0 => LeaseToken { secret: forged.secret, ..seen },
            1 => LeaseToken { attempt: seen.attempt + 1, ..seen },
            2 => LeaseToken { step: seen.step + 1, ..seen },
            _ => LeaseToken { run: forged.run, ..seen },
        }
    }
}
