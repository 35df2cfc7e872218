//! What an attempt has stored, scene by scene: the checkpoint of the audio and video steps.
//!
//! Each entry names the file of a scene and the recipe that it was made by: a hash of everything that went into it. The next
//! attempt takes over an entry only when the recipe is still the one it would use and the stored bytes still have their hash.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Artifact;
use crate::error::MediaError;
use crate::job::Saved;
use crate::store::{ArtifactStore, hex};
use crate::timing::Slot;

/// One scene's stored file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub slot: Slot,
    pub artifact: Artifact,
}

/// All scenes of a step: done or not.
#[derive(Debug)]
pub(crate) struct Ledger {
    recipes: Vec<String>,
    entries: Vec<Option<Entry>>,
}

/// An entry as a checkpoint's data holds it; its file is among the checkpoint's artifacts, by name.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    scene: usize,
    recipe: String,
    file: String,
    #[serde(flatten)]
    slot: Slot,
}

/// A hash of everything that decides what a scene's file contains, short enough for many of them in one checkpoint.
pub(crate) fn recipe(ingredients: &Value) -> String {
    hex(&Sha256::digest(ingredients.to_string())[..12])
}

impl Ledger {
    /// Takes over from a checkpoint what is still good.
    pub(crate) async fn resume(
        store: &ArtifactStore,
        checkpoint: Option<&Saved>,
        recipes: Vec<String>,
    ) -> Result<Self, MediaError> {
        let mut ledger = Self { entries: vec![None; recipes.len()], recipes };
        let Some(saved) = checkpoint else { return Ok(ledger) };
        // A checkpoint of another shape is another version's: what it holds is made again.
        let lines: Vec<Line> = Deserialize::deserialize(&saved.data["scenes"]).unwrap_or_default();
        for line in lines {
            let artifact = saved.artifacts.iter().find(|artifact| artifact.name == line.file);
            let Some(artifact) = artifact else { continue };
            if ledger.recipes.get(line.scene) != Some(&line.recipe) {
                continue;
            }
            match store.verify(artifact).await {
                Ok(()) => ledger.record(line.scene, line.slot, artifact.clone()),
                Err(error @ (MediaError::ArtifactMissing { .. } | MediaError::ArtifactDamaged { .. })) => {
                    tracing::warn!(scene = line.scene, %error, "a stored scene is made again");
                }
                Err(error @ MediaError::ArtifactForeign { .. }) => {
                    tracing::warn!(scene = line.scene, %error, "a scene from other storage is made again");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ledger)
    }

    /// Scenes that are not stored yet, in order.
    pub(crate) fn missing(&self) -> Vec<usize> {
        (0..self.entries.len()).filter(|&scene| self.entries[scene].is_none()).collect()
    }

    pub(crate) fn record(&mut self, scene: usize, slot: Slot, artifact: Artifact) {
        self.entries[scene] = Some(Entry { slot, artifact });
    }

    pub(crate) fn done(&self) -> u64 {
        self.entries.iter().flatten().count() as u64
    }

    pub(crate) fn total(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Every scene's entry, in order; those that are missing are left out.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }

    /// The checkpoint.
    pub(crate) fn saved(&self) -> Saved {
        let line = |(scene, entry): (usize, &Option<Entry>)| {
            let entry = entry.as_ref()?;
            let (recipe, file) = (self.recipes[scene].clone(), entry.artifact.name.clone());
            Some(Line { scene, recipe, file, slot: entry.slot })
        };
        let lines: Vec<Line> = self.entries.iter().enumerate().filter_map(line).collect();
        Saved {
            done: self.done(),
            total: self.total(),
            data: json!({ "scenes": lines }),
            artifacts: self.entries().map(|entry| entry.artifact.clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::Timing;

    fn artifact(scene: usize) -> Artifact {
        Artifact {
            name: format!("segment-{:03}.mp4", scene + 1),
            uri: format!("s3://{}/{:064}.mp4", "u".repeat(230), scene),
            sha256: "0".repeat(64),
            size_bytes: 123_456_789,
            media_type: "video/mp4".to_owned(),
        }
    }

    #[tokio::test]
    async fn the_longest_script_fits_into_one_checkpoint() {
        let store = ArtifactStore::over(std::sync::Arc::new(object_store::memory::InMemory::new()), "s3://b");
        let scenes = crate::Limits::default().scenes;
        let recipes = (0..scenes).map(|scene| recipe(&json!(scene))).collect();
        let mut ledger = Ledger::resume(&store, None, recipes).await.unwrap();
        for scene in 0..scenes {
            ledger.record(scene, Timing::default().slot(99_000), artifact(scene));
        }
        let saved = ledger.saved();
        let bytes = saved.data.to_string().len() + serde_json::to_string(&saved.artifacts).unwrap().len();
        assert!(bytes < 60 * 1024, "{bytes} bytes");
    }

    #[tokio::test]
    async fn only_entries_of_the_same_recipe_and_bytes_are_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path().to_str().unwrap()).unwrap();
        let place = crate::store::Place { run: "r", step: "video" };
        let recipes: Vec<String> = (0..4).map(|scene| recipe(&json!(scene))).collect();
        let mut ledger = Ledger::resume(&store, None, recipes.clone()).await.unwrap();
        for scene in 0..3 {
            let label = crate::artifact::Label::new(format!("s{scene}"), crate::artifact::Kind::Wav);
            let stored = store.put_bytes(place, label, format!("bytes {scene}")).await.unwrap();
            ledger.record(scene, Timing::default().slot(1_000), stored);
        }
        let saved = ledger.saved();
        assert_eq!((saved.done, saved.total, ledger.missing()), (3, 4, vec![3]));

        let stored = json!({"scenes": [
            {"scene": 0, "recipe": recipes[0], "file": "s0", "ms": 1_920, "from": 400, "to": 1_400},
            {"scene": 2, "recipe": recipes[2], "file": "s2", "ms": 1_920, "from": 400, "to": 1_400},
        ]});
        let gap = Saved { data: stored, ..saved.clone() };
        let resumed = Ledger::resume(&store, Some(&gap), recipes.clone()).await.unwrap();
        assert_eq!((resumed.done(), resumed.missing()), (2, vec![1, 3]), "as every version has stored it");

        let mut changed = recipes.clone();
        changed[1] = recipe(&json!("another text"));
        let missing = |ledger: Ledger| ledger.missing();
        assert_eq!(missing(Ledger::resume(&store, Some(&saved), changed).await.unwrap()), [1, 3]);
        assert_eq!(missing(Ledger::resume(&store, Some(&saved), recipes.clone()).await.unwrap()), [3]);
        for data in [json!({}), json!({"scenes": "odd"}), json!({"scenes": [{"scene": 99}]}), Value::Null] {
            let odd = Saved { data, ..saved.clone() };
            let resumed = Ledger::resume(&store, Some(&odd), recipes.clone()).await.unwrap();
            assert_eq!(resumed.missing(), [0, 1, 2, 3]);
        }
    }
}
