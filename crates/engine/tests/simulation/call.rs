//! What actors ask of servers, and how they keep asking until they are answered.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use longtake_engine::command::{Command, Lease, Report};
use longtake_engine::ids::LeaseToken;
use longtake_engine::lane::{Ask, Asked, Beat, Poll, Reply, Ticket};
use longtake_engine::time::{Duration, Timestamp};

use crate::rng::Rng;

/// A call; its repetitions are the same call.
pub struct Call {
    pub id: u64,
    pub body: Body,
    /// How often it was sent, by whomever.
    pub sends: Cell<u32>,
}

#[derive(Clone)]
pub enum Body {
    Submit(Vec<Asked>),
    Operate(Asked),
    Poll(Poll, Duration),
    /// A heartbeat, and for how long it may be held.
    Beat(Beat, Duration),
    Report(Vec<(LeaseToken, Report)>, Option<Poll>),
}

/// What an actor hears of a call.
#[derive(Clone)]
pub enum Heard {
    Reply(Rc<Reply>),
    /// The server is not there, or went away; or nothing was heard for too long.
    Unavailable,
}

/// When an actor wants to be called again.
#[derive(Clone, Copy, Debug)]
pub enum Alarm {
    /// Something of its own.
    Act(u64),
    /// A call that was sent so often was not answered in time.
    Timeout(u64, u32),
    /// Time to send a call again.
    Again(u64),
}

/// What an actor does.
pub enum Effect {
    Send(Rc<Call>),
    /// Nobody waits for this call any more, as far as it was sent.
    Abandon(Rc<Call>),
    Alarm(Timestamp, Alarm),
}

/// What an actor works with.
pub struct Hands<'a> {
    pub now: Timestamp,
    /// Faults have stopped.
    pub calm: bool,
    pub rng: &'a mut Rng,
    pub calls: &'a mut u64,
    pub effects: &'a mut Vec<Effect>,
    /// Every lease that any executor ever saw, and every report that one sent: for those who lie.
    pub seen: &'a mut Seen,
}

#[derive(Default)]
pub struct Seen {
    pub tokens: Vec<LeaseToken>,
    pub reports: Vec<Rc<Call>>,
}

impl Hands<'_> {
    pub fn alarm(&mut self, after: Duration, alarm: Alarm) {
        self.effects.push(Effect::Alarm(self.now + after, alarm));
    }

    /// At some time between so many milliseconds from now.
    pub fn alarm_within(&mut self, from: i64, to: i64, alarm: Alarm) {
        let after = Duration::from_millis(self.rng.range(from, to));
        self.alarm(after, alarm);
    }

    pub fn call(&mut self, body: Body) -> Rc<Call> {
        *self.calls += 1;
        Rc::new(Call { id: *self.calls, body, sends: Cell::new(0) })
    }
}

impl Call {
    /// How long the caller waits for an answer.
    fn patience(&self) -> Duration {
        match &self.body {
            Body::Poll(_, wait) | Body::Beat(_, wait) => *wait + Duration::from_secs(3),
            Body::Submit(_) | Body::Operate(_) | Body::Report(..) => Duration::from_secs(3),
        }
    }

    pub fn ask(&self, ticket: Ticket) -> Ask {
        let none = Ask { ticket, commands: Vec::new(), sheddable: false, beat: None, poll: None };
        match &self.body {
            Body::Submit(asked) => Ask { commands: asked.clone(), sheddable: true, ..none },
            Body::Operate(asked) => Ask { commands: vec![asked.clone()], ..none },
            Body::Poll(poll, _) => Ask { poll: Some(poll.clone()), ..none },
            Body::Beat(beat, _) => Ask { beat: Some(beat.clone()), ..none },
            Body::Report(reports, next) => Ask { commands: reported(reports), poll: next.clone(), ..none },
        }
    }
}

pub fn reported(reports: &[(LeaseToken, Report)]) -> Vec<Asked> {
    let asked = reports.iter().map(|(token, report)| Asked {
        run: token.run,
        workflow: None,
        command: Command::Report { lease: Lease::from(token), report: report.clone() },
    });
    asked.collect()
}

/// Calls that are not answered yet.
#[derive(Default)]
pub struct Outbox {
    waiting: BTreeMap<u64, (Rc<Call>, u32)>,
}

impl Outbox {
    pub fn send(&mut self, body: Body, hands: &mut Hands<'_>) -> u64 {
        let call = hands.call(body);
        let id = call.id;
        self.waiting.insert(id, (call, 0));
        self.transmit(id, hands);
        id
    }

    /// Asks once more what was answered with a failure.
    pub fn resend(&mut self, call: &Call, hands: &mut Hands<'_>) -> u64 {
        let sends = call.sends.clone();
        let call = hands.call(call.body.clone());
        call.sends.set(sends.get());
        self.waiting.insert(call.id, (call.clone(), 0));
        hands.alarm_within(50, 1000, Alarm::Again(call.id));
        call.id
    }

    fn transmit(&mut self, id: u64, hands: &mut Hands<'_>) {
        let Some((call, tries)) = self.waiting.get_mut(&id) else { return };
        *tries += 1;
        hands.effects.push(Effect::Send(call.clone()));
        let (patience, tries) = (call.patience(), *tries);
        hands.alarm(patience, Alarm::Timeout(id, tries));
    }

    /// The call was answered; none if nobody waits for it.
    pub fn answered(&mut self, id: u64) -> Option<Rc<Call>> {
        self.waiting.remove(&id).map(|(call, _)| call)
    }

    /// The call was not answered. It is sent again in a moment, unless it was sent `most` times: then it is returned.
    pub fn unanswered(&mut self, id: u64, most: u32, hands: &mut Hands<'_>) -> Option<Rc<Call>> {
        let (call, tries) = self.waiting.get(&id)?;
        hands.effects.push(Effect::Abandon(call.clone()));
        if *tries >= most {
            return self.answered(id);
        }
        let longest = 400 * i64::from(*tries).min(4);
        hands.alarm_within(20, longest, Alarm::Again(id));
        None
    }

    /// Sends again what nobody answered.
    pub fn again(&mut self, id: u64, hands: &mut Hands<'_>) {
        self.transmit(id, hands);
    }

    pub fn get(&self, id: u64) -> Option<Rc<Call>> {
        self.waiting.get(&id).map(|(call, _)| call.clone())
    }

    /// Whether this timeout is of the latest sending.
    pub fn timed_out(&self, id: u64, sent: u32) -> bool {
        self.waiting.get(&id).is_some_and(|(_, tries)| *tries == sent)
    }

    pub fn clear(&mut self, hands: &mut Hands<'_>) {
        let calls = std::mem::take(&mut self.waiting).into_values();
        hands.effects.extend(calls.map(|(call, _)| Effect::Abandon(call)));
    }
}
