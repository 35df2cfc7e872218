//! One lane over the model of the database, without chance: what the simulation would meet too seldom, or not see.

use std::collections::BTreeMap;
use std::sync::Arc;

use longtake_engine::ids::{RunId, SessionId};
use longtake_engine::lane::work::{Committed, Own, Work};
use longtake_engine::lane::{
    Ask, Beat, Config, Inspection, Lane, LeaseBeat, Poll, Progress, Standing, Ticket,
};
use longtake_engine::run::NewRun;
use longtake_engine::time::{Duration, Timestamp};
use serde_json::json;

use crate::db::{Applied, Db};
use crate::rng::Rng;
use crate::{client, workflows, world};

/// Rounds and clocks are due every few seconds, whatever the database's clock was set to in between.
#[test]
fn a_clock_that_is_set_back_puts_off_nothing() {
    let (mut lane, mut db) = (Lane::new(Config::default()), Db::new(false));
    serve(&mut lane, &mut db, world::DAWN, |_, _| ());
    let earlier = world::DAWN - Duration::from_secs(3600);
    serve(&mut lane, &mut db, earlier, |_, _| ());
    let due = earlier + Config::default().housekeeping;
    assert!(lane.wake_at() <= due, "{:?}", lane.wake_at());
    let work = lane.next(due, &mut || 0);
    assert!(matches!(work, Some(Work::Housekeep(_))), "{work:?}");
}

/// Does all that a lane wants done now, as replica 1. `before` sees each work first.
fn serve(lane: &mut Lane, db: &mut Db, now: Timestamp, before: fn(&mut Lane, &Work)) {
    let mut rng = Rng::new(1);
    while let Some(work) = lane.next(now, &mut || rng.next()) {
        before(lane, &work);
        match &work {
            Work::Load(load) => lane.loaded(load, db.load(load, now), now),
            Work::Write(write) if db.refuses(write, now) => {
                lane.committed(write.number, Committed::Failed("poison".into()), now, &mut || rng.next());
            }
            Work::Write(write) => {
                let Applied { written, sessions } = db.write(write, 1, now);
                lane.committed(write.number, Committed::Done { written, sessions }, now, &mut || rng.next());
            }
            Work::Housekeep(round) => lane.found(db.housekeep(round, 1, now)),
            Work::EndSessions(_) | Work::ForgetSessions(_) => panic!("nobody's time is up"),
        }
    }
}

/// A run of the first workflow and a poll for its steps, as two asks.
fn run_and_poll(now: Timestamp) -> (RunId, Ask, Ask) {
    let (workflow, id) = (&workflows::pool()[0], Rng::new(1).run());
    let request = workflows::request(id, workflow, now, &mut Rng::new(1)).into();
    let queues = workflow.steps.iter().map(|step| step.queue.as_str().into()).collect();
    let (session, executor) = (SessionId(id.0), "e".into());
    let poll = Some(Poll { session, executor, queues, max_steps: 1, request: None, park: true });
    let commands = vec![client::submit(&request, workflow)];
    let submit = Ask { ticket: Ticket(2), commands, sheddable: true, beat: None, poll: None };
    (id, submit, Ask { ticket: Ticket(1), commands: Vec::new(), sheddable: false, beat: None, poll })
}

/// A server that was alone counts on knowing every lease only once it has looked: another one may have granted some before it went.
#[test]
fn who_was_not_alone_looks_before_it_knows_every_lease() {
    let (mut lane, mut db) = (Lane::new(Config::default()), Db::new(false));
    db.presence.insert(2, world::DAWN);
    let rounds = (0..8).map(|round| {
        let now = world::DAWN + Duration::from_secs(round * 5);
        let Some(Work::Housekeep(round)) = lane.next(now, &mut || 0) else { panic!("a round is due") };
        lane.found(db.housekeep(&round, 1, now));
        round.own
    });
    let looked = [Own::All, Own::Over, Own::Over, Own::Over, Own::Over, Own::Over, Own::All, Own::Known];
    assert_eq!(rounds.collect::<Vec<_>>(), looked);
}

/// Nobody else is there, and yet a queue has a row that is not known any more: that of a run which the database refused to store.
#[test]
fn what_the_database_refused_is_looked_for_once_it_may_be_stored() {
    let (mut lane, mut db, now) = (Lane::new(Config::default()), Db::new(false), world::DAWN);
    let (id, submit, poll) = run_and_poll(now);
    lane.ask(submit, now);
    serve(&mut lane, &mut db, now, |_, _| ());
    db.poison = Some(id);
    lane.ask(poll, now);
    serve(&mut lane, &mut db, now, |_, _| ());
    let held = |db: &Db| db.runs[&id].run.steps.iter().filter(|step| step.live().is_some()).count();
    assert_eq!((db.refused.len(), held(&db)), (1, 0), "it was matched, and refused");
    db.poison = None;
    serve(&mut lane, &mut db, now + Config::default().housekeeping, |_, _| ());
    assert_eq!(held(&db), 1);
}

/// Not after the dispatch timeout: a caller that is gone is no executor that does not answer.
#[test]
fn what_is_matched_with_a_caller_that_is_gone_is_ready_again_at_once() {
    let (mut lane, mut db, now) = (Lane::new(Config::default()), Db::new(false), world::DAWN);
    let (id, submit, poll) = run_and_poll(now);
    lane.ask(poll, now);
    serve(&mut lane, &mut db, now, |_, _| ());
    lane.ask(submit, now);
    serve(&mut lane, &mut db, now, |lane, work| {
        if matches!(work, Work::Write(_)) {
            lane.end_poll(Ticket(1), true, world::DAWN);
        }
    });
    let steps = &db.runs[&id].run.steps;
    assert_eq!(steps.iter().map(|step| step.attempts.len()).sum::<usize>(), 1, "it was matched");
    assert!(steps.iter().all(|step| step.live().is_none()), "and nobody has it");
}

/// Another replica ended it: the renewal finds that, and the heartbeat that asked for it says so.
#[test]
fn a_heartbeat_hears_that_its_session_has_ended() {
    let (mut lane, mut db) = (Lane::new(Config::default()), Db::new(false));
    let session = SessionId(Rng::new(1).run().0);
    let standing = |lane: &mut Lane, db: &mut Db, now| {
        lane.ask(beat(session, Vec::new()), now);
        serve(lane, db, now, |_, _| ());
        lane.replies().pop().expect("an answer").session
    };
    assert!(matches!(standing(&mut lane, &mut db, world::DAWN), Some(Standing::Lives { .. })));
    let row = db.sessions.get_mut(&session).expect("a session");
    (row.replica, row.ended) = (2, true);
    let later = world::DAWN + Duration::from_secs(20);
    db.presence.insert(2, later);
    assert_eq!(standing(&mut lane, &mut db, later), Some(Standing::Ended));
}

/// An ask that is only a heartbeat.
fn beat(session: SessionId, leases: Vec<LeaseBeat>) -> Ask {
    let beat = Some(Beat { session, executor: "e".into(), leases, complete: true });
    Ask { ticket: Ticket(3), commands: Vec::new(), sheddable: false, beat, poll: None }
}

/// What people are told: when the holder of a step last called, how far it said it is, and who waits.
#[test]
fn an_inspection_says_who_was_heard_of_when_and_who_waits() {
    let (mut lane, mut db, now) = (Lane::new(Config::default()), Db::new(false), world::DAWN);
    let (id, submit, poll) = run_and_poll(now);
    let polled = poll.poll.clone().expect("a poll");
    lane.ask(poll, now);
    lane.ask(submit, now);
    serve(&mut lane, &mut db, now, |_, _| ());
    let grant = lane.replies().into_iter().flat_map(|reply| reply.grants).next().expect("a lease");
    let step = grant.token.step();

    let later = now + Duration::from_secs(1);
    let progress = Some(Progress { done: 3, total: 9, message: String::new() });
    lane.ask(beat(polled.session, vec![LeaseBeat { token: grant.token, checkpoint: None, progress }]), later);
    let queues: Vec<Arc<str>> = vec!["of-another".into(), "of-nobody".into()];
    let waits = Poll { session: SessionId(Rng::new(2).run().0), queues: vec![queues[0].clone()], ..polled };
    let ask =
        Ask { ticket: Ticket(4), commands: Vec::new(), sheddable: false, beat: None, poll: Some(waits) };
    lane.ask(ask, later);
    serve(&mut lane, &mut db, later, |_, _| ());
    let told = Inspection {
        heard: BTreeMap::from([(step, later)]),
        done: BTreeMap::from([(step, 3)]),
        waiting: BTreeMap::from([(queues[0].clone(), 1), (queues[1].clone(), 0)]),
        others: 0,
    };
    assert_eq!(lane.inspect(id, &queues), told);
    let nothing = Inspection { waiting: told.waiting.clone(), ..Inspection::default() };
    assert_eq!(lane.inspect(Rng::new(3).run(), &queues), nothing, "of a run that nobody holds");
}

/// The command that brings a write to its bound of bytes is its last.
#[test]
fn a_write_takes_commands_until_it_has_its_bytes() {
    let config = Config { batch_bytes: 48, ..Config::default() };
    let (mut lane, mut db, now) = (Lane::new(config), Db::new(false), world::DAWN);
    serve(&mut lane, &mut db, now, |_, _| ());
    let workflow = &workflows::pool()[0];
    let commands = (1..=3).map(|seed| {
        let request = workflows::request(Rng::new(seed).run(), workflow, now, &mut Rng::new(seed));
        // 24 bytes, as the lane counts.
        let request = NewRun { input: Arc::new(json!({})), ..request };
        client::submit(&request.into(), workflow)
    });
    let commands = commands.collect();
    lane.ask(Ask { ticket: Ticket(1), commands, sheddable: true, beat: None, poll: None }, now);
    let Some(Work::Write(write)) = lane.next(now, &mut || 0) else { panic!("there is something to write") };
    assert_eq!(write.runs.len(), 2);
}
