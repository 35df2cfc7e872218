//! A run in words: its end in a line, its files, or all there is to see at a glance.

use std::io;

use longtake_proto::v1::{Artifact, Run, Step, StepError, run, step};
use url::Url;

use crate::output::{self, printable};
use crate::progress::{is_terminal_state, run_state, step_state};
use crate::{format, json};

/// What the content steps make, by the names of the files, as people call it.
const CONTENT: [(&str, &str); 6] = [
    ("video.mp4", "video"),
    ("narration.m4a", "narration"),
    ("script.md", "script"),
    ("poster.png", "poster"),
    ("captions.vtt", "captions"),
    ("manifest.json", "manifest"),
];

/// The names of the files that people look at.
pub(crate) fn content_names() -> [&'static str; 6] {
    CONTENT.map(|(name, _)| name)
}

/// `SUCCEEDED in 41 s, spent $0.20, saved $0.00`, or why not.
pub(crate) fn ending(run: &Run) -> String {
    let state = format::state(run_state(run.state).as_str_name());
    let took = run.create_time.as_ref().zip(run.end_time.as_ref());
    let took = took.map(|(from, to)| format!(" in {}", format::span(format::between(from, to))));
    let money =
        format!("spent {}, saved {}", format::money(run.spent.as_ref()), format::money(run.saved.as_ref()));
    let why = why(run);
    let colon = if why.is_empty() { "" } else { ": " };
    printable(&format!("{state}{}{colon}{why}; {money}", took.unwrap_or_default()))
}

/// Why it is paused, stopping, or ended otherwise than SUCCEEDED.
pub(crate) fn why(run: &Run) -> String {
    match &run.error {
        Some(StepError { message, .. }) if !message.is_empty() && *message != run.state_reason => {
            [run.state_reason.as_str(), message]
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join(": ")
        }
        _ => run.state_reason.clone(),
    }
}

/// What a run made, what it cost, or why it made nothing: the result of `run` and `submit --wait`.
pub(crate) fn result(run: &Run) -> io::Result<()> {
    if run_state(run.state) != run::State::Succeeded {
        output::note(&ending(run));
    }
    let mut pairs = files(run);
    pairs.push(("spent".to_owned(), format::money(run.spent.as_ref())));
    pairs.push(("saved".to_owned(), saved(run)));
    output::pairs(&pairs)
}

fn saved(run: &Run) -> String {
    let skipped: Vec<&str> = run
        .steps
        .iter()
        .filter(|step| step_state(step.state) == step::State::Skipped)
        .map(|step| step.name.as_str())
        .collect();
    let amount = format::money(run.saved.as_ref());
    if skipped.is_empty() { amount } else { format!("{amount} ({} skipped)", skipped.join(", ")) }
}

/// Files with where they are: of content those that people look at, else all.
fn files(run: &Run) -> Vec<(String, String)> {
    let artifacts: Vec<&Artifact> = run.steps.iter().flat_map(|step| &step.artifacts).collect();
    let named = |(name, called): &(&str, &str)| {
        let artifact = artifacts.iter().rev().find(|artifact| artifact.name == *name)?;
        Some(((*called).to_owned(), place(&artifact.uri)))
    };
    let content: Vec<_> = CONTENT.iter().filter_map(named).collect();
    if content.is_empty() {
        return artifacts.iter().map(|artifact| (artifact.name.clone(), place(&artifact.uri))).collect();
    }
    content
}

/// A local path where it is one.
pub(crate) fn place(uri: &str) -> String {
    let path =
        Url::parse(uri).ok().filter(|url| url.scheme() == "file").and_then(|url| url.to_file_path().ok());
    path.map_or_else(|| uri.to_owned(), |path| path.display().to_string())
}

/// All that people want to see of a run.
pub(crate) fn whole(run: &Run) -> io::Result<()> {
    let state = run_state(run.state);
    let now = format::now();
    let time = |time: &Option<prost_types::Timestamp>| {
        time.as_ref().map(|time| format!("{} ({})", format::moment(time), format::relative(time, &now)))
    };
    let version = run.workflow_version.get(..12).unwrap_or(&run.workflow_version);
    let standing = match (is_terminal_state(state), why(run)) {
        (true, _) => ending(run),
        (false, why) if why.is_empty() => format::state(state.as_str_name()).to_owned(),
        (false, why) => format!("{}: {why}", format::state(state.as_str_name())),
    };
    let mut pairs = vec![
        ("run", Some(run.run_id.clone())),
        ("workflow", Some(format!("{} ({version})", run.workflow))),
        ("state", Some(standing)),
        ("created", time(&run.create_time)),
        ("ended", time(&run.end_time)),
        ("deadline", time(&run.deadline)),
        ("labels", labels(run)),
        ("input", run.input.as_ref().map(|input| short(&json::of_struct(input).to_string()))),
        ("spent", (!is_terminal_state(state)).then(|| format::money(run.spent.as_ref()))),
    ];
    pairs.retain(|(_, value)| value.is_some());
    let pairs: Vec<_> =
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.unwrap_or_default())).collect();
    output::pairs(&pairs)?;
    output::line("")?;
    let rows: Vec<_> = run.steps.iter().map(|step| step_row(step, &now)).collect();
    output::table(["STEP", "STATE", "ATTEMPT", "DONE", "TOOK", "COST", "EXECUTOR", "WHY"], &rows)?;
    let files: Vec<_> =
        run.steps.iter().flat_map(|step| step.artifacts.iter().map(|file| file_row(step, file))).collect();
    if !files.is_empty() {
        output::line("")?;
        output::table(["OF", "FILE", "SIZE", "PLACE"], &files)?;
    }
    Ok(())
}

fn file_row(step: &Step, file: &Artifact) -> [String; 4] {
    [step.name.clone(), file.name.clone(), format::bytes(file.size_bytes), place(&file.uri)]
}

fn labels(run: &Run) -> Option<String> {
    let mut labels: Vec<_> = run.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    (!labels.is_empty()).then(|| labels.join(" "))
}

fn short(text: &str) -> String {
    const CHARS: usize = 200;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn step_row(step: &Step, now: &prost_types::Timestamp) -> [String; 8] {
    let state = step_state(step.state);
    let progress = step.progress.as_ref().filter(|progress| progress.total > 0);
    // The last progress of a step that is done may have come before its end.
    let done = progress.map(|progress| match state {
        step::State::Succeeded => format!("{0}/{0}", progress.total),
        _ => format!("{}/{}", progress.done, progress.total),
    });
    let took =
        step.start_time.as_ref().map(|start| format::between(start, step.end_time.as_ref().unwrap_or(now)));
    let last = step.live_attempt.as_ref().or_else(|| step.attempts.last());
    let why = match state {
        step::State::Skipped => step.skip_reason.clone(),
        step::State::Succeeded => String::new(),
        _ => step.error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
    };
    let or_nothing = |text: String| if text.is_empty() { format::NOTHING.to_owned() } else { text };
    [
        step.name.clone(),
        format::state(state.as_str_name()).to_owned(),
        step.attempt.to_string(),
        or_nothing(done.unwrap_or_default()),
        or_nothing(took.map(format::span).unwrap_or_default()),
        format::money(step.cost.as_ref()),
        or_nothing(last.map(|attempt| attempt.executor.clone()).unwrap_or_default()),
        why,
    ]
}

#[cfg(test)]
mod tests {
    use longtake_proto::v1::Money;
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn local_files_are_paths() {
        for (uri, shown) in [
            ("file:///data/a%20b/video.mp4", "/data/a b/video.mp4"),
            ("s3://bucket/run/video.mp4", "s3://bucket/run/video.mp4"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(place(uri), shown);
        }
    }

    #[test]
    fn an_ending_says_how_and_why() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let run = Run {
            state: run::State::Succeeded.into(),
            create_time: at(100),
            end_time: at(141),
            spent: Some(Money { nano_usd: 17_000_000 }),
            saved: Some(Money { nano_usd: 183_000_000 }),
            ..Default::default()
        };
        assert_eq!(ending(&run), "SUCCEEDED in 41 s; spent $0.017, saved $0.183");
        let failed = Run {
            state: run::State::Failed.into(),
            state_reason: "video failed".into(),
            error: Some(StepError { message: "no font\nat all".into(), ..Default::default() }),
            saved: None,
            ..run
        };
        assert_eq!(ending(&failed), "FAILED in 41 s: video failed: no font at all; spent $0.017, saved -");
    }

    #[test]
    fn content_shows_what_people_look_at_and_others_show_all() {
        let step = |names: &[&str]| Step {
            artifacts: names
                .iter()
                .map(|name| Artifact {
                    name: (*name).into(),
                    uri: format!("file:///a/{name}"),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let run = Run {
            steps: vec![step(&["script.json", "script.md"]), step(&["manifest.json", "video.mp4"])],
            ..Default::default()
        };
        let shown: Vec<_> = files(&run).into_iter().map(|(name, _)| name).collect();
        assert_eq!(shown, ["video", "script", "manifest"]);
        let other = Run { steps: vec![step(&["frames.zip"])], ..Default::default() };
        assert_eq!(files(&other), [("frames.zip".to_owned(), "/a/frames.zip".to_owned())]);
    }
}
