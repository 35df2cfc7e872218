//! SIGTERM: executors give their steps back with a checkpoint, the orchestrator finishes what is under way, and both exit 0.

use std::time::{Duration, Instant};

use longtake_e2e::{
    Hand, Refusal, Signal, Spy, World, causes, content_request, definitions, eventually, kinds, step,
};
use longtake_proto::v1::watch_run_response::Update;
use longtake_proto::v1::{self, Modality, attempt::Cause, event::Kind, step::State};
use serde_json::json;
use tonic::Code;

const RUN: Duration = Duration::from_secs(90);
const SCENES: usize = 4;
const SINGLE: &str = "format = 1\nname = \"single\"\n[[step]]\nname = \"work\"\n";

#[tokio::test]
async fn an_executor_yields_what_it_has_and_another_carries_on_at_once() {
    let world = World::new().await;
    let (server, client) = world.served().await;
    let spy = Spy::new(&world);
    spy.hold(2);
    let _writer = world.executor(&server, "writer", &["script", "audio", "finalize"]).start();
    let mut first = world.executor(&server, "first", &["video"]).watched_by(&spy).start();
    let run_id = client.submit(content_request(&[Modality::Video], SCENES)).await;
    spy.rendering("first", 2).await;
    let _second = world.executor(&server, "second", &["video"]).watched_by(&spy).start();

    first.signal(Signal::Terminate);
    spy.release(2);
    let status = first.ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0), "a drain is no failure");

    let run = client.succeeded(&run_id, RUN).await;
    let video = step(&run, "video");
    assert_eq!(causes(video), [Cause::Yielded, Cause::Completed]);
    assert_eq!(spy.renders_of("first"), [1, 2], "the scene under way was finished, and no other begun");
    assert_eq!(spy.renders_of("second"), [3, 4], "what it had made is not made again");
    let ended = video.attempts[0].end_time.as_ref().and_then(longtake_proto::convert::micros_from_timestamp);
    let leased =
        video.attempts[1].lease_time.as_ref().and_then(longtake_proto::convert::micros_from_timestamp);
    let between = leased.zip(ended).map(|(leased, ended)| leased - ended).expect("both times");
    assert!((0..1_000_000).contains(&between), "another carried on after {between} µs");

    let events = client.events(&run_id).await;
    let back = events.iter().find_map(|event| match &event.kind {
        Some(Kind::StepReturned(returned)) => Some(returned),
        _ => None,
    });
    assert_eq!(back.map(v1::StepReturned::cause), Some(Cause::Yielded));
    assert!(!kinds(&events).contains(&"step_backed_off"), "{:?}", kinds(&events));
}

#[tokio::test]
async fn an_executor_yields_everything_that_it_rendered_side_by_side() {
    let world = World::new().await;
    let (server, client) = world.served().await;
    let spy = Spy::new(&world);
    spy.hold(1);
    spy.hold(2);
    let _writer = world.executor(&server, "writer", &["script", "audio", "finalize"]).start();
    let mut first = world.executor(&server, "first", &["video"]).video_jobs(2).watched_by(&spy).start();
    let run_id = client.submit(content_request(&[Modality::Video], SCENES)).await;
    spy.rendering("first", 1).await;
    spy.rendering("first", 2).await;
    let _second = world.executor(&server, "second", &["video"]).video_jobs(2).watched_by(&spy).start();

    first.signal(Signal::Terminate);
    eventually(Duration::from_secs(10), async || {
        let said = first.said();
        if said.contains("drain") { Ok(()) } else { Err(said) }
    })
    .await;
    spy.release(2);
    spy.release(1);
    assert_eq!(first.ended(Duration::from_secs(20)).await.code(), Some(0), "a drain is no failure");

    let run = client.succeeded(&run_id, RUN).await;
    assert_eq!(causes(step(&run, "video")), [Cause::Yielded, Cause::Completed]);
    let rendered = |executor| {
        let mut scenes = spy.renders_of(executor);
        scenes.sort_unstable();
        scenes
    };
    assert_eq!(rendered("first"), [1, 2], "the scenes under way were finished, and no other begun");
    assert_eq!(rendered("second"), [3, 4], "what it had made is not made again");
}

#[tokio::test]
async fn a_drain_draws_on_no_budget_of_failures_or_losses() {
    let world = World::new().await;
    let (server, client) = world.served().await;
    let spy = Spy::new(&world);
    spy.hold(2);
    let _writer = world.executor(&server, "writer", &["script", "audio", "finalize"]).start();
    let grace = ["--grace", "1s"];
    let only = world.executor(&server, "only", &["video"]).watched_by(&spy);
    let mut only = grace.into_iter().fold(only, longtake_e2e::Executor::arg).start();
    let run_id = client.submit(content_request(&[Modality::Video], SCENES)).await;
    spy.rendering("only", 2).await;

    // Scene 2 is never finished: when the grace is over the step is dropped, and goes back as it was committed last.
    let asked = Instant::now();
    only.signal(Signal::Terminate);
    let status = only.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    assert!(asked.elapsed() >= Duration::from_secs(1), "it had a second of grace");

    let run = client.run(&run_id).await;
    let video = step(&run, "video");
    assert_eq!(video.state(), State::Ready, "it waits for another executor, without a backoff");
    assert_eq!(causes(video), [Cause::Yielded]);
    let budgets = video.budgets.expect("budgets");
    assert_eq!((budgets.failures_used, budgets.losses_used, budgets.yields_used), (0, 0, 1));
    assert!(budgets.yields_allowed >= 100, "{budgets:?}");
    let kept = video.checkpoint.as_ref().and_then(|stored| stored.checkpoint.as_ref());
    assert_eq!(kept.map(|checkpoint| (checkpoint.done, checkpoint.total)), Some((1, SCENES as i64)));

    spy.release(2);
    let _next = world.executor(&server, "next", &["video"]).watched_by(&spy).start();
    client.succeeded(&run_id, RUN).await;
    assert_eq!(spy.renders_of("next"), [2, 3, 4]);
}

#[tokio::test]
async fn an_idle_executor_ends_at_once() {
    let world = World::new().await;
    let (server, _client) = world.served().await;
    let mut idle = world.executor(&server, "idle", &["video"]).start();
    eventually(Duration::from_secs(20), async || {
        let said = idle.said();
        if said.is_empty() { Err("it says nothing".to_owned()) } else { Ok(()) }
    })
    .await;
    idle.signal(Signal::Terminate);
    let asked = Instant::now();
    assert_eq!(idle.ended(Duration::from_secs(5)).await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(3), "an idle executor took {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_server_answers_what_it_holds_and_exits() {
    let world = World::new().await;
    let single = definitions(world.folder("definitions"), &[("single", SINGLE)]);
    let mut server = world.server_with(&single).await;
    let client = server.client();
    let hand = Hand::new(&client, "hand", &["work"]);
    let run_id = client.create("single", json!({})).await;
    let lease = hand.take().await;

    // One call of each kind that a server holds.
    let polled = tokio::spawn({
        let idle = Hand::new(&client, "idle", &["nothing"]);
        async move { idle.poll(Duration::from_secs(50)).await }
    });
    let held = tokio::spawn({
        let (hand, token) = (hand.clone(), lease.lease_token.clone());
        async move {
            let heartbeat = v1::LeaseHeartbeat { lease_token: token, ..v1::LeaseHeartbeat::default() };
            hand.heartbeat(vec![heartbeat], Duration::from_secs(9), false).await
        }
    });
    let request = v1::WatchRunRequest { run_id: run_id.clone(), after_event: 0 };
    let mut watched = client.runs().watch_run(request).await.expect("a stream").into_inner();
    let mut seen = 0;
    let events = client.run(&run_id).await.event_number;
    while seen < events {
        match watched.message().await.expect("an update").and_then(|update| update.update) {
            Some(Update::Event(event)) => seen = event.number,
            Some(Update::Progress(_)) => {}
            None => panic!("the stream ended"),
        }
    }

    server.process().signal(Signal::Terminate);
    let asked = Instant::now();
    let polled = polled.await.expect("no panic").expect("the poll is answered");
    assert!(polled.leases.is_empty());
    let held = held.await.expect("no panic").expect("the heartbeat is answered");
    assert_eq!(held.leases.len(), 1);
    let end = loop {
        match watched.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended as if the run had"),
            Err(status) => break Refusal::of(&status),
        }
    };
    assert_eq!((end.code, end.reason.as_str()), (Code::Unavailable, "UNAVAILABLE"), "{end:?}");
    let status = server.process().ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "a drain is no failure");
    assert!(asked.elapsed() < Duration::from_secs(5), "a stop took {:?}", asked.elapsed());

    server.restart().await;
    hand.complete(&lease, json!({})).await.expect("the lease outlives the restart");
    let run = client.succeeded(&run_id, RUN).await;
    assert_eq!(causes(step(&run, "work")), [Cause::Completed]);
}

#[tokio::test]
async fn a_stop_loses_no_call_that_was_under_way() {
    let world = World::new().await;
    let mut server = world.server().await;
    let client = server.client();
    let mut submits = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let client = client.clone();
        submits.spawn(async move {
            let request = content_request(&[Modality::Text], 2);
            let id = request.request_id.clone();
            (id, client.content().submit_content(request).await)
        });
    }
    let (first, answer) = submits.join_next().await.expect("a submit").expect("no panic");
    answer.expect("the first submit is accepted");
    server.process().signal(Signal::Terminate);
    let mut acknowledged = vec![first];
    while let Some(submit) = submits.join_next().await {
        match submit.expect("no panic") {
            (id, Ok(_)) => acknowledged.push(id),
            (_, Err(status)) => {
                let refusal = Refusal::of(&status);
                assert!(
                    matches!(refusal.code, Code::Unavailable | Code::Unknown | Code::Cancelled),
                    "{refusal:?}"
                );
            }
        }
    }
    assert_eq!(server.process().ended(Duration::from_secs(20)).await.code(), Some(0));
    server.restart().await;
    for run_id in acknowledged {
        assert_eq!(step(&client.run(&run_id).await, "script").state(), State::Ready);
    }
}

#[tokio::test]
async fn a_server_without_calls_exits_at_once() {
    let world = World::new().await;
    let mut server = world.server().await;
    let asked = Instant::now();
    server.process().signal(Signal::Terminate);
    assert_eq!(server.process().ended(Duration::from_secs(10)).await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(3), "a stop took {:?}", asked.elapsed());
}
