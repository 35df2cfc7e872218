//! Folders of workflow definitions.

use std::path::{Path, PathBuf};

/// The folder that ships.
pub fn shipped_definitions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workflows")
}

/// A folder with these definitions, each under the name of its file without `.toml`.
pub fn definitions(folder: PathBuf, files: &[(&str, &str)]) -> PathBuf {
    for (name, text) in files {
        std::fs::write(folder.join(format!("{name}.toml")), text).expect("a definition");
    }
    folder
}

/// A folder with the `content` that ships, but that a video executor which is silent for three seconds has lost its step.
pub fn content_with_short_leases(folder: PathBuf) -> PathBuf {
    let text = std::fs::read_to_string(shipped_definitions().join("content.toml")).expect("content.toml");
    let short = text.replace("heartbeat_timeout = \"30s\"", "heartbeat_timeout = \"3s\"");
    assert_ne!(text, short, "content.toml has another heartbeat_timeout now: change this");
    definitions(folder, &[("content", &short)])
}
