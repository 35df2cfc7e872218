//! The clocks of one lease: when it is to be taken back, as far as this replica knows. The engine decides whether it is.

use crate::definition::Step as Definition;
use crate::ids::{RunNo, SecretHash, SessionId};
use crate::run::{Attempt, Cause, Directive, Run, Step, StepState};
use crate::time::{Duration, Timestamp};

use super::ask::{LeaseBeat, Progress};

/// How long a lease may go unheard of before it is taken back as undelivered.
pub const DISPATCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How many complete heartbeats may leave a running lease out before it is lost.
const MISSES: u32 = 2;

/// A live lease.
#[derive(Debug)]
pub(super) struct Clock {
    pub session: SessionId,
    pub no: RunNo,
    /// The run's version as it is known here.
    pub version: i64,
    pub attempt: u32,
    /// Its executor was heard of.
    pub started: bool,
    /// The step's heartbeat timeout.
    pub lasts: Duration,
    pub missed: u32,
    /// How far the executor said it is, if that was not written yet.
    pub progress: Option<Progress>,
    /// The largest progress, and when it grew.
    pub done: i64,
    /// It is on its way to be taken back.
    pub asked: bool,
    grew_at: Timestamp,
    secret: SecretHash,
    leased_at: Timestamp,
    deadline: Option<Timestamp>,
    progress_timeout: Option<Duration>,
    /// The newest committed checkpoint of this attempt.
    sequence: i64,
    directive: Option<Directive>,
}

impl Clock {
    /// The clocks of a step's live attempt. They start now: what was heard before this replica knew of it is not known.
    pub fn new(
        no: RunNo,
        number: u32,
        attempt: &Attempt,
        step: &Step,
        definition: &Definition,
        now: Timestamp,
    ) -> Clock {
        Clock {
            session: attempt.session,
            no,
            version: 0,
            attempt: number,
            started: false,
            lasts: definition.heartbeat_timeout,
            missed: 0,
            progress: None,
            done: step.best_done,
            asked: false,
            grew_at: now.max(attempt.leased_at),
            secret: attempt.secret,
            leased_at: attempt.leased_at,
            deadline: attempt.deadline,
            progress_timeout: definition.progress_timeout,
            sequence: 0,
            directive: None,
        }
    }

    /// Follows the committed run. True if it brings a directive that is new.
    pub fn follow(&mut self, run: &Run, attempt: &Attempt, step: &Step, now: Timestamp) -> bool {
        self.version = run.last_event;
        self.started = step.state == StepState::Running;
        self.deadline = attempt.deadline;
        if let Some(own) = step.checkpoint.as_ref().filter(|checkpoint| checkpoint.attempt == self.attempt) {
            self.sequence = own.sequence;
            self.advance(Some(own.done), now);
        }
        let new = self.directive != run.directive();
        self.directive = run.directive();
        new && self.directive.is_some()
    }

    /// A heartbeat named this lease. Answers what needs no decision: the committed sequence and the directive of a running
    /// lease that brings no checkpoint.
    pub fn hear(&mut self, beat: &LeaseBeat, now: Timestamp) -> Option<(i64, Option<Directive>)> {
        if self.attempt != beat.token.attempt || self.secret != beat.token.secret.hash() {
            return None;
        }
        self.missed = 0;
        let done = beat.checkpoint.as_ref().map(|checkpoint| checkpoint.done);
        self.advance(done.max(beat.progress.as_ref().map(|progress| progress.done)), now);
        if beat.progress.is_some() {
            self.progress.clone_from(&beat.progress);
        }
        (self.started && beat.checkpoint.is_none()).then_some((self.sequence, self.directive))
    }

    fn advance(&mut self, done: Option<i64>, now: Timestamp) {
        if let Some(done) = done.filter(|done| *done > self.done) {
            self.done = done;
            self.grew_at = now;
        }
    }

    /// Which of its times is up first, and since when. `heard` is when its session last called here, `credited` for how long
    /// clocks stood still since a time.
    ///
    /// Nobody gets on who is not alive: no progress is judged by a call that came after the time was up, and its absence by the
    /// end of the session. So a replica whose executor has moved to another one does not judge what it cannot see.
    pub fn overdue(
        &self,
        heard: Timestamp,
        credited: impl Fn(Timestamp) -> Duration,
        now: Timestamp,
    ) -> Option<(Cause, Timestamp)> {
        if self.missed >= MISSES {
            return Some((Cause::LeaseLost, self.leased_at));
        }
        let moved = credited(self.leased_at);
        let undelivered =
            (!self.started).then_some((Cause::DispatchTimeout, self.leased_at + DISPATCH_TIMEOUT + moved));
        let stands_still = self
            .progress_timeout
            .map(|timeout| (Cause::NoProgress, self.grew_at + timeout + credited(self.grew_at)));
        let too_long = self.deadline.map(|deadline| (Cause::AttemptTimeout, deadline + moved));
        [undelivered, stands_still.filter(|(_, due)| *due <= heard), too_long]
            .into_iter()
            .flatten()
            .filter(|(_, due)| *due <= now)
            .min_by_key(|(_, due)| *due)
    }

    /// When the lease was granted.
    pub fn leased_at(&self) -> Timestamp {
        self.leased_at
    }
}

#[cfg(test)]
mod tests {
    use crate::ids::Secret;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(0) + Duration::from_secs(seconds)
    }

    /// Granted at 100 s and heard of; it may last until 200 s, and stand still for 30.
    fn running() -> Clock {
        Clock {
            session: SessionId(uuid::Uuid::nil()),
            no: RunNo(0),
            version: 1,
            attempt: 1,
            started: true,
            lasts: Duration::from_secs(30),
            missed: 0,
            progress: None,
            done: 0,
            asked: false,
            grew_at: at(100),
            secret: Secret([0; 16]).hash(),
            leased_at: at(100),
            deadline: Some(at(200)),
            progress_timeout: Some(Duration::from_secs(30)),
            sequence: 0,
            directive: None,
        }
    }

    /// What is overdue, and since which second, when `still` seconds do not count.
    fn overdue(clock: &Clock, heard: i64, still: i64, now: i64) -> Option<(Cause, i64)> {
        let overdue = clock.overdue(at(heard), |_| Duration::from_secs(still), at(now));
        overdue.map(|(cause, due)| (cause, due.micros() / 1_000_000))
    }

    #[test]
    fn the_time_that_is_up_first_counts() {
        let clock = running();
        assert_eq!(overdue(&clock, 129, 0, 129), None);
        assert_eq!(overdue(&clock, 130, 0, 130), Some((Cause::NoProgress, 130)));
        assert_eq!(overdue(&clock, 129, 0, 199), None, "who was not heard of since may have got on");
        assert_eq!(overdue(&clock, 129, 0, 200), Some((Cause::AttemptTimeout, 200)));
        let unheard = Clock { started: false, ..running() };
        assert_eq!(overdue(&unheard, 0, 0, 109), None);
        assert_eq!(overdue(&unheard, 0, 0, 110), Some((Cause::DispatchTimeout, 110)));
        let missed = Clock { missed: MISSES, ..running() };
        assert_eq!(overdue(&missed, 101, 0, 101), Some((Cause::LeaseLost, 100)));
        assert_eq!(overdue(&Clock { missed: MISSES - 1, ..running() }, 101, 0, 101), None);
    }

    #[test]
    fn every_time_is_later_by_what_does_not_count() {
        let clock = running();
        assert_eq!(overdue(&clock, 136, 7, 136), None);
        assert_eq!(overdue(&clock, 137, 7, 137), Some((Cause::NoProgress, 137)));
        assert_eq!(overdue(&clock, 129, 7, 206), None);
        assert_eq!(overdue(&clock, 129, 7, 207), Some((Cause::AttemptTimeout, 207)));
        let unheard = Clock { started: false, ..running() };
        assert_eq!(overdue(&unheard, 0, 7, 116), None);
        assert_eq!(overdue(&unheard, 0, 7, 117), Some((Cause::DispatchTimeout, 117)));
    }
}
