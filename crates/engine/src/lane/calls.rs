//! Calls: what was asked, and what is still missing from the answer.

use crate::command::{Answer, Command, Lease, Report};
use crate::ids::{LeaseToken, SessionId};
use crate::run::Cause;
use crate::time::Timestamp;

use super::ask::{Ask, Asked, Beat, Failure, Grant, Poll, Reply, Ticket};
use super::dispatch::Over;
use super::{Lane, Origin, Pending, Random};

/// A call that is not answered yet.
#[derive(Debug)]
pub(super) struct Call {
    answers: Vec<Option<Result<Answer, Failure>>>,
    grants: Vec<Grant>,
    /// It waits for grants.
    polling: bool,
    session: Option<SessionId>,
    /// It heartbeats: its answer carries a committed end of the session.
    beating: bool,
}

impl Lane {
    /// Takes a call in.
    pub fn ask(&mut self, ask: Ask, now: Timestamp) {
        let Ask { ticket, commands, sheddable, beat, poll } = ask;
        if sheddable && !self.config.has_room(self.submits.len(), commands.len()) {
            let answers = commands.iter().map(|_| Err(Failure::Overloaded)).collect();
            self.replies.push(Reply { ticket, answers, grants: Vec::new(), session: None });
            return;
        }
        let session = beat.as_ref().map(|beat| beat.session).or(poll.as_ref().map(|poll| poll.session));
        let (polling, beating) = (poll.is_some(), beat.is_some());
        let mut call = Call { answers: Vec::new(), grants: Vec::new(), polling, session, beating };
        if let Some(beat) = beat {
            self.take_beat(ticket, &mut call, beat, now);
        }
        for Asked { run, workflow, command } in commands {
            let slot = call.answers.len();
            call.answers.push(None);
            let origin = Origin::Call(ticket, slot);
            let create = matches!(command, Command::Create(_));
            let pending = Pending { run, workflow, command, origin, arrived: self.issued, tried_at: None };
            if create { self.submits.push_back(pending) } else { self.reports.push_back(pending) }
        }
        self.calls.insert(ticket, call);
        if let Some(poll) = poll {
            self.take_poll(ticket, poll, now);
        }
        self.finish(ticket, now);
        if beating && self.calls.contains_key(&ticket) {
            self.beating.push(ticket);
        }
    }

    fn take_beat(&mut self, ticket: Ticket, call: &mut Call, beat: Beat, now: Timestamp) {
        let known = self.sessions.beat(&beat, now);
        for (slot, (lease, known)) in beat.leases.into_iter().zip(known).enumerate() {
            call.answers.push(
                known.map(|(sequence, directive)| Ok(Answer::Reported { fresh: true, sequence, directive })),
            );
            if known.is_none() {
                let report = Report::Heartbeat { checkpoint: lease.checkpoint };
                self.reports.push_back(Pending {
                    run: lease.token.run,
                    workflow: None,
                    command: Command::Report { lease: Lease::from(&lease.token), report },
                    origin: Origin::Call(ticket, slot),
                    arrived: self.issued,
                    tried_at: None,
                });
            }
        }
    }

    fn take_poll(&mut self, ticket: Ticket, mut poll: Poll, now: Timestamp) {
        poll.executor = self.sessions.touch(poll.session, &poll.executor, now);
        let undelivered = |grant: &&Grant| {
            let token = &grant.token;
            self.sessions.undelivered(token.run, token.step(), token.attempt)
        };
        let again: Vec<Grant> = self.dispatch.granted(&poll).iter().filter(undelivered).cloned().collect();
        if self.sessions.has_ended(poll.session) || !again.is_empty() {
            self.end_polling(ticket, again, now);
        } else if let Some(replaced) = self.dispatch.take_place(ticket, &poll) {
            self.end_polling(replaced, Vec::new(), now);
        } else {
            self.dispatch.park(ticket, poll, self.issued, self.others > 0);
        }
    }

    /// The caller of a poll waits no more: its time is up, or it is gone.
    pub fn end_poll(&mut self, ticket: Ticket, gone: bool, now: Timestamp) {
        if let Some(over) = self.dispatch.end(ticket, gone) {
            self.end_polling(over.ticket, over.grants, now);
        }
    }

    /// Grants whose caller could not be told: their steps are ready again at once.
    pub fn hand_back(
        &mut self,
        tokens: impl IntoIterator<Item = LeaseToken>,
        now: Timestamp,
        random: Random<'_>,
    ) {
        for token in tokens {
            self.dispatch.forget_grants(|granted| *granted != token);
            let cause = Cause::DispatchTimeout;
            let command =
                Command::Revoke { step: token.step(), attempt: token.attempt, cause, jitter: random() };
            self.remind(token.run, command, now);
        }
    }

    pub(super) fn end_polling(&mut self, ticket: Ticket, grants: Vec<Grant>, now: Timestamp) {
        if let Some(call) = self.calls.get_mut(&ticket) {
            call.polling = false;
            call.grants = grants;
        }
        self.finish(ticket, now);
    }

    /// A poll is over. Its caller is told, or, if there is none any more, its grants are handed back.
    pub(super) fn finish_poll(&mut self, over: Over, now: Timestamp, random: Random<'_>) {
        let Over { ticket, session, request, grants, gone } = over;
        if gone {
            self.hand_back(grants.iter().map(|grant| grant.token), now, random);
            return self.end_polling(ticket, Vec::new(), now);
        }
        if let Some(request) = request.filter(|_| !grants.is_empty()) {
            self.dispatch.remember(session, request, &grants);
        }
        self.end_polling(ticket, grants, now);
    }

    /// Replies if nothing is missing any more.
    fn finish(&mut self, ticket: Ticket, now: Timestamp) {
        let Some(call) = self.calls.get(&ticket) else { return };
        let waits_for_session =
            call.beating && call.session.is_some_and(|session| self.sessions.renewing(session));
        if call.polling || waits_for_session || call.answers.iter().any(Option::is_none) {
            return;
        }
        let Some(call) = self.calls.remove(&ticket) else { return };
        self.replies.push(Reply {
            ticket,
            answers: call.answers.into_iter().flatten().collect(),
            grants: call.grants,
            session: call.session.and_then(|session| self.sessions.standing(session, now)),
        });
    }

    pub(super) fn answer(
        &mut self,
        ticket: Ticket,
        slot: usize,
        answer: Result<Answer, Failure>,
        now: Timestamp,
    ) {
        if let Some(call) = self.calls.get_mut(&ticket) {
            call.answers[slot] = Some(answer);
        }
        self.finish(ticket, now);
    }

    /// After a work: heartbeats whose session was renewed or has ended, and polls of sessions that have ended.
    pub(super) fn tell_sessions(&mut self, now: Timestamp) {
        for session in self.sessions.news() {
            for over in self.dispatch.end_session(session) {
                self.end_polling(over.ticket, over.grants, now);
            }
        }
        for ticket in std::mem::take(&mut self.beating) {
            self.finish(ticket, now);
            if self.calls.contains_key(&ticket) {
                self.beating.push(ticket);
            }
        }
    }
}
