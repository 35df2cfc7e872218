//! What must hold of every reply at the moment at which it is given.

use std::collections::BTreeMap;

use longtake_engine::command::{Answer, Command, Operation, Refusal, Report};
use longtake_engine::event::{Event, EventKind};
use longtake_engine::ids::{LeaseToken, RunId, SessionId, StepNo};
use longtake_engine::lane::{Asked, Failure, Grant, Reply, Standing};
use longtake_engine::run::{Attempt, Cause, Run, StepState};
use longtake_engine::time::Timestamp;
use longtake_engine::{decide, evolve};

use crate::call::{Body, reported};
use crate::db::{Db, Row};
use crate::server::Caller;
use crate::stats::Hit;

/// What executors and clients were told for good.
#[derive(Default)]
pub struct Ledger {
    /// Attempts whose completion was acknowledged, with a mark that stands in the output.
    completed: BTreeMap<(RunId, StepNo), (u32, serde_json::Value)>,
    /// Whom a lease was given to.
    granted: BTreeMap<(RunId, u8, u32), SessionId>,
}

/// A reply, and when it is given: by the database's clock and by the server's.
pub struct Given<'a> {
    pub caller: &'a Caller,
    pub reply: &'a Reply,
    pub now: Timestamp,
    pub here: Timestamp,
}

impl Ledger {
    pub fn check(&mut self, given: &Given<'_>, db: &mut Db) {
        let Given { caller, reply, .. } = given;
        match &caller.call.body {
            Body::Submit(asked) => self.check_all(asked, given, db),
            Body::Operate(asked) => self.check_all(std::slice::from_ref(asked), given, db),
            Body::Report(reports, _) => self.check_all(&reported(reports), given, db),
            Body::Beat(beat, _) => {
                assert_eq!(reply.answers.len(), beat.leases.len(), "an answer a lease");
                for (lease, answer) in beat.leases.iter().zip(&reply.answers) {
                    let carried = lease.checkpoint.clone().filter(|_| caller.first.is_none());
                    let sent = carried.as_ref().map_or(0, |checkpoint| checkpoint.sequence);
                    let report = Report::Heartbeat { checkpoint: carried };
                    let asked = reported(&[(lease.token, report)]).remove(0);
                    match answer {
                        Ok(Answer::Reported { fresh, sequence, directive }) => {
                            if directive.is_some() {
                                db.stats.hit(Hit::DirectiveHeard);
                            }
                            check_checkpoint(&lease.token, (*fresh, *sequence, sent), db);
                        }
                        Ok(answer) => panic!("a heartbeat was answered with {answer:?}"),
                        Err(failure) => check_failure(&asked, failure, given, db),
                    }
                }
            }
            Body::Poll(..) => assert!(reply.answers.is_empty()),
        }
        for grant in &reply.grants {
            self.check_grant(grant, given, db);
        }
        check_standing(given, db);
    }

    fn check_all(&mut self, asked: &[Asked], given: &Given<'_>, db: &mut Db) {
        assert_eq!(given.reply.answers.len(), asked.len(), "an answer a command");
        for (asked, answer) in asked.iter().zip(&given.reply.answers) {
            match answer {
                Ok(answer) => self.check_answer(asked, answer, given, db),
                Err(failure) => check_failure(asked, failure, given, db),
            }
        }
    }

    fn check_answer(&mut self, asked: &Asked, answer: &Answer, given: &Given<'_>, db: &mut Db) {
        let Some(row) = db.runs.get(&asked.run) else { panic!("{answer:?} of a run that is not stored") };
        match (&asked.command, answer) {
            (Command::Create(request), Answer::Created { created }) => {
                assert_eq!(request.content_hash, row.run.request.content_hash, "another's run");
                if !created {
                    db.stats.hit(Hit::RepeatedCreate);
                }
            }
            (Command::Report { lease, report }, Answer::Reported { fresh, .. }) => {
                let attempt = row.run.steps[lease.step].numbered(lease.attempt).expect("the attempt");
                let fresh = *fresh;
                self.check_report(row, (asked.run, lease.step, lease.attempt), attempt, (report, fresh));
                if !fresh {
                    db.stats.hit(Hit::RepeatedReport);
                }
            }
            (Command::Operate { call, .. }, Answer::Done { changed: true }) => {
                assert!(
                    row.history.iter().any(|(_, run)| run.calls.contains(call)),
                    "the call is not in the history"
                );
            }
            (Command::Operate { operation, .. }, Answer::Done { changed: false }) => {
                db.stats.hit(Hit::RepeatedCall);
                let deadline = matches!(operation, Operation::ExtendDeadline { .. });
                assert!(
                    deadline || explains(asked, &Ok(answer.clone()), given, db),
                    "nothing to change, but there was"
                );
            }
            (command, answer) => panic!("{command:?} was answered with {answer:?}"),
        }
    }

    fn check_report(
        &mut self,
        row: &Row,
        (run, step, number): (RunId, StepNo, u32),
        attempt: &Attempt,
        (report, fresh): (&Report, bool),
    ) {
        let Some(end) = &attempt.end else {
            return assert!(
                matches!(report, Report::Heartbeat { .. }),
                "acknowledged, but the attempt goes on"
            );
        };
        let own = matches!(end.cause, Cause::Completed | Cause::Failed | Cause::Yielded);
        assert!(fresh || own, "a report is in that was never made");
        match report {
            Report::Complete { output, .. } if fresh => {
                assert_eq!(end.cause, Cause::Completed, "a completion was acknowledged");
                let stored = row.run.steps[step].output.as_ref().expect("an output");
                assert_eq!(stored, output, "another output was acknowledged");
                self.completed.insert((run, step), (number, (*output.data).clone()));
            }
            Report::Fail { .. } if fresh => {
                assert_eq!(end.cause, Cause::Failed, "a failure was acknowledged");
            }
            Report::Yield { .. } if fresh => {
                assert_eq!(end.cause, Cause::Yielded, "a yield was acknowledged");
            }
            Report::Heartbeat { .. }
            | Report::Complete { .. }
            | Report::Fail { .. }
            | Report::Yield { .. } => {}
        }
    }

    fn check_grant(&mut self, grant: &Grant, given: &Given<'_>, db: &mut Db) {
        let token = &grant.token;
        let row = db.runs.get(&token.run).expect("a grant of a run that is stored");
        let step = &row.run.steps[token.step()];
        let attempt = step.numbered(token.attempt).expect("a grant of an attempt that is stored");
        assert_eq!(attempt.secret, token.secret.hash(), "a grant with another's secret");
        let (Body::Poll(asker, _) | Body::Report(_, Some(asker))) = &given.caller.call.body else {
            panic!("a grant for somebody who did not ask");
        };
        assert_eq!(attempt.session, asker.session, "a grant of another's lease");
        assert!(
            asker.queues.iter().any(|queue| **queue == row.workflow.steps[token.step()].queue),
            "a queue not asked for"
        );
        let to = self.granted.entry((token.run, token.step, token.attempt)).or_insert(attempt.session);
        if *to != attempt.session {
            panic!("a lease was given to two sessions");
        }
        let leased = row.history.iter().find(|(_, run)| run.steps[token.step()].attempt() >= token.attempt);
        let (_, at_lease) = leased.expect("the commit of the lease");
        let kept =
            at_lease.steps[token.step()].checkpoint.as_ref().filter(|kept| kept.attempt < token.attempt);
        let shown = grant.run.checkpoint.as_ref();
        let key = |checkpoint: Option<&longtake_engine::run::Checkpoint>| {
            checkpoint.map(|kept| (kept.attempt, kept.sequence))
        };
        assert_eq!(key(shown), key(kept), "the checkpoint that was handed over");
        if let Some(shown) = shown {
            assert_eq!(
                shown.data.data["done"],
                serde_json::json!(shown.done),
                "the content of the checkpoint"
            );
        }
        if asker.max_steps < given.reply.grants.len() {
            panic!("more steps than were asked for");
        }
    }

    /// What was said for good still stands.
    pub fn check_end(&self, db: &Db) {
        for ((run, step), (attempt, data)) in &self.completed {
            let step = &db.runs[run].run.steps[*step];
            assert_eq!(step.state, StepState::Succeeded, "an acknowledged completion was lost");
            assert_eq!(step.attempt(), *attempt, "an acknowledged completion was done again");
            assert_eq!(step.output.as_ref().map(|output| &*output.data), Some(data));
        }
    }
}

/// A committed sequence is one that is stored, and not older than what was sent along.
fn check_checkpoint(token: &LeaseToken, (fresh, sequence, sent): (bool, i64, i64), db: &Db) {
    let row = db.runs.get(&token.run).expect("a lease of a run that is stored");
    let attempt = row.run.steps[token.step()].numbered(token.attempt).expect("an attempt that is stored");
    assert_eq!(attempt.secret, token.secret.hash(), "a forged lease was renewed");
    assert!(!fresh || sequence >= sent, "a checkpoint was acknowledged as {sequence}, but {sent} was sent");
    let stored = |event: &Event| match &event.kind {
        EventKind::CheckpointCommitted { step, checkpoint } => {
            (*step, checkpoint.attempt, checkpoint.sequence) == (token.step(), token.attempt, sequence)
        }
        _ => false,
    };
    assert!(
        sequence == 0 || row.events.iter().any(stored),
        "checkpoint {sequence} was acknowledged and is not stored"
    );
}

fn check_failure(asked: &Asked, failure: &Failure, given: &Given<'_>, db: &mut Db) {
    match failure {
        Failure::Overloaded => {
            db.stats.hit(Hit::Overloaded);
            assert!(matches!(asked.command, Command::Create(_)), "only submits may be shed");
        }
        Failure::Storage(_) => {
            db.stats.hit(Hit::StorageFailure);
            let done = db.runs.get(&asked.run).is_some_and(|row| shows(row, &asked.command));
            let unsure = given.caller.call.sends.get() > 1 || db.surprised.contains(&asked.run);
            assert!(unsure || !done, "refused by the database, but done");
        }
        Failure::Refused(refusal) => {
            db.stats.hit(match refusal {
                Refusal::RunUnknown(_) => Hit::RunUnknown,
                Refusal::ContentDiffers(_) => Hit::ContentDiffers,
                Refusal::LeaseSuperseded { .. } => Hit::Superseded,
                Refusal::LeaseUnknown => Hit::LeaseUnknown,
                Refusal::RunStopped => Hit::RunStopped,
                Refusal::NotReady
                | Refusal::WrongState(_)
                | Refusal::DeadlinePassed(_)
                | Refusal::DeadlineMissing(_)
                | Refusal::StepUnknown(_) => Hit::WrongState,
            });
            let answer = Err(refusal.clone());
            assert!(
                explains(asked, &answer, given, db),
                "{refusal} to {:?}, which nothing explains",
                asked.command
            );
        }
    }
}

/// Whether a command's effect is stored, where nobody else could have had it.
fn shows(row: &Row, command: &Command) -> bool {
    match command {
        Command::Report { lease, report: Report::Complete { output, .. } } => {
            row.run.steps.get(lease.step).is_some_and(|step| step.output.as_ref() == Some(output))
        }
        Command::Operate { call, .. } => row.run.calls.contains(call),
        _ => false,
    }
}

/// Whether the answer, which changed nothing, is right for a state that was current when the call had come and the answer was
/// not given yet.
fn explains(asked: &Asked, answer: &Result<Answer, Refusal>, given: &Given<'_>, db: &Db) -> bool {
    let alike = |decided: &Result<Answer, Refusal>| match (decided, answer) {
        (Err(Refusal::WrongState(_)), Err(Refusal::WrongState(_))) => true,
        _ => decided == answer,
    };
    let Some(row) = db.runs.get(&asked.run) else {
        return matches!(answer, Err(Refusal::RunUnknown(_) | Refusal::LeaseUnknown));
    };
    if !row.existed(given.caller.arrived)
        && matches!(answer, Err(Refusal::RunUnknown(_) | Refusal::LeaseUnknown))
    {
        return true;
    }
    let times = [given.now, given.here, given.caller.arrived];
    let explained = |run: &Run| {
        times
            .iter()
            .any(|time| alike(&decide(&row.workflow, asked.run, Some(run), &asked.command, *time).answer))
    };
    // Between what was committed, the states between the commands of a batch count as well.
    let then = row.existed(given.caller.arrived).then(|| (*row.since(given.caller.arrived)[0].1).clone());
    let later = then.as_ref().map_or(0, |run| usize::try_from(run.last_event).unwrap_or(0));
    let mut run = then;
    run.as_ref().is_some_and(&explained)
        || row.events[later..].iter().any(|event| {
            run = evolve(run.take(), event);
            run.as_ref().is_some_and(&explained)
        })
}

/// An executor may believe only an end that is committed.
fn check_standing(given: &Given<'_>, db: &mut Db) {
    let session = match &given.caller.call.body {
        Body::Poll(poll, _) | Body::Report(_, Some(poll)) => poll.session,
        Body::Beat(beat, _) => beat.session,
        Body::Submit(_) | Body::Operate(_) | Body::Report(_, None) => return,
    };
    match given.reply.session {
        Some(Standing::Lives { remaining, .. }) if remaining.0 > 0 => {
            let promised = db.promised.get(&session).copied().unwrap_or_default();
            assert!(given.here + remaining <= promised, "an end was promised that is not committed");
        }
        Some(Standing::Ended) => {
            db.stats.hit(Hit::EndedHeard);
        }
        Some(Standing::Lives { .. }) | None => {}
    }
}
