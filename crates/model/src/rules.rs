//! What must hold in every state, and what must be reached in some so that the model is not an idle one.

use stateright::{Expectation, Property};

use crate::row::{Answer, Attempt, Cause, Command, Report, Row, Standing, Step, Token, decide};
use crate::{Cache, Protocol, State};

/// At most one result is taken.
pub const ONE_RESULT: &str = "at most one result is taken";
/// A report changes something only by the token of the live lease.
pub const LIVE_TOKEN: &str = "whatever is taken carries the live token";
/// The next attempt has the next number, and those before stay as they were.
pub const ATTEMPTS_RISE: &str = "attempts rise by one";
/// No two attempts have the same token.
pub const TOKENS_DIFFER: &str = "no token is used twice";
/// A lease is live exactly while the step is LEASED or RUNNING, and it is the newest.
pub const ONE_LEASE: &str = "at most one lease is live";
/// What is stored never goes back; it is what the next attempt is handed. What is acknowledged is stored: see [`ANSWERS_TRUE`].
pub const CHECKPOINTS_KEPT: &str = "a committed checkpoint is not lost";
/// No lease is granted once a cancellation is committed.
pub const CANCEL_HOLDS: &str = "nothing is leased after a cancellation";
/// A terminal row stays as it is.
pub const TERMINAL_FINAL: &str = "a terminal row does not change";
/// No session ends before its time is up, and no lease is lost before its session has ended.
pub const LIVING_KEEP: &str = "who lives keeps what it holds";
/// An executor is told yes only of what is stored, be it a checkpoint or an end, and no only of what never will be.
pub const ANSWERS_TRUE: &str = "answers are true";
/// If every message, memory and executor were lost now, the row would still come to its end.
pub const NO_DEAD_END: &str = "an open step has a driver";

/// The report of an executor whose lease was taken back is there, and the answer is no.
pub const LATE_REFUSED: &str = "a late report is refused";
/// An attempt begins from a checkpoint of one that was lost.
pub const CHECKPOINT_SURVIVES: &str = "a checkpoint survives a loss";
/// A completion is taken while the run is stopping.
pub const CANCEL_MEETS_RESULT: &str = "a completion comes after a cancellation";
/// A cancellation ends the step while somebody holds it.
pub const CANCEL_ENDS: &str = "a cancellation ends a lease";
/// What a server has in memory is old, and it will lose the fence.
pub const CONFLICT: &str = "two servers are in conflict";
/// A server finds that a dispatch of which it knew nothing was done.
pub const DOUBT: &str = "a dispatch is in doubt and was done";
/// All attempts are used.
pub const EXHAUSTED: &str = "no attempt is left";

/// What went wrong on the way to a state: what cannot be told from the state alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Breaches {
    /// A report changed something by another token than the live one.
    pub stale_accepted: bool,
    /// A lease did not get the next number, or changed an attempt before it.
    pub attempt_reused: bool,
    /// A lease was granted in a run that was stopping.
    pub leased_after_cancel: bool,
    /// A terminal row was written.
    pub terminal_changed: bool,
    /// A session was ended before its time, or a lease taken back from who was alive.
    pub living_lost: bool,
    /// The stored checkpoint went back.
    pub checkpoint_lost: bool,
    /// An answer did not agree with the database.
    pub untrue: bool,
}

/// All rules.
pub(crate) fn properties() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_RESULT, |_: &Protocol, state: &State| state.results <= 1),
        Property::always(LIVE_TOKEN, |_, state: &State| !state.breaches.stale_accepted),
        Property::always(ATTEMPTS_RISE, |_, state: &State| {
            !state.breaches.attempt_reused && has_no_gap(&state.row)
        }),
        Property::always(TOKENS_DIFFER, |_, state: &State| tokens_differ(&state.row)),
        Property::always(ONE_LEASE, |_, state: &State| one_lease(&state.row)),
        Property::always(CHECKPOINTS_KEPT, |_, state: &State| !state.breaches.checkpoint_lost),
        Property::always(CANCEL_HOLDS, |_, state: &State| !state.breaches.leased_after_cancel),
        Property::always(TERMINAL_FINAL, |_, state: &State| !state.breaches.terminal_changed),
        Property::always(LIVING_KEEP, |_, state: &State| !state.breaches.living_lost),
        Property::always(ANSWERS_TRUE, |_, state: &State| !state.breaches.untrue),
        Property::always(NO_DEAD_END, |model: &Protocol, state: &State| has_driver(model, &state.row)),
        Property::sometimes(LATE_REFUSED, |_, state: &State| refuses(state)),
        Property::sometimes(CHECKPOINT_SURVIVES, |_, state: &State| survives(&state.row)),
        Property::sometimes(CANCEL_MEETS_RESULT, |_, state: &State| {
            state.row.stopping && state.row.step == Step::Succeeded
        }),
        Property::sometimes(CANCEL_ENDS, |_, state: &State| {
            state.row.step == Step::Cancelled
                && state.row.attempts().any(|attempt| attempt.standing == Standing::TakenBack)
        }),
        Property::sometimes(CONFLICT, |_, state: &State| {
            state.servers.iter().any(|server| loses(server.cache, &state.row))
        }),
        Property::sometimes(DOUBT, |_, state: &State| in_doubt(state)),
        Property::sometimes(EXHAUSTED, |_, state: &State| state.row.step == Step::Failed),
    ]
}

/// The names of the rules that must hold in every state.
pub fn always() -> Vec<&'static str> {
    let properties = properties();
    properties.iter().filter(|rule| rule.expectation == Expectation::Always).map(|rule| rule.name).collect()
}

fn has_no_gap(row: &Row) -> bool {
    row.attempts[row.count()..].iter().all(Option::is_none)
}

fn tokens_differ(row: &Row) -> bool {
    let same = |token: Token| row.attempts().filter(|attempt| attempt.token == token).count();
    row.attempts().all(|attempt| same(attempt.token) == 1)
}

fn is_live(attempt: &Attempt) -> bool {
    matches!(attempt.standing, Standing::Live(_))
}

fn one_lease(row: &Row) -> bool {
    let leased = matches!(row.step, Step::Leased | Step::Running);
    let live = row.attempts().filter(|attempt| is_live(attempt)).count();
    let newest = row.attempts().next_back().is_some_and(is_live);
    live == usize::from(leased) && newest == leased
}

/// A poll, or the end of the session that holds the step, takes the row further.
fn has_driver(model: &Protocol, row: &Row) -> bool {
    let moves = |command| decide(row, command, model.bug).row != *row;
    let poll = Command::Dispatch { executor: 0, token: Token(u8::MAX) };
    let lost = row.live().map(|(attempt, ..)| Command::Revoke { attempt, cause: Cause::LeaseLost });
    row.is_terminal() || moves(poll) || lost.is_some_and(moves)
}

/// The first attempt was lost, and the second begins from what it committed.
fn survives(row: &Row) -> bool {
    let first = row.attempts().next().map(|attempt| attempt.standing);
    let second = row.step == Step::Leased && row.count() == 2;
    second && row.checkpoint > 0 && first == Some(Standing::TakenBack)
}

/// A server knows an older version of the row, of an attempt that runs: its next write is refused.
fn loses(cache: Cache, row: &Row) -> bool {
    let Cache::Held(known) = cache else { return false };
    known.version < row.version && known.step == Step::Running && row.step == Step::Running
}

fn in_doubt(state: &State) -> bool {
    let done = |token| state.row.live().is_some_and(|(_, live, _)| live == token);
    state.servers.iter().any(|server| server.doubt.is_some_and(|(_, token)| done(token)))
}

/// A report is there that is answered with no.
fn refuses(state: &State) -> bool {
    let mut granted =
        (0..).zip(state.row.attempts()).filter(|(number, _)| state.granted[usize::from(*number)]);
    granted.any(|(number, Attempt { token, .. })| {
        let report = Command::Report { attempt: number, token: *token, report: Report::Complete };
        decide(&state.row, report, None).answer == Answer::No
    })
}
