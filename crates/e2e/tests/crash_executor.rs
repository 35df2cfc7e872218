//! `kill -9` of the video executor in the middle: another one carries on, and makes again nothing that was committed.

use std::time::Duration;

use longtake_e2e::{
    Spy, World, artifact, bytes_of, causes, content_request, content_with_short_leases, eventually, probe,
    step,
};
use longtake_proto::v1::{self, Modality, attempt::Cause, step::State};

/// As the definition of this test has it.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);
const SCENES: usize = 4;
const KEPT: usize = 2;
const AFTER_THE_FIRST: [&str; SCENES - 1] = ["segment-002.mp4", "segment-003.mp4", "segment-004.mp4"];

#[tokio::test]
async fn a_killed_executor_costs_only_the_work_since_its_last_checkpoint() {
    let world = World::new().await;
    let server = world.server_with(&content_with_short_leases(world.folder("definitions"))).await;
    let client = server.client();
    let spy = Spy::new(&world);
    spy.hold(KEPT + 1);
    let _writer = world.executor(&server, "writer", &["script", "audio", "finalize"]).start();
    let mut first = world.executor(&server, "first", &["video"]).watched_by(&spy).start();

    let run_id = client.submit(content_request(&[Modality::Video], SCENES)).await;
    spy.rendering("first", KEPT + 1).await;
    let before = client.until(&run_id, Duration::from_secs(10), |run| done(run) == KEPT as i64).await;
    let kept = segments(&before);
    assert_eq!(kept.len(), KEPT);
    let _second = world.executor(&server, "second", &["video"]).watched_by(&spy).start();

    first.kill().await;
    let killed = std::time::Instant::now();
    spy.release(KEPT + 1);
    let taken_over = eventually(HEARTBEAT_TIMEOUT * 3, async || {
        let run = client.run(&run_id).await;
        let attempts = &step(&run, "video").attempts;
        if attempts.len() == 2 { Ok(killed.elapsed()) } else { Err(format!("{attempts:?}")) }
    })
    .await;
    // The session may have been renewed just before, the lane looks at its clocks every 200 ms, and the step backs off for up to a
    // second before it is ready again.
    let bound = HEARTBEAT_TIMEOUT + Duration::from_millis(2_000);
    assert!(taken_over < bound, "another executor took over after {taken_over:?}, not within {bound:?}");

    let run = client.succeeded(&run_id, Duration::from_secs(60)).await;
    let video = step(&run, "video");
    assert_eq!(causes(video), [Cause::LeaseLost, Cause::Completed]);
    assert_eq!(video.attempts[1].executor, "second");
    assert_eq!(spy.renders_of("first"), [1, 2, 3]);
    assert_eq!(spy.renders_of("second"), [3, 4], "what was committed is not rendered again");
    let all = segments(&run);
    assert_eq!(all.len(), SCENES);
    assert_eq!(all[..KEPT], kept[..], "the committed segments are the same files");
    all.iter().for_each(|segment| drop(bytes_of(segment)));

    let joined = artifact(&video.artifacts, "video.mp4");
    bytes_of(joined);
    let narration = artifact(&step(&run, "audio").artifacts, "narration.m4a");
    let (video_lasts, narration_lasts) = (probe(joined).await.duration, probe(narration).await.duration);
    let apart = video_lasts.abs_diff(narration_lasts);
    assert!(apart < Duration::from_millis(200), "all scenes are in it: {video_lasts:?}, {narration_lasts:?}");
    let budgets = video.budgets.expect("budgets");
    assert_eq!((budgets.failures_used, budgets.losses_used), (0, 0), "progress refilled them");
    assert_eq!(run.spent, Some(v1::Money { nano_usd: 200_000_000 }), "nothing was paid twice");
}

#[tokio::test]
async fn a_gap_between_committed_segments_is_all_that_is_rendered_again() {
    let world = World::new().await;
    let server = world.server_with(&content_with_short_leases(world.folder("definitions"))).await;
    let client = server.client();
    let spy = Spy::new(&world);
    spy.hold(1);
    let _writer = world.executor(&server, "writer", &["script", "audio", "finalize"]).start();
    let mut first = world.executor(&server, "first", &["video"]).video_jobs(2).watched_by(&spy).start();

    let run_id = client.submit(content_request(&[Modality::Video], SCENES)).await;
    let before = client.until(&run_id, Duration::from_secs(60), |run| done(run) == SCENES as i64 - 1).await;
    let kept = segments(&before);
    assert_eq!(kept.iter().map(|segment| segment.name.as_str()).collect::<Vec<_>>(), AFTER_THE_FIRST);
    let mut begun = spy.renders_of("first");
    begun.sort_unstable();
    assert_eq!(begun, [1, 2, 3, 4]);

    first.kill().await;
    spy.release(1);
    let _second = world.executor(&server, "second", &["video"]).video_jobs(2).watched_by(&spy).start();
    let run = client.succeeded(&run_id, Duration::from_secs(60)).await;
    assert_eq!(causes(step(&run, "video")), [Cause::LeaseLost, Cause::Completed]);
    assert_eq!(spy.renders_of("second"), [1], "what was committed is not rendered again");
    assert_eq!(segments(&run)[1..], kept[..], "the committed segments are the same files");
}

#[tokio::test]
async fn an_interrupted_narration_is_resumed_by_scene() {
    let world = World::new().await;
    let text = std::fs::read_to_string(longtake_e2e::shipped_definitions().join("content.toml"))
        .expect("content.toml");
    let short = text.replace("needs = [\"script\"]\n", "needs = [\"script\"]\nheartbeat_timeout = \"3s\"\n");
    let definitions = longtake_e2e::definitions(world.folder("definitions"), &[("content", &short)]);
    let server = world.server_with(&definitions).await;
    let client = server.client();
    let run_id = client.submit(content_request(&[Modality::Text], 40)).await;
    let _writer = world.executor(&server, "writer", &["script", "finalize"]).start();
    let mut first = world.executor(&server, "first", &["audio"]).start();
    let before = client
        .until(&run_id, Duration::from_secs(30), |run| {
            let audio = step(run, "audio");
            assert_ne!(audio.state(), State::Succeeded, "it was faster than the test: give it more scenes");
            checkpoint(audio).is_some_and(|checkpoint| checkpoint.done >= 2)
        })
        .await;
    first.kill().await;
    let spoken = checkpoint(step(&before, "audio")).expect("a checkpoint").artifacts.clone();
    let _second = world.executor(&server, "second", &["audio"]).start();

    let run = client.succeeded(&run_id, Duration::from_secs(60)).await;
    let audio = step(&run, "audio");
    assert_eq!(causes(audio), [Cause::LeaseLost, Cause::Completed]);
    for scene in &spoken {
        assert_eq!(artifact(&audio.artifacts, &scene.name), scene, "spoken once");
    }
}

fn checkpoint(step: &v1::Step) -> Option<&v1::Checkpoint> {
    step.checkpoint.as_ref()?.checkpoint.as_ref()
}

fn done(run: &v1::Run) -> i64 {
    checkpoint(step(run, "video")).map_or(0, |checkpoint| checkpoint.done)
}

/// The segments that the checkpoint of the video step holds.
fn segments(run: &v1::Run) -> Vec<v1::Artifact> {
    checkpoint(step(run, "video")).map(|checkpoint| checkpoint.artifacts.clone()).unwrap_or_default()
}
