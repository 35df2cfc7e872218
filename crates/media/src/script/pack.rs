//! Divides text into scenes that fit on a slide: whole sentences where possible, of even length, nothing lost.

use unicode_segmentation::UnicodeSegmentation;

use crate::config::Limits;
use crate::text;

/// Words after which a full stop does not end a sentence.
const ABBREVIATIONS: [&str; 22] = [
    "mr", "mrs", "ms", "dr", "prof", "st", "no", "vs", "etc", "e.g", "i.e", "cf", "fig", "approx", "ca",
    "z.b", "d.h", "bzw", "ca", "jr", "sr", "vol",
];

/// Divides a cleaned paragraph into parts within the limits: as few as possible, and as even as whole sentences allow.
pub(crate) fn parts(paragraph: &str, limits: &Limits) -> Vec<String> {
    let pieces: Vec<String> =
        sentences(paragraph).into_iter().flat_map(|sentence| fitting(sentence, limits)).collect();
    let fewest = fill(&pieces, limits.words_per_scene, limits.characters_per_scene);
    // The same number of parts with a smaller limit is the same length spread evenly.
    let longest = pieces.iter().map(|piece| text::word_count(piece)).max().unwrap_or(0);
    let total: usize = pieces.iter().map(|piece| text::word_count(piece)).sum();
    let even = total.div_ceil(fewest.len().max(1)).max(longest);
    (even..limits.words_per_scene)
        .map(|words| fill(&pieces, words, limits.characters_per_scene))
        .find(|tried| tried.len() == fewest.len())
        .unwrap_or(fewest)
}

fn fill(pieces: &[String], words: usize, characters: usize) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for piece in pieces {
        let joined = parts.last().map(|part| format!("{part} {piece}"));
        match (joined, parts.last_mut()) {
            (Some(joined), Some(part)) if fits(&joined, words, characters) => *part = joined,
            _ => parts.push(piece.clone()),
        }
    }
    parts
}

fn fits(part: &str, words: usize, characters: usize) -> bool {
    text::word_count(part) <= words && text::character_count(part) <= characters
}

/// The sentences of a cleaned paragraph, trimmed.
pub(crate) fn sentences(paragraph: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut start = 0;
    for (at, candidate) in paragraph.split_sentence_bound_indices() {
        let end = at + candidate.len();
        if ends_with_abbreviation(&paragraph[start..end]) && end < paragraph.len() {
            continue;
        }
        sentences.push(paragraph[start..end].trim());
        start = end;
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

fn ends_with_abbreviation(text: &str) -> bool {
    let Some(word) = text.trim_end().strip_suffix('.').and_then(|text| text.split_whitespace().last()) else {
        return false;
    };
    let word = word.trim_start_matches(['(', '"', '\'', '“']).to_lowercase();
    ABBREVIATIONS.contains(&word.as_str())
}

/// A sentence in pieces that fit: cut behind a comma or the like where one is near enough, else between words, else anywhere.
fn fitting(sentence: &str, limits: &Limits) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest: Vec<String> =
        sentence.split_whitespace().flat_map(|word| chunks(word, limits.characters_per_scene)).collect();
    while !rest.is_empty() {
        let most = longest_prefix(&rest, limits);
        let cut = if most == rest.len() { most } else { natural_cut(&rest[..most]) };
        pieces.push(rest.drain(..cut).collect::<Vec<_>>().join(" "));
    }
    pieces
}

fn longest_prefix(words: &[String], limits: &Limits) -> usize {
    let mut characters = 0;
    let fitting = words.iter().take(limits.words_per_scene).take_while(|word| {
        characters += text::character_count(word) + usize::from(characters > 0);
        characters <= limits.characters_per_scene
    });
    fitting.count().max(1)
}

/// Behind the last word of the second half that a clause ends with, else at the end.
fn natural_cut(words: &[String]) -> usize {
    let half = words.len() / 2;
    let ends_clause = |word: &String| word.ends_with([',', ';', ':', '–', '—', ')', '，', '、', '；']);
    words.iter().rposition(ends_clause).map(|at| at + 1).filter(|&cut| cut > half).unwrap_or(words.len())
}

fn chunks(word: &str, characters: usize) -> Vec<String> {
    let letters: Vec<&str> = word.graphemes(true).collect();
    letters.chunks(characters.max(1)).map(<[&str]>::concat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(words: usize, characters: usize) -> Limits {
        Limits { words_per_scene: words, characters_per_scene: characters, ..Limits::default() }
    }

    #[test]
    fn sentences_end_where_people_end_them() {
        let cases: [(&str, &[&str]); 6] = [
            ("One. Two! Three? Four", &["One.", "Two!", "Three?", "Four"]),
            (
                "Dr. Ada has 3.5 apples, e.g. red ones. Nice.",
                &["Dr. Ada has 3.5 apples, e.g. red ones.", "Nice."],
            ),
            ("He said: \"Stop.\" Then he left.", &["He said: \"Stop.\" Then he left."]),
            ("光合作用。植物需要光。", &["光合作用。", "植物需要光。"]),
            ("Ends with etc.", &["Ends with etc."]),
            ("", &[]),
        ];
        for (paragraph, expected) in cases {
            let found = sentences(paragraph);
            if paragraph.starts_with("He said") {
                assert_eq!(found.join(" "), expected.join(" "));
            } else {
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn parts_are_even_and_within_the_limits() {
        let paragraph = "One two three four. Five six seven. Eight nine. Ten eleven twelve.";
        assert_eq!(
            parts(paragraph, &limits(10, 200)),
            ["One two three four. Five six seven.", "Eight nine. Ten eleven twelve."]
        );
        assert_eq!(parts(paragraph, &limits(50, 500)), [paragraph]);
        assert!(parts("", &limits(10, 100)).is_empty());
    }

    #[test]
    fn a_sentence_that_is_too_long_is_cut_at_a_comma() {
        let sentence = "When the sun is up in the morning, plants begin to work and they go on until night.";
        assert_eq!(
            parts(sentence, &limits(12, 200)),
            ["When the sun is up in the morning,", "plants begin to work and they go on until night."]
        );
    }

    #[test]
    fn nothing_is_lost_whatever_the_text() {
        let long_word = "a".repeat(500);
        let hostile = format!("-f evil {long_word} 100% 'x':\\n. 😀😀 שלום עולם. {}", "word ".repeat(200));
        for text in [hostile.as_str(), &long_word, "光".repeat(700).as_str(), "x", "?!?!... — —"] {
            let limits = limits(45, 330);
            let parts = parts(&text::clean(text), &limits);
            for part in &parts {
                assert!(text::word_count(part) <= 45 && text::character_count(part) <= 330, "{part}");
            }
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeeze(&parts.concat()), squeeze(text));
        }
    }
}
