//! The three scenarios of the replaced system, from SubmitContent to files that play: states, artifacts and money.

use std::time::Duration;

use longtake_e2e::{Client, Server, World, artifact, bytes_of, causes, content_request, kinds, probe, step};
use longtake_proto::v1::{self, Modality, attempt, run, step::State};
use serde_json::Value;

const RUN: Duration = Duration::from_secs(90);
const SCENES: usize = 3;

/// A world whose executors do everything, and its server.
async fn studio(world: &World) -> (Server, Client, Vec<longtake_e2e::Process>) {
    let (server, client) = world.served().await;
    let executors = vec![
        world.executor(&server, "writer", &["script", "audio", "finalize"]).slots(3).start(),
        world.executor(&server, "painter", &["video"]).slots(2).start(),
    ];
    (server, client, executors)
}

#[tokio::test]
async fn without_modalities_a_video_is_made_for_20_cents() {
    let world = World::new().await;
    let (_server, client, _executors) = studio(&world).await;
    let run_id = client.submit(content_request(&[], SCENES)).await;
    let run = client.succeeded(&run_id, RUN).await;
    a_video_for_20_cents(&run).await;
    the_content_is_shown(&client, &run_id, &[Modality::Video]).await;
    the_history_is_that_of_a_run_without_trouble(&client, &run).await;
}

#[tokio::test]
async fn text_is_spoken_but_not_filmed_and_saves_the_price_of_the_video() {
    let world = World::new().await;
    let (_server, client, _executors) = studio(&world).await;
    let run_id = client.submit(content_request(&[Modality::Text], SCENES)).await;
    let run = client.succeeded(&run_id, RUN).await;

    assert_eq!(nano(run.spent.as_ref()), 17_000_000, "$0.017");
    assert_eq!(nano(run.saved.as_ref()), 183_000_000, "$0.183");
    assert_eq!((run.steps_done, run.steps_total), (4, 4));
    let video = step(&run, "video");
    assert_eq!(video.state(), State::Skipped);
    assert!(video.skip_reason.contains(r#""video" in input.requested_modalities"#), "{}", video.skip_reason);
    assert_eq!((video.attempt, video.attempts.len(), video.artifacts.len()), (0, 0, 0), "never leased");
    assert_eq!(video.output, None);

    a_script(&run);
    a_narration(&run).await;
    let manifest = manifest(&run);
    assert_eq!(manifest["skipped"], serde_json::json!(["video"]));
    the_content_is_shown(&client, &run_id, &[Modality::Text]).await;
}

#[tokio::test]
async fn an_explicit_video_costs_20_cents() {
    let world = World::new().await;
    let (_server, client, _executors) = studio(&world).await;
    let run_id = client.submit(content_request(&[Modality::Video], SCENES)).await;
    let run = client.succeeded(&run_id, RUN).await;
    a_video_for_20_cents(&run).await;
}

async fn a_video_for_20_cents(run: &v1::Run) {
    assert_eq!(nano(run.spent.as_ref()), 200_000_000, "$0.20");
    assert_eq!(nano(run.saved.as_ref()), 0);
    assert_eq!((run.steps_done, run.steps_total), (4, 4));
    for name in ["script", "audio", "video", "finalize"] {
        let step = step(run, name);
        assert_eq!(step.state(), State::Succeeded, "{name}");
        assert_eq!(causes(step), [attempt::Cause::Completed], "{name} needed one attempt");
        assert_eq!(nano(step.cost.as_ref()), nano(step.price.as_ref()), "{name} cost its price, once");
    }
    a_script(run);
    let narrated = a_narration(run).await;

    let made = &step(run, "video").artifacts;
    let video = artifact(made, "video.mp4");
    assert_eq!(video.media_type, "video/mp4");
    bytes_of(video);
    let probed = probe(video).await;
    assert_eq!(probed.streams, ["video h264", "audio aac"]);
    near(probed.duration, narrated, "the video and the narration");

    let captions = artifact(made, "captions.vtt");
    assert_eq!(captions.media_type, "text/vtt");
    let captions = String::from_utf8(bytes_of(captions)).expect("captions are UTF-8");
    assert!(
        captions.starts_with("WEBVTT") && captions.contains("A leaf drinks light, part 1."),
        "{captions}"
    );
    let poster = artifact(made, "poster.png");
    assert_eq!(poster.media_type, "image/png");
    assert!(bytes_of(poster).starts_with(b"\x89PNG"));

    let manifest = manifest(run);
    let scenes = manifest["scenes"].as_array().expect("scenes");
    assert_eq!(scenes.len(), SCENES);
    let seconds: f64 = scenes.iter().filter_map(|scene| scene["seconds"].as_f64()).sum();
    near(probed.duration, Duration::from_secs_f64(seconds), "the video and the sum of its scenes");
    assert_eq!(output(run, "video")["scenes"], SCENES);
    assert_eq!(manifest["skipped"], serde_json::json!([]));
    let named: Vec<&str> = manifest["artifacts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|artifact| artifact["name"].as_str())
        .collect();
    for name in ["script.json", "script.md", "narration.m4a", "video.mp4", "captions.vtt", "poster.png"] {
        assert!(named.contains(&name), "the manifest does not name {name}: {named:?}");
    }
}

fn a_script(run: &v1::Run) {
    let made = &step(run, "script").artifacts;
    let script: Value = serde_json::from_slice(&bytes_of(artifact(made, "script.json"))).expect("JSON");
    let scenes = script["scenes"].as_array().expect("scenes");
    assert_eq!(scenes.len(), SCENES);
    let last = scenes.last().and_then(|scene| scene["narration"].as_str()).expect("a last scene");
    assert!(last.contains("No language model was used"), "the last slide says how it was made: {last}");
    let readable = artifact(made, "script.md");
    assert_eq!(readable.media_type, "text/markdown");
    let text = String::from_utf8(bytes_of(readable)).expect("a script is UTF-8");
    assert!(text.contains("A leaf drinks light, part 1."), "{text}");
}

/// Returns how long it is.
async fn a_narration(run: &v1::Run) -> Duration {
    let narration = artifact(&step(run, "audio").artifacts, "narration.m4a");
    assert_eq!(narration.media_type, "audio/mp4");
    bytes_of(narration);
    let probed = probe(narration).await;
    assert_eq!(probed.streams, ["audio aac"]);
    probed.duration
}

/// The manifest names who made what, and says that no model was used.
fn manifest(run: &v1::Run) -> Value {
    let manifest = artifact(&step(run, "finalize").artifacts, "manifest.json");
    assert_eq!(manifest.media_type, "application/json");
    let manifest: Value = serde_json::from_slice(&bytes_of(manifest)).expect("JSON");
    let made_by = manifest["made_by"].as_array().expect("who made it");
    let by = |step: &str| made_by.iter().find(|line| line["step"] == step).unwrap_or(&Value::Null);
    assert_eq!(by("script")["provider"], "template", "{made_by:?}");
    assert_eq!(by("audio")["provider"], "espeak", "{made_by:?}");
    assert!(made_by.iter().all(|line| line["model"].is_null()), "{made_by:?}");
    let note = by("script")["note"].as_str().unwrap_or_default();
    assert!(note.contains("No language model was used"), "{note}");
    manifest
}

/// GetContent shows what people want of the run.
async fn the_content_is_shown(client: &Client, run_id: &str, requested: &[Modality]) {
    let request = v1::GetContentRequest { run_id: run_id.to_owned() };
    let answer = client.content().get_content(request).await.expect("the content can be read").into_inner();
    let content = answer.content.expect("the content");
    assert_eq!(content.state(), run::State::Succeeded);
    assert!(content.requested_modalities().eq(requested.iter().copied()), "{content:?}");
    assert_eq!(content.preferred_modality(), requested[0]);
    assert_eq!((content.student_id.as_str(), content.error), ("student-1", None));
    let states: Vec<(&str, State)> =
        content.progress.iter().map(|progress| (progress.step.as_str(), progress.state())).collect();
    let filmed = requested.contains(&Modality::Video);
    let video = if filmed { State::Succeeded } else { State::Skipped };
    let done = State::Succeeded;
    assert_eq!(states, [("script", done), ("audio", done), ("video", video), ("finalize", done)]);
    for name in ["script.md", "narration.m4a", "manifest.json"] {
        bytes_of(artifact(&content.artifacts, name));
    }
    if filmed {
        bytes_of(artifact(&content.artifacts, "video.mp4"));
    }
}

/// The history holds each thing once, and neither backoffs nor refusals.
async fn the_history_is_that_of_a_run_without_trouble(client: &Client, run: &v1::Run) {
    let events = client.events(&run.run_id).await;
    let kinds = kinds(&events);
    let many = |kind: &str| kinds.iter().filter(|other| **other == kind).count();
    assert_eq!(kinds.first(), Some(&"run_created"));
    assert_eq!(kinds.last(), Some(&"run_ended"));
    for kind in ["step_ready", "step_leased", "step_succeeded"] {
        assert_eq!(many(kind), 4, "{kind} in {kinds:?}");
    }
    for kind in ["step_backed_off", "step_returned", "step_failed", "report_refused"] {
        assert_eq!(many(kind), 0, "{kind} in {kinds:?}");
    }
    assert_eq!(run.event_number, i64::try_from(events.len()).unwrap_or_default());
}

fn output(run: &v1::Run, name: &str) -> Value {
    let output = step(run, name).output.clone().expect("an output");
    Value::Object(longtake_proto::convert::json_from_struct(output))
}

fn nano(money: Option<&v1::Money>) -> i64 {
    money.expect("an amount").nano_usd
}

fn near(one: Duration, other: Duration, what: &str) {
    assert!(one.abs_diff(other) < Duration::from_millis(200), "{what} last {one:?} and {other:?}");
}
