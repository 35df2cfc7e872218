//! When each scene begins and ends. Decided once, where scenes are spoken; slides, captions and the manifest follow it.

use serde::{Deserialize, Serialize};

/// How scenes follow each other.
#[derive(Debug, Clone)]
pub(crate) struct Timing {
    /// Silence before the first word, so that a slide is seen before it is read out.
    pub lead_ms: u64,
    /// Silence after the last word, at least.
    pub tail_ms: u64,
    /// The shortest scene, for those with nothing to say.
    pub shortest_ms: u64,
    /// Scenes are whole multiples of this: 8 frames at 25 a second are 15 AAC frames at 48 kHz. Every segment then ends where its
    /// last picture and its last sound end, and joining them leaves neither gap nor overlap.
    pub grain_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lead_ms: 400, tail_ms: 500, shortest_ms: 1_920, grain_ms: 320 }
    }
}

/// One scene in time, in milliseconds from its own start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot {
    #[serde(rename = "ms")]
    pub length_ms: u64,
    #[serde(rename = "from")]
    pub speech_start_ms: u64,
    #[serde(rename = "to")]
    pub speech_end_ms: u64,
}

impl Timing {
    /// The slot of a scene with so much speech.
    pub(crate) fn slot(&self, speech_ms: u64) -> Slot {
        let needed = (self.lead_ms + speech_ms + self.tail_ms).max(self.shortest_ms);
        Slot {
            length_ms: needed.next_multiple_of(self.grain_ms),
            speech_start_ms: self.lead_ms,
            speech_end_ms: self.lead_ms + speech_ms,
        }
    }
}

/// Where each of these scenes starts, in milliseconds from the start of all.
pub(crate) fn starts(slots: &[Slot]) -> Vec<u64> {
    let mut next = 0;
    let start = |slot: &Slot| {
        let start = next;
        next += slot.length_ms;
        start
    };
    slots.iter().map(start).collect()
}

/// Milliseconds as seconds, for people and JSON.
pub(crate) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_whole_multiples_that_hold_the_speech() {
        for speech in [0, 1, 999, 1_020, 1_021, 12_345, 600_000] {
            let slot = Timing::default().slot(speech);
            assert_eq!(slot.length_ms % 320, 0);
            assert!(slot.length_ms >= 1_920 && slot.speech_end_ms + 500 <= slot.length_ms);
            assert!(slot.length_ms < slot.speech_end_ms + 500 + 320 || slot.length_ms == 1_920);
        }
    }

    #[test]
    fn each_scene_starts_where_the_one_before_ends() {
        let slots = [1_000, 5_000, 2_000].map(|speech| Timing::default().slot(speech));
        assert_eq!(starts(&slots), [0, 1_920, 1_920 + 6_080]);
    }
}
