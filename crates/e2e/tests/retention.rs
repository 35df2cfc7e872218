//! Runs that ended are removed when they have been kept for long enough, while everything else goes on.

use std::time::Duration;

use longtake_e2e::{Client, Hand, Refusal, Server, World, eventually, shipped_definitions};
use longtake_proto::v1::{self, run};
use serde_json::json;
use tonic::Code;

const SOON: Duration = Duration::from_secs(30);

async fn cancel(client: &Client, run_id: &str) {
    let request = v1::CancelRunRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        run_id: run_id.to_owned(),
        ..v1::CancelRunRequest::default()
    };
    let run = client.runs().cancel_run(request).await.expect("accepted").into_inner().run.expect("the run");
    assert_eq!(run.state(), run::State::Cancelled);
}

/// How many commits of this database's runs that are not there any more still have their history.
async fn histories_without_run(world: &World) -> i64 {
    let count = "select count(*) from history where run_no not in (select run_no from run)";
    sqlx::query_scalar(count).fetch_one(&mut world.database().connect().await).await.expect("a count")
}

#[tokio::test]
async fn what_has_ended_goes_and_the_rest_stays() {
    let world = World::new().await;
    let database = world.database().url();
    let told = ["--retention", "1s"];
    let server = Server::start_told("server", world.dir(), database, &shipped_definitions(), &told).await;
    // A second one does the same to the same database.
    let other = Server::start_told("other", world.dir(), database, &shipped_definitions(), &told).await;
    let client = server.client();
    let open = client.create("noop", json!({})).await;
    let hand = Hand::new(&client, "hand", &["noop"]);
    let lease = hand.take().await;
    assert_eq!(lease.run_id, open);

    let mut ended = Vec::new();
    let mut most = 0;
    // New runs come and end all the time; three generations of them are gone, with their histories.
    eventually(SOON, async || {
        let run_id = other.client().create("noop", json!({})).await;
        cancel(&client, &run_id).await;
        ended.push(run_id);
        let without = histories_without_run(&world).await;
        most = most.max(without);
        let oldest = client.try_run(&ended[0]).await;
        let gone = oldest.as_ref().is_err_and(|status| status.code() == Code::NotFound);
        let stays = client.run(&open).await;
        assert_eq!(stays.state(), run::State::Running);
        match gone && without < most / 2 && ended.len() > 10 {
            true => Ok(()),
            false => Err(format!("{} runs, {without} histories without run, gone: {gone}", ended.len())),
        }
    })
    .await;

    // To whoever asks, a run that is gone was never there, though this server has known it.
    let request_id = uuid::Uuid::new_v4().to_string();
    let request = v1::RetryRunRequest { request_id, run_id: ended[0].clone(), ..Default::default() };
    let refused = client.runs().retry_run(request).await.expect_err("it is gone");
    assert_eq!(Refusal::of(&refused).code, Code::NotFound);
    let again = v1::CreateRunRequest {
        request_id: ended[0].clone(),
        workflow: "noop".to_owned(),
        input: longtake_proto::convert::struct_from_json(json!({})),
        ..v1::CreateRunRequest::default()
    };
    let again = client.runs().create_run(again).await.expect("accepted").into_inner();
    assert!(again.created, "the id is free again");
    cancel(&client, &ended[0]).await;

    // The run that stayed goes on, and goes with the last of the others.
    hand.beat(&lease).await;
    cancel_running(&client, &hand, &lease, &open).await;
    eventually(SOON, async || {
        let rows: i64 =
            sqlx::query_scalar("select (select count(*) from run) + (select count(*) from run_key)")
                .fetch_one(&mut world.database().connect().await)
                .await
                .expect("a count");
        let left = rows + histories_without_run(&world).await;
        if left == 0 { Ok(()) } else { Err(format!("{left} rows")) }
    })
    .await;
    for server in [&server, &other] {
        assert_eq!(server.http("/readyz").await.expect("it answers"), 200);
    }
}

/// Ends a run that a hand works on.
async fn cancel_running(client: &Client, hand: &Hand, lease: &v1::StepLease, run_id: &str) {
    let request = v1::CancelRunRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        run_id: run_id.to_owned(),
        ..v1::CancelRunRequest::default()
    };
    client.runs().cancel_run(request).await.expect("accepted");
    hand.give_back(lease, None).await.expect("accepted");
}
