//! One held lease: where the step's context and the session's loops meet.
//!
//! The context puts checkpoints and progress in; the loops take out what is due and bring back acknowledgements, directives and
//! the order to stop. Nothing here waits for the network.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use longtake_proto::v1;

use crate::Directive;
use crate::ruling::{Flaw, Ruling};

pub(crate) struct Lease {
    pub(crate) token: String,
    granted_at: Instant,
    state: Mutex<State>,
    committed: watch::Sender<Committed>,
    directive: watch::Sender<Option<Directive>>,
    stop: watch::Sender<Option<Stop>>,
    closed: CancellationToken,
    /// Something is due: wakes the loop that sends it.
    due: Arc<Notify>,
}

/// Why work must stop at once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stop {
    /// The server said that the lease is gone; nothing that is still sent counts.
    Gone(String),
    /// The session could not be renewed in time.
    SessionEnded,
}

/// How far the server has acknowledged an attempt's checkpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Committed {
    /// All up to this one are stored, or replaced by a newer one that is.
    pub(crate) sequence: i64,
    /// The newest one that was refused.
    pub(crate) refused: i64,
    /// Why.
    pub(crate) refusal: String,
}

/// What a reply means for the calls that follow it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// The server could not take some of it.
    pub(crate) again: bool,
    /// It came early, with a directive that was not known.
    pub(crate) news: bool,
}

#[derive(Default)]
struct State {
    from_server: Option<Directive>,
    draining: bool,
    last_sequence: i64,
    /// The newest checkpoint that is not acknowledged: an older one is worth nothing beside it.
    checkpoint: Option<v1::Checkpoint>,
    sent_sequence: i64,
    progress: Option<v1::Progress>,
    progress_due: Option<Instant>,
    progress_sent_at: Option<Instant>,
    /// It was named in a renewal.
    heard: bool,
}

/// When a lease asks for a call without being asked.
#[derive(Clone, Copy)]
pub(crate) struct Pacing {
    pub(crate) first_heartbeat: Duration,
    pub(crate) progress_interval: Duration,
}

impl Lease {
    pub(crate) fn new(token: String, due: Arc<Notify>) -> Lease {
        Lease {
            token,
            granted_at: Instant::now(),
            state: Mutex::default(),
            committed: watch::Sender::default(),
            directive: watch::Sender::default(),
            stop: watch::Sender::default(),
            closed: CancellationToken::new(),
            due,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- for the context ---

    /// Numbers a checkpoint and has it sent.
    pub(crate) fn put_checkpoint(&self, mut checkpoint: v1::Checkpoint) -> i64 {
        let mut state = self.state();
        state.last_sequence += 1;
        checkpoint.sequence = state.last_sequence;
        state.checkpoint = Some(checkpoint);
        let sequence = state.last_sequence;
        drop(state);
        self.due.notify_one();
        sequence
    }

    pub(crate) fn put_progress(&self, progress: v1::Progress, pacing: Pacing) {
        let mut state = self.state();
        state.progress = Some(progress);
        if state.progress_due.is_some() {
            return;
        }
        let now = Instant::now();
        state.progress_due =
            Some(state.progress_sent_at.map_or(now, |sent| (sent + pacing.progress_interval).max(now)));
        drop(state);
        self.due.notify_one();
    }

    pub(crate) fn committed(&self) -> watch::Receiver<Committed> {
        self.committed.subscribe()
    }

    pub(crate) fn directive(&self) -> watch::Receiver<Option<Directive>> {
        self.directive.subscribe()
    }

    /// Cancelled when nobody wants the work any more.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    // --- for the attempt ---

    /// Resolves when work must stop at once.
    pub(crate) async fn stopped(&self) -> Stop {
        let mut stop = self.stop.subscribe();
        let found = stop.wait_for(Option::is_some).await.ok().and_then(|stop| stop.clone());
        // The sender lives in `self`, so that it cannot be gone.
        found.unwrap_or(Stop::SessionEnded)
    }

    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// The newest checkpoint that the server has not acknowledged: the last report may carry it.
    pub(crate) fn unacknowledged(&self) -> Option<v1::Checkpoint> {
        self.state().checkpoint.clone()
    }

    // --- for the session's loops ---

    pub(crate) fn stop(&self, why: Stop) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(why);
            first
        });
    }

    /// The executor drains: asks the step to yield.
    pub(crate) fn drain(&self) {
        self.state().draining = true;
        self.direct();
    }

    fn direct(&self) {
        let state = self.state();
        let drain = state.draining.then_some(Directive::Yield);
        let strongest = state.from_server.max(drain);
        drop(state);
        self.directive.send_if_modified(|directive| std::mem::replace(directive, strongest) != strongest);
    }

    /// When the server should hear of this lease for the first time; none when it was told.
    pub(crate) fn first_due(&self, pacing: Pacing) -> Option<Instant> {
        (!self.state().heard).then_some(self.granted_at + pacing.first_heartbeat)
    }

    /// When this lease has something to deliver; none while there is nothing.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        let state = self.state();
        let unsent =
            state.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.sequence > state.sent_sequence);
        if unsent {
            return Some(self.granted_at);
        }
        state.progress_due
    }

    /// What is to be delivered now, with a checkpoint if one is unsent; taken as sent until [`Lease::undelivered`] says otherwise.
    pub(crate) fn take_due(&self) -> v1::LeaseHeartbeat {
        let mut state = self.state();
        let sent = state.sent_sequence;
        let checkpoint = state.checkpoint.clone().filter(|checkpoint| checkpoint.sequence > sent);
        if let Some(checkpoint) = &checkpoint {
            state.sent_sequence = checkpoint.sequence;
        }
        self.heartbeat(&mut state, checkpoint)
    }

    /// A renewal: never with a checkpoint, so that any number of leases fits into one call.
    pub(crate) fn renewal(&self) -> v1::LeaseHeartbeat {
        let mut state = self.state();
        state.heard = true;
        self.heartbeat(&mut state, None)
    }

    fn heartbeat(&self, state: &mut State, checkpoint: Option<v1::Checkpoint>) -> v1::LeaseHeartbeat {
        if state.progress_due.take().is_some() {
            state.progress_sent_at = Some(Instant::now());
        }
        v1::LeaseHeartbeat {
            lease_token: self.token.clone(),
            checkpoint,
            progress: state.progress.clone(),
            directive: state.from_server.map_or(v1::Directive::Unspecified, Directive::to_proto).into(),
        }
    }

    /// The call that carried what was taken has failed.
    pub(crate) fn undelivered(&self) {
        self.state().sent_sequence = 0;
    }

    /// Takes in what the server says of this lease.
    pub(crate) fn apply(&self, status: &v1::LeaseStatus, sent_sequence: i64) -> Heard {
        match Ruling::of(status.verdict.as_ref()) {
            Ruling::Gone(why) => self.stop(Stop::Gone(why)),
            Ruling::Again(_) => {
                self.undelivered();
                return Heard { again: true, news: false };
            }
            Ruling::Refused(Flaw::Checkpoint | Flaw::Output | Flaw::Error | Flaw::Other, why) => {
                self.refuse(sent_sequence, why);
            }
            Ruling::Accepted | Ruling::Ended => {}
        }
        self.acknowledge(status.committed_sequence);
        let directive = Directive::from_proto(status.directive());
        let known = std::mem::replace(&mut self.state().from_server, directive);
        self.direct();
        Heard { again: false, news: known != directive }
    }

    fn acknowledge(&self, sequence: i64) {
        let mut state = self.state();
        if state.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.sequence <= sequence) {
            state.checkpoint = None;
        }
        drop(state);
        self.committed.send_if_modified(|committed| {
            let newer = sequence > committed.sequence;
            committed.sequence = committed.sequence.max(sequence);
            newer
        });
    }

    fn refuse(&self, sequence: i64, why: String) {
        let mut state = self.state();
        if state.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.sequence <= sequence) {
            state.checkpoint = None;
        }
        drop(state);
        self.committed.send_modify(|committed| {
            committed.refused = committed.refused.max(sequence);
            committed.refusal = why;
        });
    }
}
