//! Text from outside, made harmless: what is printed, spoken or written into captions has passed through here.

use unicode_segmentation::UnicodeSegmentation;

/// Text as one paragraph: printable characters, single spaces, nothing at the ends. Control characters (also espeak's embedded
/// commands), bidirectional overrides, private-use and invisible characters are gone; whitespace of every kind is a space.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_whitespace() {
            if !out.is_empty() && !out.ends_with(' ') {
                out.push(' ');
            }
        } else if is_printable(letter) {
            out.push(letter);
        }
    }
    out.truncate(out.trim_end().len());
    out
}

fn is_printable(letter: char) -> bool {
    !letter.is_control()
        && !matches!(letter,
            '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{FEFF}' | '\u{FFFD}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{FFF0}'..='\u{FFFB}'
            | '\u{E000}'..='\u{F8FF}'
            | '\u{FDD0}'..='\u{FDEF}'
            | '\u{E0000}'..='\u{10FFFF}')
        && !matches!(u32::from(letter) & 0xFFFF, 0xFFFE | 0xFFFF)
}

/// Whether a character is a picture: an emoji, a part of one, or a dingbat that no voice should read out.
pub(crate) fn is_picture(letter: char) -> bool {
    matches!(letter,
        '\u{20E3}' | '\u{FE00}'..='\u{FE0F}' | '\u{2600}'..='\u{27BF}' | '\u{2B00}'..='\u{2BFF}'
        | '\u{1F000}'..='\u{1FAFF}')
}

/// Text as a voice should get it: cleaned, without pictures, and without the brackets that espeak reads as phonemes.
pub(crate) fn speakable(text: &str) -> String {
    let plain: String = text
        .chars()
        .filter(|&letter| !is_picture(letter))
        .map(|letter| if matches!(letter, '[' | ']' | '<' | '>') { ' ' } else { letter })
        .collect();
    clean(&plain)
}

/// Number of words, as spaces separate them.
pub(crate) fn word_count(text: &str) -> usize {
    text.split_whitespace().count()
}

/// Number of characters, as people count them.
pub(crate) fn character_count(text: &str) -> usize {
    text.graphemes(true).count()
}

/// Text of at most `characters`, cut at a word where that leaves half of it, with `…` when something is missing.
pub(crate) fn shorten(text: &str, characters: usize) -> String {
    if character_count(text) <= characters {
        return text.to_owned();
    }
    let cut: String = text.graphemes(true).take(characters.saturating_sub(1)).collect();
    let at_word = cut.rfind(' ').filter(|&at| at * 2 >= cut.len()).unwrap_or(cut.len());
    format!("{}…", cut[..at_word].trim_end_matches([' ', ',', ';', ':', '.', '–', '-']))
}

/// Whether a text is written from right to left: its first letter decides.
pub(crate) fn is_right_to_left(text: &str) -> bool {
    text.chars().find(|letter| letter.is_alphabetic()).is_some_and(runs_left)
}

/// Whether any letter of a text is written from right to left.
pub(crate) fn has_right_to_left(text: &str) -> bool {
    text.chars().any(runs_left)
}

fn runs_left(letter: char) -> bool {
    matches!(letter, '\u{590}'..='\u{8FF}' | '\u{FB1D}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFC}'
        | '\u{10800}'..='\u{10FFF}' | '\u{1E800}'..='\u{1EFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_keeps_letters_and_drops_what_does_not_print() {
        let cases = [
            ("plain", "plain"),
            ("  two\t\n words \r\n", "two words"),
            ("bell\u{7} nul\u{0} esc\u{1b}[31m", "bell nul esc[31m"),
            ("\u{1}espeak \u{1}5P command", "espeak 5P command"),
            ("over\u{202E}ride\u{2066}", "override"),
            ("soft\u{AD}hyphen zero\u{200B}width\u{FEFF}", "softhyphen zerowidth"),
            ("private\u{E000} \u{FFFE}\u{10FFFF}", "private"),
            ("-f evil 'quotes' \"100%\" a:b \\n", "-f evil 'quotes' \"100%\" a:b \\n"),
            ("שלום עולם 😀", "שלום עולם 😀"),
            ("", ""),
            (" \u{3000}\u{A0} ", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(clean(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_voice_gets_no_pictures_and_no_phoneme_brackets() {
        assert_eq!(speakable("Hi 👩‍🚀! [[h@'loU]] <speak>"), "Hi \u{200D}! h@'loU speak");
        assert_eq!(speakable("☀️🎉"), "");
    }

    #[test]
    fn long_text_is_cut_at_a_word_where_it_can() {
        let cases = [
            ("short", 10, "short"),
            ("exactly ten", 11, "exactly ten"),
            ("the quick brown fox", 12, "the quick…"),
            ("aaaaaaaaaaaaaaaaaaaa", 5, "aaaa…"),
            ("👩‍🚀👩‍🚀👩‍🚀", 2, "👩‍🚀…"),
        ];
        for (text, characters, expected) in cases {
            assert_eq!(shorten(text, characters), expected);
        }
    }

    #[test]
    fn the_first_letter_decides_the_direction() {
        for (text, expected) in [("שלום", true), ("(123) مرحبا", true), ("hello שלום", false), ("12", false)]
        {
            assert_eq!(is_right_to_left(text), expected, "{text}");
        }
    }
}
