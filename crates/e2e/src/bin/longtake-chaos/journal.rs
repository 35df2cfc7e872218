//! Journals: what each process of a chaos run did and was told, written by itself before and after the fact.
//!
//! One JSON object a line. A process that is killed loses at most the line that it was writing, and what it wrote before an act is
//! there whatever became of the act.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Something that was done or answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A client is about to ask for a run; `ask` is the request id and also `input.ask`.
    Asked { ask: String, workflow: String, input: serde_json::Value },
    /// It was acknowledged.
    Acked { ask: String, run: String, created: bool },
    /// It was refused: nothing may be stored of it, unless the same ask was also acknowledged or left unanswered.
    Refused { ask: String, code: String },
    /// No answer: none or one run.
    Unknown { ask: String },
    /// The same request id with another input, which must have been refused.
    Reused { ask: String, refused: bool },
    /// An operator call on a run (cancel, pause, resume, retry); `ok`: acknowledged.
    Ordered { run: String, order: String, ok: bool },
    /// An executor process begins an attempt. `previous`: `done` of the checkpoint that it was handed.
    Started { executor: String, run: String, step: String, attempt: i32, previous: Option<i64> },
    /// The server acknowledged a checkpoint.
    Checkpointed { run: String, step: String, attempt: i32, done: i64 },
    /// The attempt's output, before it is reported; `nonce` is also in the output.
    Made { run: String, step: String, attempt: i32, nonce: String },
    /// A raw executor's report and its verdict: `OK`, or the reason's name, such as `LEASE_SUPERSEDED`.
    Reported { run: String, step: String, attempt: i32, nonce: String, verdict: String },
    /// Something was done to a process, a link or a call; begin and end in microseconds since 1970.
    Fault { kind: String, target: String, from: i64, to: i64 },
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal(Mutex<File>);

impl Journal {
    /// A new one in this file, or behind what is there.
    pub fn open(path: &Path) -> Result<Journal> {
        let file = File::options().append(true).create(true).open(path);
        Ok(Journal(Mutex::new(file.with_context(|| path.display().to_string())?)))
    }

    /// Writes a line, whole: what the kernel has taken survives the death of this process.
    pub fn write(&self, line: &Line) {
        let mut text = serde_json::to_string(line).unwrap_or_default();
        text.push('\n');
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = file.write_all(text.as_bytes()) {
            // A run whose journal cannot be written proves nothing.
            eprintln!("the journal cannot be written: {error}");
            std::process::abort();
        }
    }
}

/// All that the journals of a folder say.
pub fn read(folder: &Path) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        for line in whole {
            let line = serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))?;
            lines.push(line);
        }
    }
    Ok(lines)
}
