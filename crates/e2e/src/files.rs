//! Artifacts, and what is in them.

use std::path::PathBuf;
use std::time::Duration;

use longtake_proto::v1::Artifact;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

/// The artifact of this name.
///
/// # Panics
/// When there is none.
pub fn artifact<'a>(artifacts: &'a [Artifact], name: &str) -> &'a Artifact {
    let names: Vec<&str> = artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    let found = artifacts.iter().find(|artifact| artifact.name == name);
    found.unwrap_or_else(|| panic!("no artifact is called {name}: there are {names:?}"))
}

/// Where its bytes are.
pub fn path_of(artifact: &Artifact) -> PathBuf {
    let url = url::Url::parse(&artifact.uri).unwrap_or_else(|error| panic!("{}: {error}", artifact.uri));
    url.to_file_path().unwrap_or_else(|()| panic!("{} is no file", artifact.uri))
}

/// Its bytes, which are what its description says.
///
/// # Panics
/// When they are not.
pub fn bytes_of(artifact: &Artifact) -> Vec<u8> {
    let path = path_of(artifact);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, artifact.sha256, "{} has other bytes than its description says", artifact.name);
    assert_eq!(i64::try_from(bytes.len()), Ok(artifact.size_bytes), "{}", artifact.name);
    bytes
}

/// What ffprobe says of a file.
#[derive(Debug)]
pub struct Probe {
    /// How long it plays.
    pub duration: Duration,
    /// Kind and codec of each stream: `video h264`.
    pub streams: Vec<String>,
}

/// Looks into a media file.
///
/// # Panics
/// When ffprobe cannot read it.
pub async fn probe(artifact: &Artifact) -> Probe {
    let path = path_of(artifact);
    let mut command = Command::new("ffprobe");
    command.args([
        "-v",
        "error",
        "-of",
        "json",
        "-show_entries",
        "format=duration:stream=codec_name,codec_type",
    ]);
    let outcome = crate::run(
        {
            command.arg(&path);
            command
        },
        Duration::from_secs(30),
    )
    .await;
    assert_eq!(outcome.code, Some(0), "ffprobe: {}", outcome.err);
    let said: Value = serde_json::from_str(&outcome.out).expect("JSON from ffprobe");
    let duration = said["format"]["duration"].as_str().and_then(|text| text.parse().ok());
    let streams = said["streams"].as_array().into_iter().flatten().map(|stream| {
        let text = |key: &str| stream[key].as_str().unwrap_or_default();
        format!("{} {}", text("codec_type"), text("codec_name"))
    });
    Probe { duration: Duration::from_secs_f64(duration.expect("a duration")), streams: streams.collect() }
}
