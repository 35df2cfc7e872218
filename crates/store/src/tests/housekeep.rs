//! The round of every few seconds.

use std::collections::BTreeSet;

use longtake_engine::command::{Deadline, Operation, Report, Timer};
use longtake_engine::ids::{RunId, SessionId};
use longtake_engine::lane::work::{AdoptedSession, Housekeep, Own, ProgressWrite};
use longtake_engine::run::StepError;
use serde_json::Value;
use uuid::Uuid;

use super::support::{Client, Database, Model, START, after, looking, renewal, seconds, session};

/// What is said of sessions.
fn said(sessions: &[AdoptedSession]) -> BTreeSet<(SessionId, bool, Vec<RunId>)> {
    sessions.iter().map(|session| (session.id, session.ended, session.runs.clone())).collect()
}

async fn round(client: &mut Client, own: Own) -> Vec<AdoptedSession> {
    let round = Housekeep { own, ..Housekeep::default() };
    client.lane.housekeep(&round).await.expect("the database answers").0.adopted
}

#[tokio::test]
async fn timers_are_found_when_they_are_due_soon() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    let mut client = database.lane().await;
    let mut models: Vec<Model> = (0..3).map(|_| Model::new(&workflow)).collect();
    let [waits, late, stops] = models.as_mut_slice() else { unreachable!() };
    let error =
        StepError { code: "T".to_owned(), message: String::new(), retryable: true, details: Value::Null };
    let fail = Report::Fail { error, retry_after: Some(seconds(8)), checkpoint: None, cost: None, jitter: 0 };
    waits.create(START).lease(0, session(), START).report(0, fail, START);
    late.create(START).operate(Operation::ExtendDeadline { which: Deadline::Run, to: after(5) }, START);
    stops
        .create(START)
        .lease(0, session(), START)
        .operate(Operation::Cancel { reason: "test".to_owned() }, START);
    client.commit(&mut [waits, late, stops]).await;
    let due = async |client: &mut Client, horizon| {
        let round = Housekeep { horizon: seconds(horizon), ..Housekeep::default() };
        let (found, now) = client.lane.housekeep(&round).await.unwrap();
        (found.timers, now)
    };
    assert_eq!(due(&mut client, 4).await, (vec![], START));
    let backoff = models[0].run.as_ref().unwrap().steps[0].state;
    let longtake_engine::run::StepState::BackingOff(until) = backoff else { panic!("{backoff:?}") };
    let deadline = (after(5), models[1].id, Timer::RunDeadline);
    let backoff = (until, models[0].id, Timer::Backoff(0));
    assert_eq!(due(&mut client, 10).await.0, [deadline, backoff]);
    client.lane.set_clock(after(55));
    let (timers, now) = due(&mut client, 10).await;
    assert_eq!((timers.len(), now), (3, after(55)));
    assert_eq!((timers[2].1, timers[2].2), (models[2].id, Timer::StopGrace));
}

#[tokio::test]
async fn queues_and_runs_that_others_changed_are_found() {
    let database = Database::new().await;
    let workflow = database.workflow(2).await;
    let mut client = database.lane().await;
    let (mut same, mut changed) = (Model::new(&workflow), Model::new(&workflow));
    same.create(START);
    changed.create(START);
    client.commit(&mut [&mut same, &mut changed]).await;
    let watched = [&same, &changed].map(|model| (model.id, model.no.unwrap(), 2)).to_vec();
    let queues = vec!["s0".into(), "s1".into()];
    let round = Housekeep { queues, watched, ..Housekeep::default() };
    let (found, _) = client.lane.housekeep(&round).await.unwrap();
    assert_eq!((found.ready, found.changed), (vec!["s0".into()], vec![]));
    changed.lease(0, session(), after(1)).complete(0, after(2));
    client.commit(&mut [&mut changed]).await;
    let (found, _) = client.lane.housekeep(&round).await.unwrap();
    assert_eq!((found.ready, found.changed), (vec!["s0".into(), "s1".into()], vec![changed.id]));
}

#[tokio::test]
async fn progress_is_stored_and_an_older_attempt_says_nothing() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    let mut client = database.lane().await;
    let mut model = Model::new(&workflow);
    model.create(START);
    client.commit(&mut [&mut model]).await;
    let run = model.no.unwrap();
    for (now, attempt, done, stored) in
        [(1, 1, 5, (1, 5)), (2, 2, 3, (2, 3)), (3, 1, 9, (2, 3)), (4, 2, 4, (2, 4))]
    {
        client.lane.set_clock(after(now));
        let message = "frame".to_owned();
        let progress = vec![ProgressWrite { run, step: 0, attempt, done, total: 10, message }];
        client.lane.housekeep(&Housekeep { progress, ..Housekeep::default() }).await.unwrap();
        let rows = database.store.reads().runs(&[model.id]).await.unwrap().remove(0).progress;
        assert_eq!(rows.iter().map(|row| (row.attempt, row.done)).collect::<Vec<_>>(), [stored]);
        assert_eq!((rows[0].step, rows[0].total, rows[0].message.as_str()), (0, 10, "frame"));
    }
}

#[tokio::test]
async fn sessions_of_replicas_that_are_gone_are_taken_over_once() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    let (mut gone, mut heir, mut other) =
        (database.lane().await, database.lane().await, database.lane().await);
    let (holder, idle, ended) = (session(), session(), session());
    let mut model = Model::new(&workflow);
    model.create(START).lease(0, holder, START);
    gone.commit(&mut [&mut model]).await;
    for (session, lasts) in [(holder, 60), (idle, 60), (ended, 1)] {
        gone.done(&renewal(session, seconds(lasts))).await;
    }
    assert_eq!(round(&mut gone, Own::Over).await.len(), 0, "they are its own, and live");
    gone.lane.set_clock(after(2));
    gone.lane.end_sessions(&looking(&[ended])).await.unwrap();
    gone.lane.set_clock(START);
    gone.lane.housekeep(&Housekeep::default()).await.unwrap();

    for (now, others, taken) in [(10, 1, 0), (14, 1, 0), (15, 0, 3), (20, 0, 0)] {
        heir.lane.set_clock(after(now));
        let (found, _) = heir.lane.housekeep(&Housekeep::default()).await.unwrap();
        let mine = found.adopted.iter().filter(|session| session.id != ended).count();
        assert_eq!((found.others, mine), (others, if taken > 0 { 2 } else { 0 }), "{now}");
        if taken > 0 {
            let expected = [(holder, false, vec![model.id]), (idle, false, vec![]), (ended, true, vec![])];
            assert_eq!(said(&found.adopted), expected.into());
            assert!(found.adopted.iter().all(|session| &*session.executor == "test"));
        }
    }
    other.lane.set_clock(after(21));
    assert_eq!(round(&mut other, Own::Over).await.len(), 0, "the heir is present");
    let row = |session: &crate::SessionRow| session.replica;
    let replicas: Vec<Uuid> =
        database.store.reads().sessions(None, 9).await.unwrap().iter().map(row).collect();
    assert_eq!(replicas, [heir.replica; 3]);
}

#[tokio::test]
async fn a_replica_that_says_goodbye_is_not_waited_for() {
    let database = Database::new().await;
    let (mut gone, mut heir) = (database.lane().await, database.lane().await);
    gone.done(&renewal(session(), seconds(60))).await;
    gone.lane.housekeep(&Housekeep::default()).await.unwrap();
    heir.lane.set_clock(after(1));
    assert_eq!(round(&mut heir, Own::Over).await.len(), 0);
    crate::lane::presence::end(database.store.pool(), gone.replica, Some(after(1))).await;
    heir.lane.set_clock(after(2));
    let (found, _) = heir.lane.housekeep(&Housekeep::default()).await.unwrap();
    // What it did last may not be known yet: it counts for as long as one that says nothing.
    assert_eq!((found.others, found.adopted.len(), found.outages.len()), (1, 1, 0));
}

#[tokio::test]
async fn what_needs_looking_after_is_said_until_it_does_not() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    let mut client = database.lane().await;
    let (live, over, stray) = (session(), session(), session());
    let mut models: Vec<Model> = (0..3).map(|_| Model::new(&workflow)).collect();
    for (model, holder) in models.iter_mut().zip([live, over, stray]) {
        model.create(START).lease(0, holder, START);
    }
    client.commit(&mut models.iter_mut().collect::<Vec<_>>()).await;
    client.done(&renewal(live, seconds(60))).await;
    client.done(&renewal(over, seconds(5))).await;
    let [a, b, c] = [models[0].id, models[1].id, models[2].id];

    assert_eq!(round(&mut client, Own::Over).await.len(), 0);
    let expected = [(live, false, vec![a]), (over, false, vec![b]), (stray, true, vec![c])];
    let all = round(&mut client, Own::All).await;
    assert_eq!(said(&all), expected.into(), "a thorough round overlooks no lease, of whomever");

    client.lane.set_clock(after(5));
    for ended in [false, true, true] {
        let found = round(&mut client, Own::Over).await;
        assert_eq!(said(&found), [(over, ended, vec![b])].into());
        assert_eq!(round(&mut client, Own::Known).await.len(), 0, "who asks for none is told of none");
        client.lane.set_clock(after(6));
        client.lane.end_sessions(&looking(&[over])).await.unwrap();
    }
    models[1].operate(Operation::Cancel { reason: "test".to_owned() }, after(6)).complete(0, after(6));
    client.commit(&mut [&mut models[1]]).await;
    client.lane.forget_sessions(&looking(&[over])).await.unwrap();
    assert_eq!(round(&mut client, Own::Over).await.len(), 0);
}

/// Open runs that are close together are gone through in one go, others one by one.
#[tokio::test]
async fn leases_are_found_however_far_apart_open_runs_are() {
    for apart in [1_i64, 100] {
        let database = Database::new().await;
        let workflow = database.workflow(1).await;
        let mut client = database.lane().await;
        let mut expected = BTreeSet::new();
        for number in 0..7 {
            let (mut model, holder) = (Model::new(&workflow), session());
            model.create(START);
            if number % 2 == 0 {
                model.lease(0, holder, START);
                expected.insert((holder, true, vec![model.id]));
            }
            client.commit(&mut [&mut model]).await;
            let sql = "select setval('run_no', last_value + $1 - 1, is_called) from run_no";
            sqlx::query(sql).bind(apart).execute(database.store.pool()).await.unwrap();
        }
        assert_eq!(said(&round(&mut client, Own::All).await), expected, "{apart} apart");
    }
}
