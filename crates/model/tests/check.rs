//! Walks through every state of the lease protocol, and through the protocol with each bug until the bug is noticed.

use std::collections::BTreeSet;

use longtake_model::bug::Bug;
use longtake_model::{Protocol, rules};
use stateright::{Checker, HasDiscoveries, Model};

const THREADS: usize = 2;

#[test]
fn the_protocol_keeps_its_rules() {
    let checker = Protocol { bug: None }.checker().threads(THREADS).spawn_bfs().join();
    println!("{} states, {} deep", checker.unique_state_count(), checker.max_depth());
    // That all of it was walked through, and that nothing was reached that must not be and all that must.
    checker.assert_properties();
}

/// The rules that must notice it. Others may as well.
fn noticed_by(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::TokenNotCompared => &[rules::LIVE_TOKEN],
        Bug::AttemptReused => &[rules::ATTEMPTS_RISE],
        Bug::TokenReused => &[rules::TOKENS_DIFFER],
        Bug::FenceDropped => &[rules::ONE_RESULT, rules::TERMINAL_FINAL],
        Bug::RevokedUnmarked
        | Bug::EndUnchecked
        | Bug::EndedRenewed
        | Bug::RevokesAnyAttempt
        | Bug::DispatchTimeoutOfRunning => &[rules::LIVING_KEEP],
        Bug::UnknownIsFailed | Bug::UnknownIsDone | Bug::EarlyAcknowledgement | Bug::StaleRefusal => {
            &[rules::ANSWERS_TRUE]
        }
        Bug::BareHeartbeatOverwrites | Bug::OlderCheckpointOverwrites => &[rules::CHECKPOINTS_KEPT],
        Bug::CancelAtLeaseOnly => &[rules::NO_DEAD_END],
        Bug::CancelUnfenced => &[rules::CANCEL_HOLDS],
        Bug::YieldKeepsLease => &[rules::ONE_LEASE],
    }
}

#[test]
fn every_bug_is_noticed() {
    for bug in Bug::ALL {
        let wanted = noticed_by(bug);
        let found = HasDiscoveries::AllOf(wanted.iter().copied().collect());
        let protocol = Protocol { bug: Some(bug) };
        let checker = protocol.checker().threads(THREADS).finish_when(found).spawn_bfs().join();
        for rule in wanted {
            let path = checker.discovery(rule);
            assert!(path.is_some(), "{bug:?} is not noticed: {rule}");
            let steps = path.map_or(0, |path| path.into_actions().len());
            println!("{bug:?}: {rule}: {steps} steps, {} states", checker.unique_state_count());
        }
    }
}

#[test]
fn every_rule_notices_a_bug() {
    let notice: BTreeSet<&str> = Bug::ALL.into_iter().flat_map(noticed_by).copied().collect();
    assert_eq!(notice, rules::always().into_iter().collect());
}
