//! What a request can ask for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A kind of content. Ordered from the plainest to the richest, so that `max` finds the richest of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// All of them, the plainest first.
    pub const ALL: [Modality; 4] = [Modality::Text, Modality::Audio, Modality::Images, Modality::Video];

    /// As definitions and stored inputs write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Modality::Text => "text",
            Modality::Audio => "audio",
            Modality::Images => "images",
            Modality::Video => "video",
        }
    }

    /// The richest of several; `None` of none.
    pub fn richest(modalities: impl IntoIterator<Item = Modality>) -> Option<Modality> {
        modalities.into_iter().max()
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Modality {
    type Err = ModalityUnknown;

    fn from_str(text: &str) -> Result<Modality, ModalityUnknown> {
        Modality::ALL
            .into_iter()
            .find(|modality| modality.as_str() == text)
            .ok_or_else(|| ModalityUnknown(super::problem::quote(text)))
    }
}

/// A word that names no modality.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no modality: write one of \"text\", \"audio\", \"images\", \"video\"")]
pub struct ModalityUnknown(String);
