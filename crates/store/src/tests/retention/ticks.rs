//! Ticks that are cut off, and ticks of several replicas.

use sqlx::Connection;

use super::super::support::{Database, after, eventually};
use super::{AGE, PAST, another, ended, is_stored, open, pass, retention, stored, strays};
use crate::Error;
use crate::reads::ListFilter;
use crate::retention::thin::{Left, copy};
use crate::retention::{self as verbs, Swept, extend};

#[tokio::test]
async fn a_tick_goes_on_from_where_another_was_cut_off() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(1).await);
    let open = open(&mut client, &workflow, 0).await;
    ended(&mut client, &workflow, 0).await;
    let mut connection = retention.connect().await;

    // A range is begun, and it is not noted.
    retention.set_clock(after(AGE));
    let plan = retention.plan(&mut connection).await.unwrap();
    verbs::begin(&mut connection, plan.leave_at.unwrap()).await.unwrap();
    let moved = ended(&mut client, &workflow, AGE).await;
    verbs::begin(&mut connection, plan.leave_at.unwrap()).await.unwrap();
    let again = ended(&mut client, &workflow, AGE).await;
    assert_eq!(again.no.unwrap().0, moved.no.unwrap().0 + 1, "numbers never go back");
    assert_eq!(retention.plan(&mut connection).await.unwrap().leave_at, None);
    assert_eq!(pass(&mut retention, AGE).await, Swept { made: 1, begun: 1, ..Swept::default() });

    // One is made ahead, and no more is done.
    retention.set_clock(after(2 * AGE));
    let plan = retention.plan(&mut connection).await.unwrap();
    verbs::begin(&mut connection, plan.leave_at.unwrap()).await.unwrap();
    assert_eq!(retention.mark(&mut connection).await.unwrap(), 1);
    let missing = retention.plan(&mut connection).await.unwrap().missing;
    extend(&mut connection, &missing[0]).await.unwrap();
    let twice = extend(&mut connection, &missing[0]).await.expect_err("it is there");
    assert!(matches!(twice, Error::Refused(_)), "{twice}");
    assert_eq!(pass(&mut retention, 2 * AGE).await, Swept::default());

    // Runs are removed, and their history is not yet.
    retention.set_clock(after(PAST));
    while retention.remove(&mut connection).await.unwrap().1 {}
    assert_eq!(strays(&database).await, 0);
    assert!(!is_stored(&database, &moved).await);
    let filter = ListFilter { limit: 9, ..ListFilter::default() };
    let listed = database.store.reads().list_runs(&filter).await.unwrap();
    assert_eq!(listed, [(open.no.unwrap(), open.id)]);

    // History is copied, and the rest is not done: the connection ends.
    let past = retention.plan(&mut connection).await.unwrap().past;
    let last = past.last().unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let left = Left::read(&mut transaction, last.ends_before).await.unwrap();
    copy(&mut transaction, &left, last).await.unwrap();
    drop(transaction);
    drop(connection);
    let gone = "select count(*) from pg_class where relname like 'history_left%'";
    eventually("the copy is gone", async || database.count(gone).await == 0).await;
    assert_eq!(pass(&mut retention, PAST).await.dropped, 1);
    assert_eq!(stored(&database, &open).await.unwrap().history.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_replicas_does_it() {
    let database = Database::new().await;
    let mut one = retention(&database).await;
    let mut two = another(&database);
    let (mut client, workflow) = (database.lane().await, database.workflow(1).await);
    for _ in 0..21 {
        ended(&mut client, &workflow, 0).await;
    }
    // Whoever holds the lock.
    let mut holder = database.connect().await;
    assert!(verbs::lock(&mut holder).await.unwrap());
    assert_eq!(pass(&mut one, PAST).await, Swept::default());
    holder.close().await.unwrap();
    let (first, second) = tokio::join!(
        tokio::spawn(async move { (pass(&mut one, PAST).await, one) }),
        tokio::spawn(async move { (pass(&mut two, PAST).await, two) }),
    );
    let ((first, mut one), (second, mut two)) = (first.unwrap(), second.unwrap());
    let third = pass(&mut one, PAST).await.and(pass(&mut two, PAST).await);
    let all = first.and(second).and(third);
    assert_eq!(all, Swept { runs: 21, made: 1, begun: 1, ..Swept::default() });
    let (dropped, none) = (pass(&mut one, 2 * PAST).await, pass(&mut two, 2 * PAST).await);
    assert_eq!((dropped.dropped, none.dropped), (1, 0));
}
