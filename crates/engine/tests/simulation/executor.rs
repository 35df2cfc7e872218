//! Executors: what the real library does, and everything that can be wrong with one.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use longtake_engine::command::{Answer, NewCheckpoint, Refusal, Report};
use longtake_engine::ids::{LeaseToken, SessionId};
use longtake_engine::lane::{Beat, Failure, Grant, LeaseBeat, Poll, Progress, Reply, Standing};
use longtake_engine::money::Money;
use longtake_engine::run::{CheckpointData, StepError};
use longtake_engine::time::{Duration, Timestamp};
use serde_json::json;

use crate::call::{Alarm, Body, Call, Hands, Heard, Outbox};
use crate::rng::Rng;
use crate::workflows;

/// How often something goes wrong, of a thousand.
#[derive(Clone, Debug, Default)]
pub struct Hazards {
    pub fail: u64,
    pub fatal: u64,
    pub give_back: u64,
    /// Works for ever and gets nowhere.
    pub stall: u64,
    /// Takes a step and forgets it, and leaves it out of its heartbeats.
    pub forget: u64,
    /// Does not look whether its session is over.
    pub zombie: bool,
    /// Its heartbeats are late.
    pub lazy: u64,
}

pub struct Executor {
    name: Arc<str>,
    session: SessionId,
    queues: Vec<Arc<str>>,
    slots: usize,
    pub hazards: Hazards,
    outbox: Outbox,
    tasks: BTreeMap<u64, Task>,
    acts: u64,
    polling: Option<u64>,
    beating: Option<(u64, Timestamp)>,
    next_beat: Timestamp,
    /// When its session is over, by its own clock.
    session_end: Option<Timestamp>,
    draining: bool,
}

struct Task {
    grant: Grant,
    done: i64,
    total: i64,
    sequence: i64,
    pace: Duration,
    stalls: bool,
    forgotten: bool,
    /// The report that is on its way.
    reporting: Option<u64>,
    told_to_stop: bool,
}

/// The alarm for heartbeats; tasks have the others.
const BEAT: u64 = 0;
const POLL: u64 = 1;
const FIRST_TASK: u64 = 2;

impl Executor {
    pub fn new(
        name: &str,
        queues: Vec<Arc<str>>,
        slots: usize,
        hazards: Hazards,
        hands: &mut Hands<'_>,
    ) -> Executor {
        hands.alarm(Duration::from_millis(hands.now.0 % 50), Alarm::Act(POLL));
        Executor {
            name: Arc::from(name),
            session: hands.rng.session(),
            queues,
            slots,
            hazards,
            outbox: Outbox::default(),
            tasks: BTreeMap::new(),
            acts: FIRST_TASK,
            polling: None,
            beating: None,
            next_beat: Timestamp::default(),
            session_end: None,
            draining: false,
        }
    }

    /// Finishes nothing more, gives back what it holds.
    pub fn drain(&mut self, hands: &mut Hands<'_>) {
        self.draining = true;
        let tasks: Vec<u64> =
            self.tasks.iter().filter(|(_, task)| !task.forgotten).map(|(id, _)| *id).collect();
        tasks.into_iter().for_each(|task| self.give_back(task, "drain", hands));
    }

    /// From now on it does what it should.
    pub fn reform(&mut self, hands: &mut Hands<'_>) {
        self.hazards = Hazards::default();
        self.draining = false;
        self.tasks.values_mut().for_each(|task| task.stalls = false);
        self.tasks.retain(|_, task| !task.forgotten);
        self.poll(hands);
    }

    pub fn alarm(&mut self, alarm: Alarm, hands: &mut Hands<'_>) {
        if self.session_end.is_some_and(|end| end < hands.now) && !self.hazards.zombie {
            self.new_session(hands);
        }
        match alarm {
            Alarm::Act(BEAT) => self.beat(hands),
            Alarm::Act(POLL) => self.poll(hands),
            Alarm::Act(task) => self.work(task, hands),
            Alarm::Timeout(call, sent) if self.outbox.timed_out(call, sent) => self.unanswered(call, hands),
            Alarm::Timeout(..) => {}
            Alarm::Again(call) => self.outbox.again(call, hands),
        }
    }

    pub fn heard(&mut self, call: u64, heard: &Heard, hands: &mut Hands<'_>) {
        let Heard::Reply(reply) = heard else { return self.unanswered(call, hands) };
        let Some(answered) = self.outbox.answered(call) else { return };
        match &answered.body {
            Body::Poll(..) => {
                self.polling = None;
                self.take(reply, hands);
                let pause = if reply.grants.is_empty() { hands.rng.range(1, 300) } else { 1 };
                hands.alarm(Duration::from_millis(pause), Alarm::Act(POLL));
            }
            Body::Beat(beat, _) => self.heard_beat(call, beat, reply, hands),
            Body::Report(reports, _) => self.heard_report(&answered, reports, reply, hands),
            Body::Submit(_) | Body::Operate(_) => {}
        }
    }

    fn unanswered(&mut self, call: u64, hands: &mut Hands<'_>) {
        let is_beat = self.beating.is_some_and(|(beat, _)| beat == call);
        let most = if is_beat {
            1
        } else if self.polling == Some(call) {
            6
        } else {
            u32::MAX
        };
        if self.outbox.unanswered(call, most, hands).is_none() {
            return;
        }
        if is_beat {
            self.beating = None;
            let pause = Duration::from_millis(hands.rng.range(50, 500));
            self.beat_after(pause, hands);
        }
        if self.polling == Some(call) {
            self.polling = None;
            hands.alarm(Duration::from_millis(500), Alarm::Act(POLL));
        }
    }

    fn new_session(&mut self, hands: &mut Hands<'_>) {
        self.outbox.clear(hands);
        self.tasks.clear();
        (self.polling, self.beating, self.session_end) = (None, None, None);
        self.session = hands.rng.session();
        hands.alarm_within(1, 100, Alarm::Act(POLL));
    }

    fn next_poll(&self, free: usize, park: bool, rng: &mut Rng) -> Poll {
        Poll {
            session: self.session,
            executor: self.name.clone(),
            queues: self.queues.clone(),
            max_steps: free,
            request: rng.chance(950).then(|| rng.request()),
            park,
        }
    }

    fn poll(&mut self, hands: &mut Hands<'_>) {
        let free = self.slots.saturating_sub(self.tasks.len());
        if self.draining || self.polling.is_some() || free == 0 {
            return;
        }
        let wait = if hands.calm { 50 } else { *hands.rng.pick(&[0, 1, 2, 5, 10]) };
        let poll = self.next_poll(free, wait > 0, hands.rng);
        self.polling = Some(self.outbox.send(Body::Poll(poll, Duration::from_secs(wait)), hands));
    }

    fn take(&mut self, reply: &Rc<Reply>, hands: &mut Hands<'_>) {
        if self.stands(reply.session, hands.now, hands) {
            return;
        }
        for grant in &reply.grants {
            hands.seen.tokens.push(grant.token);
            if self.tasks.values().any(|task| task.grant.token == grant.token) {
                continue;
            }
            let done = grant.run.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.done);
            let task = Task {
                grant: grant.clone(),
                done,
                total: done + hands.rng.range(1, 6),
                sequence: 0,
                pace: Duration::from_millis(if hands.calm { 400 } else { hands.rng.range(50, 2500) }),
                stalls: hands.rng.chance(self.hazards.stall),
                forgotten: false,
                reporting: None,
                told_to_stop: false,
            };
            self.acts += 1;
            hands.alarm(task.pace, Alarm::Act(self.acts));
            self.tasks.insert(self.acts, task);
        }
        if !reply.grants.is_empty() {
            self.beat_after(Duration::ZERO, hands);
        }
    }

    fn beat_after(&mut self, pause: Duration, hands: &mut Hands<'_>) {
        self.next_beat = hands.now + pause;
        hands.alarm(pause, Alarm::Act(BEAT));
    }

    /// Takes a session's standing in. True if it is over and a new one was begun.
    fn stands(&mut self, standing: Option<Standing>, asked_at: Timestamp, hands: &mut Hands<'_>) -> bool {
        match standing {
            Some(Standing::Ended) if !self.hazards.zombie => {
                self.new_session(hands);
                true
            }
            Some(Standing::Lives { remaining, .. }) if remaining > Duration::ZERO => {
                self.session_end = self.session_end.max(Some(asked_at + remaining));
                false
            }
            Some(Standing::Ended | Standing::Lives { .. }) | None => false,
        }
    }

    fn beat(&mut self, hands: &mut Hands<'_>) {
        if self.beating.is_some() || self.tasks.is_empty() || hands.now < self.next_beat {
            return;
        }
        let named = self.tasks.values_mut().filter(|task| !task.forgotten);
        let leases = named.map(|task| LeaseBeat {
            token: task.grant.token,
            checkpoint: None,
            progress: Some(Progress { done: task.done, total: task.total, message: String::new() }),
        });
        let beat = Beat {
            session: self.session,
            executor: self.name.clone(),
            leases: leases.collect(),
            complete: true,
        };
        let hold = if hands.rng.chance(300) { hands.rng.range(100, 900) } else { 0 };
        let call = self.outbox.send(Body::Beat(beat, Duration::from_millis(hold)), hands);
        self.beating = Some((call, hands.now));
    }

    fn heard_beat(&mut self, call: u64, beat: &Beat, reply: &Rc<Reply>, hands: &mut Hands<'_>) {
        let asked_at = match self.beating {
            Some((beating, at)) if beating == call => {
                self.beating = None;
                at
            }
            _ => hands.now - Duration::from_secs(3),
        };
        if self.stands(reply.session, asked_at, hands) {
            return;
        }
        for (lease, answer) in beat.leases.iter().zip(&reply.answers) {
            match answer {
                Ok(Answer::Reported { directive: Some(_), .. }) => self.told_to_stop(&lease.token, hands),
                Ok(_) | Err(Failure::Overloaded | Failure::Storage(_)) => {}
                Err(Failure::Refused(_)) => self.drop_lease(&lease.token),
            }
        }
        if !beat.complete {
            return;
        }
        if let Some(Standing::Lives { delay, .. }) = reply.session {
            let late = if hands.rng.chance(self.hazards.lazy) { 4 } else { 1 };
            self.beat_after(Duration(delay.0 * late), hands);
        }
    }

    fn told_to_stop(&mut self, token: &LeaseToken, hands: &mut Hands<'_>) {
        let told = self.tasks.iter_mut().find(|(_, task)| task.grant.token == *token && !task.told_to_stop);
        let Some((id, task)) = told else { return };
        let id = *id;
        if hands.rng.chance(800) || hands.calm {
            task.told_to_stop = true;
            self.give_back(id, "told to", hands);
        }
    }

    fn drop_lease(&mut self, token: &LeaseToken) {
        self.tasks.retain(|_, task| task.grant.token != *token);
    }

    fn work(&mut self, id: u64, hands: &mut Hands<'_>) {
        let Some(task) = self.tasks.get_mut(&id).filter(|task| task.reporting.is_none()) else { return };
        hands.alarm(task.pace, Alarm::Act(id));
        if task.stalls || task.forgotten {
            return;
        }
        task.done += 1;
        // It was heard of by now.
        task.forgotten = hands.rng.chance(self.hazards.forget);
        if task.done >= task.total {
            return self.finish(id, hands);
        }
        if hands.rng.chance(500) {
            let checkpoint = Some(task.checkpoint());
            let lease = LeaseBeat { token: task.grant.token, checkpoint, progress: None };
            let (session, executor) = (self.session, self.name.clone());
            let beat = Beat { session, executor, leases: vec![lease], complete: false };
            self.outbox.send(Body::Beat(beat, Duration::ZERO), hands);
        }
    }

    fn finish(&mut self, id: u64, hands: &mut Hands<'_>) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let cost = hands.rng.chance(500).then(|| Money(hands.rng.range(0, 1000)));
        let jitter = hands.rng.next();
        let (token, hazards) = (task.grant.token, &self.hazards);
        let checkpoint = hands.rng.chance(300).then(|| task.checkpoint());
        let report = if hands.rng.chance(hazards.fail) {
            let retry_after = hands.rng.chance(300).then(|| Duration::from_millis(hands.rng.range(0, 3000)));
            let error = StepError::new("SIMULATED", "it failed", !hands.rng.chance(hazards.fatal));
            Report::Fail { error, retry_after, checkpoint, cost, jitter }
        } else if hands.rng.chance(hazards.give_back) {
            Report::Yield { reason: "preempted".to_owned(), checkpoint, cost, jitter }
        } else {
            let mark = hands.rng.next() >> 12;
            Report::Complete {
                output: workflows::output(&task.grant.workflow, token.step(), mark, hands.rng),
                cost,
            }
        };
        let complete = matches!(report, Report::Complete { .. });
        self.report(id, report, complete && hands.rng.chance(400), hands);
    }

    fn give_back(&mut self, id: u64, why: &str, hands: &mut Hands<'_>) {
        let Some(task) = self.tasks.get_mut(&id).filter(|task| task.reporting.is_none()) else { return };
        let checkpoint = hands.rng.chance(700).then(|| task.checkpoint());
        let report =
            Report::Yield { reason: why.to_owned(), checkpoint, cost: None, jitter: hands.rng.next() };
        self.report(id, report, false, hands);
    }

    fn report(&mut self, id: u64, report: Report, more: bool, hands: &mut Hands<'_>) {
        let next = (more && !self.draining).then(|| self.next_poll(1, false, hands.rng));
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let body = Body::Report(vec![(task.grant.token, report)], next);
        let call = self.outbox.send(body, hands);
        task.reporting = Some(call);
        if let Some(sent) = self.outbox.get(call) {
            hands.seen.reports.push(sent);
        }
    }

    fn heard_report(
        &mut self,
        call: &Call,
        reports: &[(LeaseToken, Report)],
        reply: &Rc<Reply>,
        hands: &mut Hands<'_>,
    ) {
        for ((token, _), answer) in reports.iter().zip(&reply.answers) {
            match answer {
                Ok(_) => self.drop_lease(token),
                Err(Failure::Refused(
                    Refusal::LeaseSuperseded { .. } | Refusal::LeaseUnknown | Refusal::RunStopped,
                )) => {
                    self.drop_lease(token);
                }
                Err(Failure::Refused(refusal)) => panic!("a report was answered with {refusal}"),
                Err(Failure::Storage(_) | Failure::Overloaded) => {
                    if let Some(task) = self.tasks.values_mut().find(|task| task.reporting == Some(call.id)) {
                        task.reporting = Some(self.outbox.resend(call, hands));
                    }
                }
            }
        }
        if matches!(call.body, Body::Report(_, Some(_))) {
            self.take(reply, hands);
        }
        hands.alarm(Duration::from_millis(1), Alarm::Act(POLL));
    }
}

impl Task {
    fn checkpoint(&mut self) -> NewCheckpoint {
        self.sequence += 1;
        NewCheckpoint {
            sequence: self.sequence,
            done: self.done,
            total: self.total,
            data: Arc::new(CheckpointData { data: json!({ "done": self.done }), artifacts: Vec::new() }),
        }
    }
}
