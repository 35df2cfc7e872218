//! What really happened, summed over all seeds: a fault that never strikes tests nothing.

/// Something worth counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Hit {
    Write,
    Conflict,
    SessionFence,
    TooEarly,
    CreateConflict,
    FailedWrite,
    PoisonedWrite,
    UnknownApplied,
    UnknownNever,
    UnknownLate,
    LateForced,
    LateApplied,
    LateFenced,
    LockedRead,
    WorkRepeated,
    BigBatch,
    SecondWrite,
    ThirdWrite,
    TwoWrites,
    ServerCrash,
    CrashWithWork,
    ServerFreeze,
    ExecutorCrash,
    ExecutorFreeze,
    Drain,
    MessageLost,
    MessageDoubled,
    CallerGone,
    HandBack,
    PollRepeated,
    GrantRepeated,
    GrantInCompletion,
    DirectGrant,
    BacklogGrant,
    HeldBeatWoken,
    DirectiveHeard,
    SessionEnded,
    SessionEndedElsewhere,
    SessionEndedUnlooked,
    SessionForgotten,
    SessionAdopted,
    SessionFoundAgain,
    EndedHeard,
    Outage,
    DatabaseCut,
    Overloaded,
    StorageFailure,
    LeaseLost,
    LeftOut,
    DispatchTimeout,
    NoProgress,
    AttemptTimeout,
    StepTimedOut,
    RunTimedOut,
    StopGrace,
    Superseded,
    LeaseUnknown,
    RunStopped,
    WrongState,
    ContentDiffers,
    RunUnknown,
    RepeatedReport,
    RepeatedCreate,
    RepeatedCall,
    Cancelled,
    Paused,
    Resumed,
    Retried,
    Extended,
    Succeeded,
    Failed,
    Skipped,
    LastOne,
}

const HITS: usize = Hit::LastOne as usize;

#[derive(Clone, Debug)]
pub struct Stats([u64; HITS]);

impl Default for Stats {
    fn default() -> Stats {
        Stats([0; HITS])
    }
}

impl Stats {
    pub fn hit(&mut self, hit: Hit) {
        self.0[hit as usize] += 1;
    }

    pub fn add(&mut self, other: &Stats) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    /// Every count with its name.
    pub fn all(&self) -> impl Iterator<Item = (String, u64)> {
        ALL.iter().map(|hit| (format!("{hit:?}"), self.0[*hit as usize]))
    }
}

const ALL: [Hit; HITS] = {
    use Hit::*;
    [
        Write,
        Conflict,
        SessionFence,
        TooEarly,
        CreateConflict,
        FailedWrite,
        PoisonedWrite,
        UnknownApplied,
        UnknownNever,
        UnknownLate,
        LateForced,
        LateApplied,
        LateFenced,
        LockedRead,
        WorkRepeated,
        BigBatch,
        SecondWrite,
        ThirdWrite,
        TwoWrites,
        ServerCrash,
        CrashWithWork,
        ServerFreeze,
        ExecutorCrash,
        ExecutorFreeze,
        Drain,
        MessageLost,
        MessageDoubled,
        CallerGone,
        HandBack,
        PollRepeated,
        GrantRepeated,
        GrantInCompletion,
        DirectGrant,
        BacklogGrant,
        HeldBeatWoken,
        DirectiveHeard,
        SessionEnded,
        SessionEndedElsewhere,
        SessionEndedUnlooked,
        SessionForgotten,
        SessionAdopted,
        SessionFoundAgain,
        EndedHeard,
        Outage,
        DatabaseCut,
        Overloaded,
        StorageFailure,
        LeaseLost,
        LeftOut,
        DispatchTimeout,
        NoProgress,
        AttemptTimeout,
        StepTimedOut,
        RunTimedOut,
        StopGrace,
        Superseded,
        LeaseUnknown,
        RunStopped,
        WrongState,
        ContentDiffers,
        RunUnknown,
        RepeatedReport,
        RepeatedCreate,
        RepeatedCall,
        Cancelled,
        Paused,
        Resumed,
        Retried,
        Extended,
        Succeeded,
        Failed,
        Skipped,
    ]
};
