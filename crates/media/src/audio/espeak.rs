//! Speech by espeak-ng. The text goes through standard input, where nothing in it is an option.

use std::sync::Arc;

use tempfile::TempDir;

use crate::error::MediaError;
use crate::tool::Call;
use crate::wav::Wav;
use crate::{Media, text};

/// What espeak-ng speaks at; also that of the silence where there is nothing to say.
const RATE: u32 = 22_050;

/// Speaks one scene. Empty when nothing in it can be spoken, for example in a scene of emoji.
pub(super) async fn speak(media: &Media, work: &Arc<TempDir>, narration: &str) -> Result<Wav, MediaError> {
    let silence = Wav { rate: RATE, channels: 1, samples: Vec::new() };
    let narration = text::speakable(narration);
    if !narration.contains(char::is_alphanumeric) {
        return Ok(silence);
    }
    let config = &media.config;
    let speed = config.words_per_minute.to_string();
    let call = Call {
        tool: &media.espeak(),
        doing: "to speak a scene".to_owned(),
        folder: work.path(),
        arguments: ["-v", &config.voice, "-s", &speed, "-b", "1", "--stdin", "-w", "speech.wav"]
            .map(str::to_owned)
            .to_vec(),
        stdin: Some(narration),
    };
    call.output().await?;
    let speech = work.path().join("speech.wav");
    let path = speech.clone();
    let read = super::blocking(work, move || {
        let read = Wav::read(&path);
        std::fs::remove_file(&path)?;
        read
    });
    match read.await {
        // It writes no file for a text in which it finds nothing to say.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(silence),
        read => read.map_err(MediaError::io("reading", &speech)),
    }
}
