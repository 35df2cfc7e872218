//! What files are called and what they are, before they are stored.

use serde::{Deserialize, Serialize};

/// What can be asked for and made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// Something to read.
    Text,
    /// Something to hear.
    Audio,
    /// Still pictures.
    Images,
    /// Moving pictures.
    Video,
}

impl Modality {
    /// All of them, from the plainest to the richest.
    pub const ALL: [Self; 4] = [Self::Text, Self::Audio, Self::Images, Self::Video];

    /// Its name, as in a run's input.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Audio => "audio",
            Self::Images => "images",
            Self::Video => "video",
        }
    }
}

/// What a file is called and what it is, before it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    pub name: String,
    pub kind: Kind,
}

impl Label {
    pub(crate) fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { name: name.into(), kind }
    }
}

/// The kinds of file that the content steps store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Json,
    Markdown,
    Wav,
    M4a,
    Mp4,
    Png,
    Vtt,
}

impl Kind {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Markdown => "text/markdown",
            Self::Wav => "audio/wav",
            Self::M4a => "audio/mp4",
            Self::Mp4 => "video/mp4",
            Self::Png => "image/png",
            Self::Vtt => "text/vtt",
        }
    }

    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Markdown => "md",
            Self::Wav => "wav",
            Self::M4a => "m4a",
            Self::Mp4 => "mp4",
            Self::Png => "png",
            Self::Vtt => "vtt",
        }
    }
}
