//! Times without any server: who credits them, and to whom.

use longtake_engine::ids::SessionId;
use longtake_engine::lane::work::{Housekeep, Own};
use longtake_engine::time::{Duration, Timestamp};
use uuid::Uuid;

use super::support::{Database, START, after, renewal, seconds, session};
use crate::lane::presence;
use crate::stamp::Stamp;

struct Scene {
    database: Database,
    sessions: Vec<SessionId>,
}

impl Scene {
    /// A replica, present at [`START`], with sessions that last so many seconds from then.
    async fn new(lasts: &[i64]) -> Scene {
        let database = Database::new().await;
        let mut lane = database.lane().await;
        let mut sessions = Vec::new();
        for lasts in lasts {
            let id = session();
            lane.done(&renewal(id, seconds(*lasts))).await;
            sessions.push(id);
        }
        lane.lane.housekeep(&Housekeep::default()).await.unwrap();
        Scene { database, sessions }
    }

    async fn begin(&self, replica: Uuid, after_restore: bool, now: Timestamp) {
        let time =
            presence::begin(self.database.store.pool(), replica, after_restore, Some(now)).await.unwrap();
        assert_eq!(time, now);
    }

    /// The sessions' ends, in seconds from [`START`].
    async fn ends(&self) -> Vec<i64> {
        let rows = self.database.store.reads().sessions(None, 100).await.unwrap();
        let end = |id| (rows.iter().find(|row| row.id == id).unwrap().until.0 - START.0) / 1_000_000;
        self.sessions.iter().map(|id| end(*id)).collect()
    }

    async fn outages(&self) -> Vec<(Timestamp, Duration)> {
        let sql = "select began, credit_us from outage order by began";
        let rows: Vec<(Stamp, i64)> =
            sqlx::query_as(sql).fetch_all(self.database.store.pool()).await.unwrap();
        rows.into_iter().map(|(began, credit)| (began.0, Duration(credit))).collect()
    }
}

#[tokio::test]
async fn the_first_replica_back_credits_whoever_was_alive() {
    let scene = Scene::new(&[30, 60, -1]).await;
    scene.begin(Uuid::new_v4(), false, after(100)).await;
    // 100 s and 5 s more; the session that was over before stays over.
    assert_eq!(scene.ends().await, [135, 165, -1]);
    // The next one finds the first present.
    scene.begin(Uuid::new_v4(), false, after(101)).await;
    assert_eq!(scene.ends().await, [135, 165, -1]);
    assert_eq!(scene.outages().await, [(START, seconds(105))]);
}

#[tokio::test]
async fn a_restart_beside_another_replica_credits_nothing() {
    let scene = Scene::new(&[30]).await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    // The first replica was seen 14 s ago.
    scene.begin(one, false, after(14)).await;
    assert_eq!(scene.ends().await, [30]);
    scene.begin(two, false, after(20)).await;
    scene.begin(one, false, after(34)).await;
    assert_eq!(scene.ends().await, [30]);
    assert_eq!(scene.outages().await, []);
}

#[tokio::test]
async fn a_replica_that_starts_again_under_its_own_name_was_not_present() {
    let scene = Scene::new(&[30]).await;
    let one = Uuid::new_v4();
    scene.begin(one, false, after(100)).await;
    scene.begin(one, false, after(103)).await;
    // 3 s and 5 s more, although it was seen only 3 s ago: it was itself that was away. 5 s of that were given before.
    assert_eq!(scene.outages().await, [(START, seconds(105)), (after(105), seconds(3))]);
    assert_eq!(scene.ends().await, [30 + 105 + 3]);
}

/// A server whose connection is lost again and again gives back the time that passes and five seconds, not five seconds each time.
#[tokio::test]
async fn outages_that_follow_each_other_give_no_more_than_passes() {
    let scene = Scene::new(&[30, 3, -1]).await;
    let one = Uuid::new_v4();
    for now in 100..=120 {
        scene.begin(one, false, after(now)).await;
        // The one that had three seconds left has eight now, however often there is an outage.
        assert_eq!(scene.ends().await, [30 + now + 5, 3 + now + 5, -1]);
    }
    scene.begin(one, false, after(160)).await;
    assert_eq!(scene.ends().await, [30 + 160 + 5, 3 + 160 + 5, -1]);
}

/// What a clock that was ahead for a while has covered is not taken from an outage of the right time.
#[tokio::test]
async fn an_outage_is_credited_though_the_clock_was_ahead_before() {
    let scene = Scene::new(&[30]).await;
    scene.begin(Uuid::new_v4(), false, after(3_600)).await;
    assert_eq!(scene.ends().await, [30 + 3_605]);
    let sql = "update replica set seen_at = seen_at - interval '3580 s'; update session set until = until - interval '3580 s'";
    sqlx::raw_sql(sql).execute(scene.database.store.pool()).await.unwrap();
    scene.begin(Uuid::new_v4(), false, after(100)).await;
    assert_eq!(scene.ends().await, [30 + 25 + 80 + 5]);
}

#[tokio::test]
async fn a_goodbye_begins_an_outage_at_once() {
    let scene = Scene::new(&[30]).await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    scene.begin(one, false, after(5)).await;
    presence::end(scene.database.store.pool(), one, Some(after(10))).await;
    // The scene's own replica was last seen at the start.
    scene.begin(two, false, after(17)).await;
    assert_eq!(scene.ends().await, [30 + 7 + 5]);
    assert_eq!(scene.outages().await, [(after(10), seconds(12))]);
}

#[tokio::test]
async fn a_replica_whose_database_was_away_credits_it_in_its_next_round() {
    let database = Database::new().await;
    let mut lane = database.lane().await;
    let (alive, over) = (session(), session());
    lane.done(&renewal(alive, seconds(30))).await;
    lane.done(&renewal(over, seconds(1))).await;
    let mut outages = Vec::new();
    for (now, credits) in [(0, false), (5, false), (19, false), (34, true), (40, false)] {
        lane.lane.set_clock(after(now));
        let (found, _) =
            lane.lane.housekeep(&Housekeep { own: Own::All, ..Housekeep::default() }).await.unwrap();
        if credits {
            outages.push((after(19), seconds(20)));
            let found = found.adopted.iter().find(|session| session.id == alive).expect("it is said");
            assert_eq!(found.until, after(50), "and with its new end");
        }
        assert_eq!(found.outages, outages, "{now}");
    }
    let rows = database.store.reads().sessions(None, 9).await.unwrap();
    let until = |id| rows.iter().find(|row| row.id == id).unwrap().until;
    assert_eq!((until(alive), until(over)), (after(50), after(1)));
}

#[tokio::test]
async fn another_replica_in_between_means_that_there_was_no_outage() {
    let database = Database::new().await;
    let (mut one, mut two) = (database.lane().await, database.lane().await);
    one.done(&renewal(session(), seconds(300))).await;
    for now in [0, 100] {
        one.lane.set_clock(after(now));
        for seen in (now..now + 100).step_by(10) {
            two.lane.set_clock(after(seen));
            two.lane.housekeep(&Housekeep::default()).await.unwrap();
        }
        let (found, _) = one.lane.housekeep(&Housekeep::default()).await.unwrap();
        assert_eq!(found.outages, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_come_back_together_credit_once() {
    for _ in 0..10 {
        let scene = Scene::new(&[30]).await;
        let starts: Vec<_> = (0..6)
            .map(|_| {
                let pool = scene.database.store.pool().clone();
                tokio::spawn(
                    async move { presence::begin(&pool, Uuid::new_v4(), false, Some(after(100))).await },
                )
            })
            .collect();
        for start in starts {
            start.await.unwrap().unwrap();
        }
        assert_eq!(scene.ends().await, [135]);
        assert_eq!(scene.outages().await, [(START, seconds(105))]);
    }
}

#[tokio::test]
async fn after_a_restore_every_session_is_ended_and_nothing_is_credited() {
    let scene = Scene::new(&[30, 600]).await;
    scene.begin(Uuid::new_v4(), true, after(100)).await;
    assert_eq!(scene.ends().await, [30, 600]);
    assert_eq!(scene.database.count("select count(*) from session where not ended").await, 0);
    assert_eq!(scene.database.count("select count(*) from replica").await, 1);
    assert_eq!(scene.outages().await, []);
}

#[tokio::test]
async fn an_empty_database_has_no_outage() {
    let database = Database::new().await;
    presence::begin(database.store.pool(), Uuid::new_v4(), false, Some(START)).await.unwrap();
    assert_eq!(database.count("select count(*) from outage").await, 0);
    assert_eq!(database.count("select count(*) from replica").await, 1);
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_no_harm() {
    let scene = Scene::new(&[30]).await;
    scene.begin(Uuid::new_v4(), false, after(-50)).await;
    assert_eq!(scene.ends().await, [30]);
    presence::begin(scene.database.store.pool(), Uuid::new_v4(), true, Some(after(-40))).await.unwrap();
}

#[tokio::test]
async fn old_presences_are_swept() {
    let scene = Scene::new(&[]).await;
    scene.begin(Uuid::new_v4(), false, after(86_399)).await;
    assert_eq!(scene.database.count("select count(*) from replica").await, 2);
    scene.begin(Uuid::new_v4(), false, after(86_401)).await;
    assert_eq!(scene.database.count("select count(*) from replica").await, 2);
}
