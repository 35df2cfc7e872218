//! Mistakes that a change could make. Each is planted by the model's `bug`, and the check has to notice it.

/// What the protocol does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A report counts for whatever attempt is live.
    TokenNotCompared,
    /// A lease takes the number of the attempt before.
    AttemptReused,
    /// A dispatch whose outcome was unknown leases again after its lease was taken back.
    TokenReused,
    /// A write does not compare the version.
    FenceDropped,
    /// A lease is taken back because its session seemed to be over in memory: the database was not asked.
    RevokedUnmarked,
    /// The statement that ends a session does not look at the time again.
    EndUnchecked,
    /// A renewal makes an ended session live again.
    EndedRenewed,
    /// The session of one attempt ended; what is taken back is whatever attempt is live.
    RevokesAnyAttempt,
    /// An attempt that was heard of is taken back as undelivered.
    DispatchTimeoutOfRunning,
    /// A report whose write had an unknown outcome is answered with no.
    UnknownIsFailed,
    /// A report whose write had an unknown outcome is answered with yes.
    UnknownIsDone,
    /// A checkpoint is acknowledged before its write is known to be done.
    EarlyAcknowledgement,
    /// The first heartbeat, which brings no checkpoint, takes the stored one away.
    BareHeartbeatOverwrites,
    /// A late copy of an older checkpoint replaces a newer one.
    OlderCheckpointOverwrites,
    /// Dispatch alone looks at the cancellation: a step that is given back while the run stops becomes READY.
    CancelAtLeaseOnly,
    /// A cancellation does not raise the version.
    CancelUnfenced,
    /// A yield makes the step READY and leaves its attempt live.
    YieldKeepsLease,
    /// A report is refused on what is in memory.
    StaleRefusal,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 18] = [
        Bug::TokenNotCompared,
        Bug::AttemptReused,
        Bug::TokenReused,
        Bug::FenceDropped,
        Bug::RevokedUnmarked,
        Bug::EndUnchecked,
        Bug::EndedRenewed,
        Bug::RevokesAnyAttempt,
        Bug::DispatchTimeoutOfRunning,
        Bug::UnknownIsFailed,
        Bug::UnknownIsDone,
        Bug::EarlyAcknowledgement,
        Bug::BareHeartbeatOverwrites,
        Bug::OlderCheckpointOverwrites,
        Bug::CancelAtLeaseOnly,
        Bug::CancelUnfenced,
        Bug::YieldKeepsLease,
        Bug::StaleRefusal,
    ];
}
