//! Random commands: mostly such as fit the run, and some of every other kind.

use std::sync::Arc;

use longtake_engine::command::{Command, Deadline, Lease, NewCheckpoint, Operation, Report, Timer};
use longtake_engine::ids::{RequestId, Secret, SessionId, StepNo};
use longtake_engine::money::Money;
use longtake_engine::rows::Rows;
use longtake_engine::run::{Artifact, Cause, CheckpointData, Output, Run, StepError, StepState};
use longtake_engine::time::{Duration, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

/// What is asked, before it is fitted to a run.
#[derive(Clone, Debug)]
pub struct Asked {
    pub clock: Clock,
    pub what: What,
}

/// What the clock does before.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    Stays,
    Moves(i64),
    /// To when the next timer, or the next attempt's deadline, is due.
    ToTimer,
    /// Wherever; also back.
    Jumps(i64),
}

#[derive(Clone, Debug)]
pub enum What {
    Create {
        same: bool,
    },
    Dispatch {
        aim: Aim,
        again: bool,
    },
    Report {
        aim: Aim,
        forged: bool,
        report: Report,
    },
    Revoke {
        aim: Aim,
        cause: Cause,
        jitter: u64,
    },
    Fire {
        number: u8,
        due: bool,
    },
    Operate {
        call: u8,
        operation: Operation,
    },
    /// An earlier command once more, counted from the latest one.
    Repeat(u8),
}

/// Which step and attempt is meant.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    /// One of those for which it would be right, and its latest attempt.
    Right(u8),
    /// Any step, and so many attempts before its latest one.
    Any(u8, u8),
    /// Wherever that is.
    Wild(StepNo, u32),
}

pub fn asked() -> impl Strategy<Value = Asked> {
    let clock = prop_oneof![
        400 => Just(Clock::Stays),
        150 => (0..3_000_000i64).prop_map(Clock::Moves),
        150 => Just(Clock::ToTimer),
        5 => (0..600_000_000i64).prop_map(Clock::Moves),
        1 => any::<i64>().prop_map(Clock::Jumps),
        10 => (-1_000_000..60_000_000i64).prop_map(Clock::Jumps),
    ];
    let what = prop_oneof![
        2 => any::<bool>().prop_map(|same| What::Create { same }),
        30 => (aim(), prop::bool::weighted(0.1)).prop_map(|(aim, again)| What::Dispatch { aim, again }),
        40 => (aim(), prop::bool::weighted(0.05), report())
            .prop_map(|(aim, forged, report)| What::Report { aim, forged, report }),
        12 => (aim(), cause(), any::<u64>()).prop_map(|(aim, cause, jitter)| What::Revoke { aim, cause, jitter }),
        25 => (any::<u8>(), prop::bool::weighted(0.9)).prop_map(|(number, due)| What::Fire { number, due }),
        10 => (any::<u8>(), operation()).prop_map(|(call, operation)| What::Operate { call, operation }),
        10 => any::<u8>().prop_map(What::Repeat),
    ];
    (clock, what).prop_map(|(clock, what)| Asked { clock, what })
}

fn aim() -> impl Strategy<Value = Aim> {
    prop_oneof![
        20 => any::<u8>().prop_map(Aim::Right),
        5 => (any::<u8>(), 0..4u8).prop_map(|(step, back)| Aim::Any(step, back)),
        1 => (any::<StepNo>(), any::<u32>()).prop_map(|(step, attempt)| Aim::Wild(step, attempt)),
        1 => prop::sample::select(vec![0, u32::MAX]).prop_map(|attempt| Aim::Wild(0, attempt)),
    ]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![30 => -1..20i64, 1 => any::<i64>(), 1 => prop::sample::select(vec![i64::MIN, i64::MAX])]
}

fn money() -> impl Strategy<Value = Option<Money>> {
    proptest::option::of(prop_oneof![20 => 0..1_000_000_000i64, 1 => any::<i64>()].prop_map(Money))
}

fn checkpoint() -> impl Strategy<Value = Option<NewCheckpoint>> {
    let checkpoint = (number(), number(), number()).prop_map(|(sequence, done, total)| {
        let data = CheckpointData { data: serde_json::json!(sequence), artifacts: Vec::new() };
        NewCheckpoint { sequence, done, total, data: Arc::new(data) }
    });
    proptest::option::weighted(0.4, checkpoint)
}

fn report() -> impl Strategy<Value = Report> {
    let fail = (
        prop::bool::weighted(0.95),
        proptest::option::weighted(0.2, number()),
        checkpoint(),
        money(),
        any::<u64>(),
    );
    prop_oneof![
        3 => checkpoint().prop_map(|checkpoint| Report::Heartbeat { checkpoint }),
        3 => (output(), money()).prop_map(|(output, cost)| Report::Complete { output, cost }),
        2 => fail.prop_map(|(retryable, after, checkpoint, cost, jitter)| Report::Fail {
            error: StepError::new("BOOM", "it broke", retryable),
            retry_after: after.map(Duration),
            checkpoint,
            cost,
            jitter,
        }),
        2 => (any::<bool>(), checkpoint(), money(), any::<u64>()).prop_map(|(mute, checkpoint, cost, jitter)| {
            let reason = if mute { "" } else { "drained" };
            Report::Yield { reason: reason.to_owned(), checkpoint, cost, jitter }
        }),
    ]
}

fn output() -> impl Strategy<Value = Output> {
    let data = prop_oneof![
        30 => Just(serde_json::json!({ "ok": true })),
        10 => Just(serde_json::json!({ "ok": false })),
        1 => Just(serde_json::json!({})),
    ];
    (data, prop::bool::weighted(0.8)).prop_map(|(data, made)| made_of(data, made))
}

/// An output, with a file if it was made.
pub fn made_of(data: serde_json::Value, made: bool) -> Output {
    let artifact = made.then(|| Artifact {
        name: "file".to_owned(),
        uri: "file:///file".to_owned(),
        sha256: "00".repeat(32),
        size_bytes: 1,
        media_type: "text/plain".to_owned(),
    });
    Output { data: Arc::new(data), artifacts: artifact.into_iter().collect() }
}

fn cause() -> impl Strategy<Value = Cause> {
    prop_oneof![
        8 => prop::sample::select(vec![
            Cause::LeaseLost,
            Cause::DispatchTimeout,
            Cause::NoProgress,
            Cause::AttemptTimeout,
        ]),
        1 => prop::sample::select(vec![
            Cause::Completed,
            Cause::Failed,
            Cause::Yielded,
            Cause::StepTimeout,
            Cause::Stopped,
        ]),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let time = || prop_oneof![10 => 0..3_600_000_000i64, 1 => any::<i64>()].prop_map(Timestamp);
    let step = || prop_oneof![20 => 0..8usize, 1 => any::<StepNo>()];
    let which = prop_oneof![
        Just(Deadline::Run),
        step().prop_map(Deadline::Step),
        step().prop_map(Deadline::Attempt),
    ];
    prop_oneof![
        1 => Just(Operation::Cancel { reason: String::new() }),
        4 => Just(Operation::Pause { reason: String::new() }),
        8 => Just(Operation::Resume),
        8 => proptest::option::of(time()).prop_map(|deadline| Operation::Retry { deadline }),
        8 => (which, time()).prop_map(|(which, to)| Operation::ExtendDeadline { which, to }),
    ]
}

/// A proof, the same for the same numbers.
pub fn secret(step: StepNo, attempt: u32) -> Secret {
    let step = u128::try_from(step).unwrap_or(u128::MAX);
    Secret((step.wrapping_shl(32) | u128::from(attempt)).to_be_bytes())
}

/// The lease of an attempt as its holder shows it.
pub fn lease(run: &Run, step: StepNo, attempt: u32) -> Lease {
    let held = run.steps.get(step).and_then(|step| step.numbered(attempt));
    let secret = held.map_or_else(|| secret(step, attempt).hash(), |held| held.secret);
    Lease { step, attempt, secret }
}

impl Aim {
    fn at(self, run: &Run, right: fn(StepState) -> bool) -> (StepNo, u32) {
        let latest = |step: StepNo| run.steps[step].attempt();
        match self {
            Aim::Right(number) => {
                let fitting: Vec<StepNo> =
                    (0..run.steps.len()).filter(|step| right(run.steps[*step].state)).collect();
                let step = if fitting.is_empty() { 0 } else { fitting[usize::from(number) % fitting.len()] };
                (step, latest(step))
            }
            Aim::Any(number, back) => {
                let step = usize::from(number) % run.steps.len();
                (step, latest(step).saturating_sub(u32::from(back)))
            }
            Aim::Wild(step, attempt) => (step, attempt),
        }
    }
}

impl What {
    /// The command that it is for this run; `None` for a repetition.
    pub fn command(&self, run: &Run) -> Option<Command> {
        Some(match self {
            What::Create { same } => {
                let mut request = (*run.request).clone();
                request.content_hash[31] ^= u8::from(!same);
                Command::Create(Arc::new(request))
            }
            What::Dispatch { aim, again } => {
                let (step, attempt) = aim.at(run, |state| matches!(state, StepState::Ready(_)));
                let attempt = attempt.wrapping_add(u32::from(!again));
                let session = SessionId(Uuid::from_u128(u128::from(attempt % 3)));
                Command::Dispatch {
                    step,
                    secret: secret(step, attempt),
                    session,
                    executor: "executor-1".into(),
                }
            }
            What::Report { aim, forged, report } => {
                let (step, attempt) = aim.at(run, StepState::is_leased);
                let mut lease = lease(run, step, attempt);
                lease.secret.0[0] ^= u8::from(*forged);
                Command::Report { lease, report: report.clone() }
            }
            What::Revoke { aim, cause, jitter } => {
                let (step, attempt) = aim.at(run, StepState::is_leased);
                Command::Revoke { step, attempt, cause: *cause, jitter: *jitter }
            }
            What::Fire { number, due } => Command::Fire(timer(run, *number, *due)),
            What::Operate { call, operation } => Command::Operate {
                call: RequestId(Uuid::from_u128(u128::from(*call))),
                operation: operation.clone(),
            },
            What::Repeat(_) => return None,
        })
    }
}

/// One of the timers that the run has, the first one most of the time; or any.
fn timer(run: &Run, number: u8, due: bool) -> Timer {
    let rows = Rows::of(run);
    let mut timers: Vec<(Timestamp, Timer)> = rows.timers.iter().map(|(timer, due)| (*due, *timer)).collect();
    timers.sort_unstable();
    let step = usize::from(number / 4) % 10;
    match timers.first() {
        Some((_, timer)) if due => *timer,
        _ => [Timer::Backoff(step), Timer::StepDeadline(step), Timer::RunDeadline, Timer::StopGrace]
            [usize::from(number) % 4],
    }
}
