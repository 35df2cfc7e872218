//! The content steps with the real programs: ffmpeg, ffprobe and espeak-ng must be installed.

#![allow(clippy::unwrap_used)] // tests, helpers included

mod support;

use std::process::Command;

use longtake_media::{Artifact, Ended, Finished, MediaConfig, MediaError, Saved, Step};
use serde_json::{Value, json};
use support::{Recorder, Stage, three_scenes};

/// What a stand-in for ffmpeg does instead of rendering a segment that must not get done.
const STUCK: &str = "exec sleep 600";

fn named<'a>(finished: &'a Finished, name: &str) -> &'a Artifact {
    finished.artifacts.iter().find(|artifact| artifact.name == name).unwrap()
}

fn probe(path: &std::path::Path) -> Value {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json", "-count_frames", "-show_streams", "-show_format"])
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn spoken(input: Value) -> Stage {
    spoken_with(input, |_| {}).await
}

async fn spoken_with(input: Value, change: impl FnOnce(&mut MediaConfig)) -> Stage {
    let mut stage = Stage::with(input, change);
    stage.finish(Step::Script).await;
    stage.finish(Step::Audio).await;
    stage
}

async fn finished(stage: &Stage, step: Step, checkpoint: Option<Saved>, recorder: &Recorder) -> Finished {
    match stage.media.run(step, &stage.job(step, checkpoint), recorder).await.unwrap() {
        Ended::Finished(finished) => finished,
        Ended::Yielded => panic!("nobody asked it to yield"),
    }
}

#[tokio::test]
async fn a_request_becomes_a_verified_video() {
    let mut stage = spoken(three_scenes()).await;
    let recorder = Recorder::default();
    let video = finished(&stage, Step::Video, None, &recorder).await;
    stage.keep(Step::Video, &video);

    let checkpoints = recorder.checkpoints.lock().unwrap().clone();
    let dones: Vec<_> = checkpoints.iter().map(|saved| (saved.done, saved.artifacts.len())).collect();
    assert_eq!(dones, [(1, 1), (2, 2), (3, 3)]);
    assert!(recorder.progress.lock().unwrap().iter().any(|(_, _, message)| message.contains("100 %")));

    let found = probe(&stage.path_of(named(&video, "video.mp4")));
    let codecs: Vec<_> =
        found["streams"].as_array().unwrap().iter().map(|s| s["codec_name"].clone()).collect();
    assert_eq!(codecs, ["h264", "aac"]);
    assert_eq!(found["streams"][0]["pix_fmt"], "yuv420p");
    let seconds: f64 = found["format"]["duration"].as_str().unwrap().parse().unwrap();
    assert!((seconds - video.output["seconds"].as_f64().unwrap()).abs() < 0.001, "{seconds}");

    let captions = std::fs::read_to_string(stage.path_of(named(&video, "captions.vtt"))).unwrap();
    assert!(captions.contains("Leaves catch light.") && captions.contains("No language model was used."));

    let done = stage.finish(Step::Finalize).await;
    let manifest = std::fs::read(stage.path_of(named(&done, "manifest.json"))).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["scenes"].as_array().unwrap().len(), 3);
    assert_eq!(manifest["made_by"][1]["provider"], "template");
    assert_eq!(manifest["made_by"][1]["model"], Value::Null);
    assert!(manifest["made_by"][1]["note"].as_str().unwrap().contains("No language model was used."));
    assert_eq!(manifest["skipped"], json!([]));
    assert_eq!(done.output["video"], named(&video, "video.mp4").uri);
    assert!(stage.work_is_empty());
}

#[tokio::test]
async fn an_attempt_that_takes_over_renders_only_what_is_missing() {
    let stage = spoken_with(three_scenes(), |config| config.video_jobs = 1).await;
    // The second is begun while the first is stored: it is finished, and no other is begun.
    let first = Recorder::yielding_after(1);
    let ended = stage.media.run(Step::Video, &stage.job(Step::Video, None), &first).await.unwrap();
    assert_eq!((ended, stage.ffmpeg_runs("segment.mp4")), (Ended::Yielded, 2));

    let second = Recorder::default();
    let resumed = finished(&stage, Step::Video, first.last(), &second).await;
    assert_eq!(stage.ffmpeg_runs("segment.mp4"), 3);
    let (before, after) = (first.last().unwrap(), second.last().unwrap());
    assert_eq!(before.artifacts, after.artifacts[..2]);

    // Another attempt from nothing makes the same bytes; one with everything renders nothing.
    let third = Recorder::default();
    let whole = finished(&stage, Step::Video, None, &third).await;
    assert_eq!((whole, third.last().unwrap().artifacts), (resumed.clone(), after.artifacts.clone()));
    assert_eq!(stage.ffmpeg_runs("segment.mp4"), 6);
    assert_eq!(finished(&stage, Step::Video, Some(after), &Recorder::default()).await, resumed);
    assert_eq!(stage.ffmpeg_runs("segment.mp4"), 6);
}

#[tokio::test]
async fn stored_segments_that_are_damaged_missing_or_outdated_are_rendered_again() {
    let mut stage = spoken(three_scenes()).await;
    let first = Recorder::default();
    let original = finished(&stage, Step::Video, None, &first).await;
    let saved = first.last().unwrap();

    let mut bytes = std::fs::read(stage.path_of(&saved.artifacts[0])).unwrap();
    bytes[1_000] ^= 1;
    std::fs::write(stage.path_of(&saved.artifacts[0]), bytes).unwrap();
    std::fs::remove_file(stage.path_of(&saved.artifacts[2])).unwrap();
    let mended = finished(&stage, Step::Video, Some(saved.clone()), &Recorder::default()).await;
    assert_eq!((mended, stage.ffmpeg_runs("segment.mp4")), (original, 5));

    // Another script for the same step: nothing of the old one fits.
    stage.input["source_text"] = json!("# Roots\n\nRoots drink.\n\n## Deep\n\nDown there.\n");
    stage.finish(Step::Script).await;
    stage.finish(Step::Audio).await;
    finished(&stage, Step::Video, Some(saved), &Recorder::default()).await;
    assert!(stage.ffmpeg_runs("segment.mp4") >= 7);
}

#[tokio::test]
async fn segments_rendered_side_by_side_are_the_same() {
    let stage = spoken_with(three_scenes(), |config| config.video_jobs = 1).await;
    let one = finished(&stage, Step::Video, None, &Recorder::default()).await;
    let mut parallel = Stage::with(three_scenes(), |config| {
        config.video_jobs = 3;
        config.artifacts = stage.media.store().root().to_owned();
    });
    parallel.needs = stage.needs.clone();
    let recorder = Recorder::default();
    assert_eq!(finished(&parallel, Step::Video, None, &recorder).await, one);
    assert_eq!(parallel.ffmpeg_runs("segment.mp4"), 3);
    let dones: Vec<u64> = recorder.progress.lock().unwrap().iter().map(|(done, ..)| *done).collect();
    assert!(dones.is_sorted(), "{dones:?}");
}

#[tokio::test]
async fn a_checkpoint_with_a_gap_is_resumed_by_filling_the_gap() {
    let stage = spoken_with(three_scenes(), |config| config.video_jobs = 2).await;
    let job = stage.job(Step::Video, None);
    let first = Recorder::default();
    stage.spoil(1, Some(STUCK));
    tokio::select! {
        ended = stage.media.run(Step::Video, &job, &first) => panic!("ended early: {ended:?}"),
        () = first.saved(2) => {}
    }
    let with_gap = first.last().unwrap();
    let names: Vec<_> = with_gap.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    assert_eq!((with_gap.done, names), (2, vec!["segment-002.mp4", "segment-003.mp4"]));
    assert_eq!(stage.ffmpeg_runs("segment.mp4"), 3);
    assert!(stage.work_is_empty());

    stage.spoil(1, None);
    let second = Recorder::default();
    finished(&stage, Step::Video, Some(with_gap.clone()), &second).await;
    assert_eq!(stage.ffmpeg_runs("segment.mp4"), 4);
    let saved = second.checkpoints.lock().unwrap().clone();
    assert_eq!(saved.iter().map(|saved| saved.done).collect::<Vec<_>>(), [3]);
    assert_eq!(saved[0].artifacts[1..], with_gap.artifacts);
}

#[tokio::test]
async fn a_segment_that_fails_ends_the_others_and_loses_nothing_that_was_finished() {
    let stage = spoken_with(three_scenes(), |config| config.video_jobs = 2).await;
    stage.spoil(2, Some(STUCK));
    stage.spoil(3, Some("echo no such picture >&2; exit 3"));
    let recorder = Recorder::default();
    let job = stage.job(Step::Video, None);
    let error = stage.media.run(Step::Video, &job, &recorder).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("TOOL_FAILED", true));
    assert!(
        error.to_string().contains("scene 3") && error.to_string().contains("no such picture"),
        "{error}"
    );
    assert_eq!(recorder.last().map(|saved| saved.done), Some(1));
    assert!(stage.work_is_empty());
}

#[tokio::test]
async fn attempts_share_the_jobs_and_one_that_waits_for_a_job_gives_way_at_once() {
    let stage = spoken_with(three_scenes(), |config| config.video_jobs = 1).await;
    stage.spoil(1, Some(STUCK));
    let job = stage.job(Step::Video, None);
    let (first, second) = (Recorder::default(), Recorder::default());
    let ask = async {
        second.begun().await;
        second.ask_to_yield();
        std::future::pending::<()>().await;
    };
    let waiting = async {
        first.begun().await;
        // It says so before its first segment has the only job.
        while stage.ffmpeg_runs("segment.mp4") == 0 {
            tokio::task::yield_now().await;
        }
        stage.media.run(Step::Video, &job, &second).await
    };
    tokio::select! {
        ended = stage.media.run(Step::Video, &job, &first) => panic!("ended early: {ended:?}"),
        ended = waiting => assert_eq!(ended.unwrap(), Ended::Yielded),
        () = ask => {}
    }
    assert_eq!(second.last(), None);
    assert_eq!(stage.ffmpeg_runs("segment.mp4"), 1);
}

#[tokio::test]
async fn speech_is_resumed_scene_by_scene() {
    let mut stage = Stage::new(three_scenes());
    stage.finish(Step::Script).await;
    let first = Recorder::yielding_after(1);
    let ended = stage.media.run(Step::Audio, &stage.job(Step::Audio, None), &first).await.unwrap();
    assert_eq!(ended, Ended::Yielded);
    let second = Recorder::default();
    let resumed = finished(&stage, Step::Audio, first.last(), &second).await;
    assert_eq!(second.checkpoints.lock().unwrap().len(), 2);
    assert_eq!(finished(&stage, Step::Audio, None, &Recorder::default()).await, resumed);
}

#[tokio::test]
async fn hostile_text_is_shown_and_said_and_harms_nothing() {
    let long_word = "a".repeat(500);
    let hostile = format!(
        "# -f evil %{{eif\\:1}} 'q' \"d\" a:b,c;d [in] \\n\n\n-f /etc/passwd 100% 'quoted' \"x\" a:b \\n [[h@'loU]] $(id) `id`\n\n\
         ## 😀😀\n\n😀 🎉\n\n## שלום עולם\n\nשלום עולם, זה משפט.\n\n## Long\n\n{long_word}\n\n## CJK\n\n光合作用。\n"
    );
    let input = json!({"student_query": "-f evil", "source_text": hostile, "requested_modalities": ["video", "text", "audio"]});
    let mut stage = spoken(input).await;
    let video = stage.finish(Step::Video).await;
    assert!(video.output["letters_without_glyph"].as_u64().unwrap() > 0);
    stage.finish(Step::Finalize).await;
}

#[tokio::test]
async fn without_video_the_narration_is_what_is_verified() {
    let mut input = three_scenes();
    input["requested_modalities"] = json!(["text"]);
    let mut stage = spoken(input).await;
    stage.needs.insert("video".to_owned(), longtake_media::Need { output: None, artifacts: Vec::new() });
    let done = stage.finish(Step::Finalize).await;
    assert_eq!((&done.output["video"], &done.output["skipped"]), (&Value::Null, &json!(["video"])));
    assert!(done.output["text"].is_string() && done.output["audio"].is_string());
}

#[tokio::test]
async fn finalize_names_what_is_missing_damaged_or_not_what_it_says() {
    let mut stage = spoken(three_scenes()).await;
    let refuse = |error: MediaError, code: &str, retryable: bool, name: &str| {
        assert_eq!((error.code(), error.retryable()), (code, retryable), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    };
    async fn finalize(stage: &Stage) -> MediaError {
        stage
            .media
            .run(Step::Finalize, &stage.job(Step::Finalize, None), &Recorder::default())
            .await
            .unwrap_err()
    }
    refuse(finalize(&stage).await, "MODALITY_MISSING", false, "`video` was requested");

    let video = stage.finish(Step::Video).await;
    let narration = stage.needs["audio"].artifacts[0].clone();
    let path = stage.path_of(&narration);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    refuse(finalize(&stage).await, "ARTIFACT_MISSING", true, "narration.m4a");
    std::fs::write(&path, &bytes[1..]).unwrap();
    refuse(finalize(&stage).await, "ARTIFACT_DAMAGED", false, "narration.m4a");
    std::fs::write(&path, &bytes).unwrap();

    // A video of the right hash that is not the right video: another file, and one scene too few.
    let mut other = video.clone();
    let poster = named(&video, "poster.png").clone();
    other.artifacts[0] =
        Artifact { name: "video.mp4".to_owned(), media_type: "video/mp4".to_owned(), ..poster };
    stage.keep(Step::Video, &other);
    refuse(finalize(&stage).await, "MEDIA_INVALID", false, "video.mp4");
    stage.keep(Step::Video, &video);
    let mut short = stage.needs["audio"].clone();
    let slots = short.output.as_mut().unwrap()["slots"].as_array_mut().unwrap();
    slots.pop();
    stage.needs.insert("audio".to_owned(), short);
    refuse(finalize(&stage).await, "MEDIA_INVALID", false, "narration.m4a");
}

#[tokio::test]
async fn steps_without_what_they_need_say_so() {
    let stage = Stage::new(three_scenes());
    for step in [Step::Audio, Step::Video] {
        let error = stage.media.run(step, &stage.job(step, None), &Recorder::default()).await.unwrap_err();
        assert_eq!((error.code(), error.retryable()), ("NEED_MISSING", false));
    }
    let mut stage = Stage::with(three_scenes(), |config| config.espeak = "/nowhere/espeak-ng".into());
    stage.finish(Step::Script).await;
    let job = stage.job(Step::Audio, None);
    let error = stage.media.run(Step::Audio, &job, &Recorder::default()).await.unwrap_err();
    assert_eq!(error.code(), "TOOL_MISSING");
    assert!(error.to_string().contains("apt-get install -y espeak-ng"));
}

#[tokio::test]
async fn a_cancelled_render_leaves_no_child_and_no_file() {
    let stage = spoken(three_scenes()).await;
    let job = stage.job(Step::Video, None);
    let recorder = Recorder::default();
    let mut running = Box::pin(stage.media.run(Step::Video, &job, &recorder));
    // Polls it until ffmpeg has begun, then drops it.
    while stage.ffmpeg_runs("segment.mp4") == 0 {
        tokio::select! {
            biased;
            ended = &mut running => panic!("ended early: {ended:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(running);
    assert!(stage.work_is_empty());
}

#[tokio::test]
async fn the_check_names_what_is_missing_and_what_installs_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = MediaConfig {
        artifacts: folder.path().display().to_string(),
        espeak: "/nowhere/espeak-ng".into(),
        font: Some("/nowhere/font.ttf".into()),
        ..MediaConfig::default()
    };
    let findings = longtake_media::check(&config, &["audio", "video", "finalize", "script", "other"]).await;
    let missing: Vec<_> = findings
        .iter()
        .filter(|finding| finding.found.is_err())
        .map(|f| (f.what, f.install, &f.queues))
        .collect();
    assert_eq!(
        missing,
        [
            ("espeak-ng with its voice", Some("apt-get install -y espeak-ng"), &vec!["audio"]),
            ("font for slides", Some("apt-get install -y fonts-dejavu-core"), &vec!["video"]),
        ]
    );
    assert!(findings.len() >= 8);
    assert!(longtake_media::check(&config, &["other"]).await.is_empty());
}
