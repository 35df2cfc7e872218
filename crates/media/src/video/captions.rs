//! WebVTT captions: what is said, in lines that can be read, at the time when it is said.
//!
//! When a scene's speech begins and ends is known exactly; within it, time is shared by the number of characters.

use crate::script::{Scene, pack};
use crate::text;
use crate::timing::{Slot, starts};

/// Two lines of this many characters are what people can read at once.
const LINE_CHARACTERS: usize = 42;
const CUE_CHARACTERS: usize = 2 * LINE_CHARACTERS - 4;

/// Captions for scenes in their slots.
pub(super) fn captions(scenes: &[Scene], slots: &[Slot]) -> String {
    let mut out = String::from("WEBVTT\n");
    let mut number = 0;
    for ((scene, slot), start) in scenes.iter().zip(slots).zip(starts(slots)) {
        let cues = cues(&scene.narration);
        let total: u64 = cues.iter().map(|cue| weight(cue)).sum();
        let speech = slot.speech_end_ms - slot.speech_start_ms;
        let at = |weight: u64| start + slot.speech_start_ms + speech * weight / total.max(1);
        let mut said = 0;
        for cue in &cues {
            let (from, to) = (at(said), at(said + weight(cue)));
            said += weight(cue);
            // Nothing was said in no time, for example in a scene of emoji.
            if to > from {
                number += 1;
                out.push_str(&format!("\n{number}\n{} --> {}\n{}\n", clock(from), clock(to), lines(cue)));
            }
        }
    }
    out
}

fn weight(cue: &str) -> u64 {
    text::character_count(cue) as u64 + 1
}

/// Sentences in pieces that fit into a cue.
fn cues(narration: &str) -> Vec<String> {
    let limits = crate::Limits {
        words_per_scene: CUE_CHARACTERS,
        characters_per_scene: CUE_CHARACTERS,
        ..crate::Limits::default()
    };
    pack::sentences(narration).into_iter().flat_map(|sentence| pack::parts(sentence, &limits)).collect()
}

/// At most two lines, about the same length, escaped.
fn lines(cue: &str) -> String {
    let escaped = |line: &str| line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let length = text::character_count(cue);
    if length <= LINE_CHARACTERS {
        return escaped(cue);
    }
    let spaces = cue.char_indices().filter(|(_, letter)| *letter == ' ').map(|(at, _)| at);
    // A line that ends where a clause ends may be longer than the other.
    let unevenness = |at: &usize| {
        let before = &cue[..*at];
        let ends_clause = before.ends_with([',', ';', ':', '–', '—']);
        text::character_count(before).abs_diff(length / 2).saturating_sub(if ends_clause { 8 } else { 0 })
    };
    match spaces.min_by_key(unevenness) {
        Some(at) => format!("{}\n{}", escaped(&cue[..at]), escaped(&cue[at + 1..])),
        None => escaped(cue),
    }
}

/// `hh:mm:ss.mmm`.
fn clock(millis: u64) -> String {
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", millis / 1_000 % 60, millis % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::Timing;

    fn scene(narration: &str) -> Scene {
        Scene { title: String::new(), part: None, narration: narration.to_owned() }
    }

    #[test]
    fn cues_follow_the_slots_and_hold_every_word() {
        let scenes = [
            scene(
                "A short one. And then a much longer sentence, with a comma in it, that needs more than one cue to be read.",
            ),
            scene("Tags <b>&amp; --> arrows."),
            scene("😀"),
        ];
        let timing = Timing::default();
        let slots = [timing.slot(8_000), timing.slot(1_500), timing.slot(0)];
        let captions = captions(&scenes, &slots);
        assert_eq!(
            captions,
            "WEBVTT\n\n\
             1\n00:00:00.400 --> 00:00:01.371\nA short one.\n\n\
             2\n00:00:01.371 --> 00:00:05.334\nAnd then a much longer sentence,\nwith a comma in it,\n\n\
             3\n00:00:05.334 --> 00:00:08.400\nthat needs more than one cue to be read.\n\n\
             4\n00:00:09.360 --> 00:00:10.860\nTags &lt;b&gt;&amp;amp; --&gt; arrows.\n"
        );
    }

    #[test]
    fn clocks_have_hours() {
        assert_eq!([clock(0), clock(3_723_004)], ["00:00:00.000", "01:02:03.004"]);
    }

    #[test]
    fn no_cue_has_more_than_two_lines_or_an_empty_one() {
        let long = format!("{} {}", "a".repeat(500), "word ".repeat(60));
        for cue in cues(&text::clean(&long)) {
            let lines = lines(&cue);
            assert!(
                lines.lines().count() <= 2 && lines.lines().all(|line| !line.trim().is_empty()),
                "{lines}"
            );
            assert!(text::character_count(&cue) <= CUE_CHARACTERS);
        }
    }
}
