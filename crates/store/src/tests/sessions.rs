//! Sessions: renewed, ended, forgotten.

use longtake_engine::ids::SessionId;
use longtake_engine::lane::work::{Over, SessionWrite, Write};

use super::support::{Client, Database, Model, START, after, looking, renewal, seconds, session};

/// A run of one step, leased to this session.
async fn leased(database: &Database, client: &mut Client, holder: SessionId) -> Model {
    let workflow = database.workflow(1).await;
    let mut model = Model::new(&workflow);
    model.create(START).lease(0, holder, START);
    client.commit(&mut [&mut model]).await;
    model
}

#[tokio::test]
async fn a_renewal_counts_from_its_commit() {
    let database = Database::new().await;
    let (mut one, mut two) = (database.lane().await, database.lane().await);
    let (first, second) = (session(), session());
    let write = Write {
        number: 0,
        runs: Vec::new(),
        sessions: [(first, 30), (second, 60)]
            .map(|(id, lasts)| SessionWrite { id, executor: "worker".into(), lasts: seconds(lasts) })
            .into(),
    };
    assert_eq!(one.done(&write).await.1, [(first, after(30)), (second, after(60))].into());
    two.lane.set_clock(after(10));
    // Sooner than before, if that is what is asked for; and whoever renews looks after it.
    for (lasts, until) in [(30, 40), (3, 13), (90, 100)] {
        assert_eq!(two.done(&renewal(first, seconds(lasts))).await.1, [(first, after(until))].into());
    }
    let sessions = database.store.reads().sessions(None, 10).await.unwrap();
    let stored = |id| sessions.iter().find(|session| session.id == id).unwrap();
    assert_eq!((stored(first).replica, stored(first).executor.as_str()), (two.replica, "worker"));
    assert_eq!((stored(second).replica, stored(second).until), (one.replica, after(60)));
}

#[tokio::test]
async fn only_a_session_whose_time_is_up_is_ended_and_then_it_never_lives_again() {
    let database = Database::new().await;
    let mut client = database.lane().await;
    let (holder, idle, unknown) = (session(), session(), session());
    let model = leased(&database, &mut client, holder).await;
    client.done(&renewal(holder, seconds(30))).await;
    client.done(&renewal(idle, seconds(60))).await;
    let asked = [holder, idle];
    for (now, ended) in [(0, [].into()), (30, [].into()), (31, [(holder, vec![model.id])].into())] {
        client.lane.set_clock(after(now));
        assert_eq!(client.lane.end_sessions(&looking(&asked)).await.unwrap(), ended, "{now}");
    }
    // Asked again, it is still said; a session that is not known has ended.
    let again = client.lane.end_sessions(&looking(&[holder, unknown])).await.unwrap();
    assert_eq!(again, [(holder, vec![model.id]), (unknown, vec![])].into());
    let known = Over { ids: vec![holder, idle], look: false };
    let ended = client.lane.end_sessions(&known).await.unwrap();
    assert_eq!(ended, [(holder, vec![])].into(), "nobody looks for what is known");
    assert_eq!(client.done(&renewal(holder, seconds(30))).await.1, [].into());
    assert_eq!(client.done(&renewal(idle, seconds(30))).await.1, [(idle, after(61))].into());
    assert_eq!(database.count("select count(*) from session where ended").await, 1);
}

#[tokio::test]
async fn a_renewal_that_comes_first_saves_the_session() {
    let database = Database::new().await;
    let (mut one, mut two) = (database.lane().await, database.lane().await);
    let holder = session();
    one.done(&renewal(holder, seconds(30))).await;
    // The renewal holds the row while the other one asks for its end.
    let mut rival = database.connect().await;
    let renew = "begin; update session set until = until + interval '60 s'";
    sqlx::Executor::execute(&mut rival, renew).await.unwrap();
    two.lane.set_clock(after(31));
    let ending = tokio::spawn(async move { two.lane.end_sessions(&looking(&[holder])).await });
    database.until_waiting(1).await;
    sqlx::Executor::execute(&mut rival, "commit").await.unwrap();
    assert_eq!(ending.await.unwrap().unwrap(), [].into());
    assert_eq!(database.count("select count(*) from session where not ended").await, 1);
}

#[tokio::test]
async fn a_session_is_forgotten_when_it_is_over_and_holds_nothing() {
    let database = Database::new().await;
    let mut client = database.lane().await;
    let (holder, idle, alive) = (session(), session(), session());
    let mut model = leased(&database, &mut client, holder).await;
    for (session, lasts) in [(holder, 30), (idle, 30), (alive, 90)] {
        client.done(&renewal(session, seconds(lasts))).await;
    }
    let left = async || -> Vec<SessionId> {
        let sessions = database.store.reads().sessions(None, 10).await.unwrap();
        sessions.into_iter().map(|session| session.id).collect()
    };
    let asked = [holder, idle, alive];
    client.lane.forget_sessions(&looking(&asked)).await.unwrap();
    assert_eq!(left().await.len(), 3, "nobody's time is up");
    client.lane.set_clock(after(60));
    client.lane.end_sessions(&looking(&asked)).await.unwrap();
    client.lane.forget_sessions(&looking(&asked)).await.unwrap();
    let mut kept = [holder, alive];
    kept.sort_unstable();
    assert_eq!(left().await, kept, "one holds a lease, one lives");
    model.complete(0, after(60));
    client.commit(&mut [&mut model]).await;
    client.lane.forget_sessions(&looking(&asked)).await.unwrap();
    assert_eq!(left().await, [alive]);
    client.lane.set_clock(after(91));
    client.lane.forget_sessions(&Over { ids: asked.to_vec(), look: false }).await.unwrap();
    assert_eq!(left().await, []);
}
