//! Copies of what a run made, under names that people and players understand.
//!
//! Stored artifacts are named by their content. `run` puts copies into a folder of their own, the captions named after the video, so
//! that players show them. The artifacts stay what the run refers to: nobody can damage them by editing a copy.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use longtake_proto::v1::{Artifact, Run};
use url::Url;

/// Stored name, name of the copy.
const RENAMED: [(&str, &str); 1] = [("captions.vtt", "video.vtt")];
const SLUG_CHARS: usize = 60;

/// The run with the copies in place of its local artifacts of these names; others stay as they are.
///
/// # Errors
/// A copy could not be written.
pub(crate) fn copy_out(mut run: Run, names: &[&str], folder: &Path) -> anyhow::Result<Run> {
    let artifacts = run.steps.iter_mut().flat_map(|step| &mut step.artifacts);
    for artifact in artifacts.filter(|artifact| names.contains(&artifact.name.as_str())) {
        if let Some(path) = local(artifact) {
            artifact.uri = copy(&path, &artifact.name, folder)?.to_string();
        }
    }
    Ok(run)
}

fn local(artifact: &Artifact) -> Option<PathBuf> {
    Url::parse(&artifact.uri).ok().filter(|url| url.scheme() == "file")?.to_file_path().ok()
}

fn copy(stored: &Path, name: &str, folder: &Path) -> anyhow::Result<Url> {
    let renamed = RENAMED.iter().find(|(stored, _)| *stored == name).map_or(name, |(_, copy)| *copy);
    // Names come from executors: only the last part of one names a file here.
    let file = Path::new(renamed).file_name().context("an artifact without a name")?;
    let target = folder.join(file);
    let failed = || format!("cannot copy {} to {}", stored.display(), target.display());
    std::fs::create_dir_all(folder).with_context(failed)?;
    std::fs::copy(stored, &target).with_context(failed)?;
    Url::from_file_path(std::path::absolute(&target)?)
        .map_err(|()| anyhow::anyhow!("no URL for {}", target.display()))
}

/// A folder's name for a question: `how-do-plants-turn-light-into-sugar-f347f3`, unique by the end of the run's id.
pub(crate) fn folder_name(query: &str, run_id: &str) -> String {
    let mut slug = String::new();
    for letter in query.chars().flat_map(char::to_lowercase) {
        match letter.is_alphanumeric() {
            true => slug.push(letter),
            false if slug.ends_with('-') || slug.is_empty() => {}
            false => slug.push('-'),
        }
        if slug.chars().count() >= SLUG_CHARS {
            break;
        }
    }
    let id = run_id.get(run_id.len().saturating_sub(6)..).unwrap_or(run_id);
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { id.to_owned() } else { format!("{slug}-{id}") }
}

#[cfg(test)]
mod tests {
    use longtake_proto::v1::Step;

    use super::*;

    #[test]
    fn folders_are_named_after_the_question() {
        for (query, name) in [
            ("How do plants turn light into sugar?", "how-do-plants-turn-light-into-sugar-f347f3"),
            ("../../etc/passwd", "etc-passwd-f347f3"),
            ("¿?", "f347f3"),
            ("Wie fängt Ökostrom an", "wie-fängt-ökostrom-an-f347f3"),
        ] {
            assert_eq!(folder_name(query, "01a20b9a-83c396f347f3"), name);
        }
        assert!(folder_name(&"word ".repeat(100), "x").chars().count() <= SLUG_CHARS + 2);
    }

    #[test]
    fn copies_stand_in_for_local_artifacts() {
        let folder = tempfile::tempdir().unwrap();
        let stored = folder.path().join("87a6.vtt");
        std::fs::write(&stored, "WEBVTT").unwrap();
        let artifact =
            |name: &str, uri: &str| Artifact { name: name.into(), uri: uri.into(), ..Default::default() };
        let local = Url::from_file_path(&stored).unwrap().to_string();
        let artifacts = vec![
            artifact("captions.vtt", &local),
            artifact("video.mp4", "s3://bucket/87a6.mp4"),
            artifact("script.json", &local),
        ];
        let run = Run { steps: vec![Step { artifacts, ..Default::default() }], ..Default::default() };
        let target = folder.path().join("results/bees");
        let run = copy_out(run, &["captions.vtt", "video.mp4"], &target).unwrap();
        let uris: Vec<_> = run.steps[0].artifacts.iter().map(|artifact| artifact.uri.clone()).collect();
        let copied = target.join("video.vtt");
        assert_eq!(uris[0], Url::from_file_path(&copied).unwrap().to_string());
        assert_eq!(uris[1..], ["s3://bucket/87a6.mp4".to_owned(), local]);
        assert_eq!(std::fs::read_to_string(copied).unwrap(), "WEBVTT");
    }
}
