//! The orchestrator or PostgreSQL dies in the middle and comes back: nothing is lost, nothing is done twice, and nobody is charged
//! for the absence.

use std::time::Duration;

use longtake::postgres::{PostgresOptions, PrivatePostgres};
use longtake_e2e::{
    Client, Hand, Process, Refusal, Server, Signal, Spy, World, causes, content_request,
    content_with_short_leases, definitions, kinds, pass, step,
};
use longtake_proto::v1::{self, Modality, Reason, attempt::Cause, event::Kind, run, step::State};
use serde_json::json;
use tonic::Code;

const RUN: Duration = Duration::from_secs(90);
const SCENES: usize = 3;
/// Longer than the session of an executor whose step has a heartbeat timeout of three seconds.
const LONG: Duration = Duration::from_secs(6);
/// Two steps, the second of which reads what the first made.
const RELAY: &str = r#"
format = 1
name = "relay"

[[step]]
name = "first"
queue = "relay"
heartbeat_timeout = "3s"
progress_timeout = "4s"
attempt_timeout = "60s"

[[step]]
name = "second"
queue = "relay"
needs = ["first"]
heartbeat_timeout = "3s"
"#;

/// A run that nobody works on.
const ASIDE: &str = "format = 1\nname = \"aside\"\n[[step]]\nname = \"aside\"\n";

/// A run whose video is being rendered: scene 1 is committed, scene 2 is held.
struct Filming {
    run_id: String,
    spy: Spy,
    _executors: Vec<Process>,
}

async fn filming(world: &World, server: &Server, client: &Client) -> Filming {
    let spy = Spy::new(world);
    spy.hold(2);
    let executors = vec![
        world.executor(server, "writer", &["script", "audio", "finalize"]).start(),
        world.executor(server, "painter", &["video"]).watched_by(&spy).start(),
    ];
    let run_id = client.submit(content_request(&[Modality::Video], SCENES)).await;
    spy.rendering("painter", 2).await;
    client.until(&run_id, RUN, |run| done(run) == 1).await;
    Filming { run_id, spy, _executors: executors }
}

#[tokio::test]
async fn a_killed_server_is_back_within_moments() {
    let world = World::new().await;
    let mut server = world.server().await;
    let client = server.client();
    let filming = filming(&world, &server, &client).await;
    let waiting = submitted(&client, 20).await;
    let before = client.events(&filming.run_id).await;

    server.process().kill().await;
    filming.spy.release(2);
    server.restart().await;

    nothing_is_lost(&client, &waiting).await;
    let run = client.succeeded(&filming.run_id, RUN).await;
    everything_once(&run, &filming.spy);
    let after = client.events(&filming.run_id).await;
    assert_eq!(after[..before.len()], before[..], "history is what it was");
    no_charges(&after);
    assert!(!kinds(&after).contains(&"step_returned"), "the executors went on with their attempts");
}

#[tokio::test]
async fn a_server_that_is_away_for_longer_than_a_session_charges_nobody() {
    let world = World::new().await;
    let mut server = world.server_with(&content_with_short_leases(world.folder("definitions"))).await;
    let client = server.client();
    let filming = filming(&world, &server, &client).await;

    server.process().kill().await;
    pass(LONG).await;
    filming.spy.release(2);
    server.restart().await;

    let run = client.succeeded(&filming.run_id, RUN).await;
    // The executor stops by itself when it could not renew: it gives the step back, which draws on no budget of failures or losses.
    no_charges(&client.events(&filming.run_id).await);
    let video = step(&run, "video");
    assert!(
        matches!(causes(video).as_slice(), [Cause::Completed] | [Cause::Yielded, Cause::Completed]),
        "{:?}",
        video.attempts
    );
    let rendered = filming.spy.renders_of("painter");
    assert_eq!(
        rendered.iter().filter(|scene| **scene == 1).count(),
        1,
        "what was committed is kept: {rendered:?}"
    );
    assert_eq!(run.spent, Some(v1::Money { nano_usd: 200_000_000 }));
}

#[tokio::test]
async fn a_lease_outlives_the_absence_of_its_server() {
    let world = World::new().await;
    let relay = definitions(world.folder("definitions"), &[("relay", RELAY)]);
    let mut server = world.server_with(&relay).await;
    let client = server.client();
    let hand = Hand::new(&client, "hand", &["relay"]);
    let run_id = client.create("relay", json!({})).await;
    let lease = hand.take().await;
    let acknowledged = hand.checkpoint(&lease, Hand::at(1, 5, 9)).await;
    assert_eq!(acknowledged.committed_sequence, 1);

    server.process().kill().await;
    pass(LONG).await;
    server.restart().await;
    the_lease_still_counts(&client, &hand, &lease, &run_id).await;
}

#[tokio::test]
async fn a_killed_database_is_back_within_moments() {
    let world = World::without_database();
    let (mut postgres, mut server) = private(&world, &longtake_e2e::shipped_definitions()).await;
    let client = server.client();
    let filming = filming(&world, &server, &client).await;
    let waiting = submitted(&client, 20).await;

    Signal::Quit.send(postgres.pid());
    postgres.exited().await;
    drop(postgres);
    filming.spy.release(2);
    postgres = PrivatePostgres::start(options(&world)).await.expect("PostgreSQL starts again");

    nothing_is_lost(&client, &waiting).await;
    let run = client.succeeded(&filming.run_id, RUN).await;
    everything_once(&run, &filming.spy);
    no_charges(&client.events(&filming.run_id).await);
    assert_eq!(server.process().end(), None, "the server outlived it");
    server.process().kill().await;
    postgres.stop().await.expect("PostgreSQL stops");
}

#[tokio::test]
async fn a_lease_outlives_the_absence_of_the_database() {
    let world = World::without_database();
    let relay = definitions(world.folder("definitions"), &[("relay", RELAY), ("aside", ASIDE)]);
    let (postgres, mut server) = private(&world, &relay).await;
    let client = server.client();
    let hand = Hand::new(&client, "hand", &["relay"]);
    let run_id = client.create("relay", json!({})).await;
    let lease = hand.take().await;
    hand.checkpoint(&lease, Hand::at(1, 5, 9)).await;

    postgres.kill().await.expect("PostgreSQL is killed");
    away(client.try_run(&run_id).await);
    away(client.runs().list_runs(v1::ListRunsRequest::default()).await);
    away(client.runs().explain_run(v1::ExplainRunRequest { run_id: run_id.clone() }).await);
    let history = v1::ListRunEventsRequest { run_id: run_id.clone(), ..Default::default() };
    away(client.runs().list_run_events(history).await);
    // A submit may be held until the database is back.
    let request = v1::CreateRunRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        workflow: "aside".to_owned(),
        ..Default::default()
    };
    let submit = tokio::spawn({
        let (client, request) = (client.clone(), request.clone());
        async move { client.runs().create_run(request).await }
    });
    let unready = server.http("/readyz").await.expect("the server answers");
    assert_eq!(unready, 503, "it is not ready, and says so");
    assert_eq!(server.http("/healthz").await.expect("the server answers"), 200, "it lives");
    pass(LONG).await;
    let postgres = PrivatePostgres::start(options(&world)).await.expect("PostgreSQL starts again");

    the_lease_still_counts(&client, &hand, &lease, &run_id).await;
    let acknowledged = match submit.await.expect("no panic") {
        Ok(answer) => answer.into_inner().created,
        Err(status) => {
            away::<()>(Err(status));
            false
        }
    };
    let again = client.runs().create_run(request).await.expect("accepted").into_inner();
    assert_ne!(
        again.created, acknowledged,
        "what was acknowledged is there, and what was not can be repeated"
    );
    server.process().kill().await;
    postgres.stop().await.expect("PostgreSQL stops");
}

/// Refused as by a server whose database is away, and without its words.
fn away<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) {
    let refusal = Refusal::of(&answer.expect_err("there is nothing to read from"));
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "UNAVAILABLE"), "{refusal:?}");
}

/// Submits that come while the server is being killed: whatever was acknowledged is there afterwards, and what was not may be
/// repeated under its id.
#[tokio::test]
async fn an_acknowledged_submit_survives_a_crash_at_any_moment() {
    let world = World::new().await;
    let mut server = world.server().await;
    let client = server.client();
    let mut submits = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let client = client.clone();
        submits.spawn(async move {
            let request = content_request(&[Modality::Text], 2);
            let acknowledged = client.content().submit_content(request.clone()).await.is_ok();
            (request, acknowledged)
        });
    }
    let mut submitted = vec![submits.join_next().await.expect("a submit").expect("no panic")];
    server.process().kill().await;
    while let Some(submit) = submits.join_next().await {
        submitted.push(submit.expect("no panic"));
    }
    server.restart().await;

    let acknowledged = submitted.iter().filter(|(_, acknowledged)| *acknowledged).count();
    assert!(acknowledged > 0, "the crash came too early");
    for (request, acknowledged) in submitted {
        let run_id = request.request_id.clone();
        let answer =
            client.content().submit_content(request).await.expect("the repetition is accepted").into_inner();
        assert_eq!(answer.run_id, run_id);
        assert!(!(acknowledged && answer.created), "run {run_id} was acknowledged, and lost");
    }
    let mut seen = 0;
    let mut page = v1::ListRunsRequest { page_size: 150, ..v1::ListRunsRequest::default() };
    loop {
        let answer = client.runs().list_runs(page.clone()).await.expect("a page").into_inner();
        seen += answer.runs.len();
        if answer.next_page_token.is_empty() {
            break;
        }
        page.page_token = answer.next_page_token;
    }
    assert_eq!(seen, 400, "each request is one run");
}

/// The lease is as good as if nothing had happened.
async fn the_lease_still_counts(client: &Client, hand: &Hand, lease: &v1::StepLease, run_id: &str) {
    let beat = longtake_e2e::eventually(Duration::from_secs(15), async || {
        let heartbeat = v1::LeaseHeartbeat { lease_token: lease.lease_token.clone(), ..Default::default() };
        let answer = hand.heartbeat(vec![heartbeat], Duration::ZERO, false).await;
        answer.map_err(|status| status.to_string())
    })
    .await;
    let status = &beat.leases[0];
    let verdict = status.verdict.clone().unwrap_or_default();
    assert_eq!(verdict.reason(), Reason::Unspecified, "{verdict:?}");
    assert_eq!(status.committed_sequence, 1, "the checkpoint is still there");
    assert!(beat.session_remaining.is_some(), "the session lives");
    let run = client.run(run_id).await;
    let first = step(&run, "first");
    assert_eq!((first.state(), first.attempt), (State::Running, 1));
    // One more look at the clocks, now that time runs again.
    pass(Duration::from_millis(500)).await;
    let accepted = hand.complete(lease, json!({"made": "it"})).await.expect("the completion is accepted");
    assert_eq!(accepted.reason(), Reason::Unspecified);
    let next = hand.take().await;
    assert_eq!((next.step.as_str(), next.attempt), ("second", 1));
    hand.complete(&next, json!({})).await.expect("the completion is accepted");
    let run = client.succeeded(run_id, RUN).await;
    assert_eq!(causes(step(&run, "first")), [Cause::Completed]);
    no_charges(&client.events(run_id).await);
}

fn options(world: &World) -> PostgresOptions {
    PostgresOptions { fallback_dir: std::env::temp_dir(), ..PostgresOptions::new(world.folder("postgres")) }
}

async fn private(world: &World, definitions: &std::path::Path) -> (PrivatePostgres, Server) {
    let postgres = PrivatePostgres::start(options(world)).await.expect("a private PostgreSQL");
    let server = Server::start("server", world.dir(), &postgres.url(), definitions).await;
    (postgres, server)
}

/// Runs that no executor works on yet.
async fn submitted(client: &Client, many: usize) -> Vec<(String, i64)> {
    let mut runs = Vec::new();
    for number in 0..many {
        let run_id = client.create("noop", json!({ "number": number })).await;
        let events = client.run(&run_id).await.event_number;
        runs.push((run_id, events));
    }
    runs
}

async fn nothing_is_lost(client: &Client, runs: &[(String, i64)]) {
    for (number, (run_id, events)) in runs.iter().enumerate() {
        let run = client.until(run_id, Duration::from_secs(15), |_| true).await;
        assert_eq!(run.state(), run::State::Running);
        assert_eq!((step(&run, "step-1").state(), run.event_number), (State::Ready, *events));
        let input = longtake_proto::convert::json_from_struct(run.input.clone().unwrap_or_default());
        assert_eq!(input["number"], number);
    }
}

/// One attempt of each step, and one rendering of each scene.
fn everything_once(run: &v1::Run, spy: &Spy) {
    for step in &run.steps {
        assert_eq!(causes(step), [Cause::Completed], "{}", step.name);
    }
    assert_eq!(spy.renders_of("painter"), [1, 2, 3], "each scene is rendered once");
    assert_eq!(run.spent, Some(v1::Money { nano_usd: 200_000_000 }), "and paid once");
}

/// Nobody lost a lease or ran out of time.
fn no_charges(events: &[v1::Event]) {
    let ended = events.iter().filter_map(|event| match &event.kind {
        Some(Kind::StepBackedOff(it)) => Some((it.step.as_str(), it.cause())),
        Some(Kind::StepReturned(it)) => Some((it.step.as_str(), it.cause())),
        Some(Kind::StepFailed(it)) => Some((it.step.as_str(), it.cause())),
        Some(Kind::StepTimedOut(it)) => Some((it.step.as_str(), Cause::StepTimeout)),
        _ => None,
    });
    let charged: Vec<(&str, Cause)> = ended.filter(|(_, cause)| *cause != Cause::Yielded).collect();
    assert_eq!(charged, [], "the absence was charged");
}

fn done(run: &v1::Run) -> i64 {
    let stored = step(run, "video").checkpoint.as_ref();
    stored.and_then(|stored| stored.checkpoint.as_ref()).map_or(0, |checkpoint| checkpoint.done)
}
