//! The fonts of slides: where they are, what they can draw, and how wide it gets.

use std::path::{Path, PathBuf};

use ttf_parser::Face;
use unicode_segmentation::UnicodeSegmentation;

use crate::error::MediaError;
use crate::{Media, text};

/// Where distributions keep DejaVu, the first that exists is taken.
const PLACES: [&str; 6] = [
    "/usr/share/fonts/truetype/dejavu",
    "/usr/share/fonts/dejavu-sans-fonts",
    "/usr/share/fonts/dejavu",
    "/usr/share/fonts/TTF",
    "/usr/local/share/fonts",
    "/Library/Fonts",
];
/// Larger files are not fonts that anybody draws slides with.
const MOST_BYTES: u64 = 64 << 20;
/// Drawn in place of a letter that the font does not have.
const MISSING: char = '□';

/// A font that is known to work.
#[derive(Debug)]
pub(crate) struct Font {
    pub path: PathBuf,
    data: Vec<u8>,
}

/// The two fonts of a slide.
#[derive(Debug)]
pub(crate) struct Fonts {
    pub regular: Font,
    pub bold: Font,
}

impl Fonts {
    /// Finds both; without a bold one, titles are regular.
    pub(crate) fn find(media: &Media) -> Result<Self, MediaError> {
        let config = &media.config;
        let regular = match &config.font {
            Some(path) => Font::load(path),
            None => look_for("DejaVuSans.ttf", "DejaVu Sans"),
        };
        let missing = |problem| MediaError::FontMissing { problem, install: crate::INSTALL_FONT };
        let regular = regular.map_err(missing)?;
        let bold = match (&config.font_bold, &config.font) {
            (Some(path), _) => Font::load(path).map_err(missing)?,
            (None, Some(path)) => Font::load(path).map_err(missing)?,
            (None, None) => match look_for("DejaVuSans-Bold.ttf", "DejaVu Sans:bold") {
                Ok(bold) => bold,
                Err(_) => Font::load(&regular.path).map_err(missing)?,
            },
        };
        Ok(Self { regular, bold })
    }
}

fn look_for(file: &str, pattern: &str) -> Result<Font, String> {
    let known = PLACES.iter().map(|place| Path::new(place).join(file)).find(|path| path.is_file());
    if let Some(path) = known {
        return Font::load(&path);
    }
    let matched = std::process::Command::new("fc-match").args(["-f", "%{file}", pattern]).output();
    let matched = matched.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match matched {
        Ok(path) if !path.is_empty() => Font::load(Path::new(&path)),
        _ => Err(format!("{file} is in none of {}, and fc-match knows no other", PLACES.join(", "))),
    }
}

impl Font {
    fn load(path: &Path) -> Result<Self, String> {
        let problem = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let size = std::fs::metadata(path).map_err(|error| problem(&error))?.len();
        if size > MOST_BYTES {
            return Err(problem(&format!("{size} bytes is no font")));
        }
        let data = std::fs::read(path).map_err(|error| problem(&error))?;
        Face::parse(&data, 0).map_err(|error| problem(&error))?;
        Ok(Self { path: path.to_owned(), data })
    }

    /// For measuring and asking. Parsing reads a table of contents, no more.
    fn face(&self) -> Option<Face<'_>> {
        Face::parse(&self.data, 0).ok()
    }

    /// Text with what this font can draw, and how many letters it could not: they are drawn as boxes. Pictures are left out
    /// without a word, as are the marks that join them.
    pub(crate) fn drawable(&self, text: &str) -> (String, usize) {
        let Some(face) = self.face() else { return (text.to_owned(), 0) };
        let has = |letter: char| face.glyph_index(letter).is_some_and(|glyph| glyph.0 != 0);
        let mut missing = 0;
        let mut drawn = String::with_capacity(text.len());
        for letter in text.chars() {
            let joiner = matches!(letter, '\u{200C}' | '\u{200D}');
            if letter == ' ' || (has(letter) && !joiner && !is_selector(letter)) {
                drawn.push(letter);
            } else if !joiner && !text::is_picture(letter) {
                missing += 1;
                drawn.extend(has(MISSING).then_some(MISSING));
            }
        }
        (text::clean(&drawn), missing)
    }

    /// Width in pixels of one line at this size.
    pub(crate) fn width(&self, line: &str, size: u32) -> f32 {
        let Some(face) = self.face() else { return 0.0 };
        line.chars().map(|letter| advance(&face, letter, size)).sum()
    }

    /// Text in lines of at most `width` pixels: broken between words, and within a word only when it is wider than a line.
    pub(crate) fn wrap(&self, text: &str, size: u32, width: f32) -> Vec<String> {
        let Some(face) = self.face() else { return Vec::new() };
        let measure = |piece: &str| piece.chars().map(|letter| advance(&face, letter, size)).sum::<f32>();
        let space = measure(" ");
        let mut lines = Vec::new();
        let (mut line, mut used) = (String::new(), 0.0);
        for word in text.split_whitespace() {
            let (gap, wide) = (if line.is_empty() { 0.0 } else { space }, measure(word));
            if wide <= width && used + gap + wide > width {
                lines.push(std::mem::take(&mut line));
                used = 0.0;
            } else if gap > 0.0 {
                line.push(' ');
                used += gap;
            }
            for letter in word.graphemes(true) {
                let wide = measure(letter);
                if used + wide > width && !line.is_empty() {
                    lines.push(std::mem::take(&mut line).trim_end().to_owned());
                    used = 0.0;
                }
                line.push_str(letter);
                used += wide;
            }
        }
        lines.push(line);
        lines.retain(|line| !line.is_empty());
        lines
    }

    /// As [`Font::wrap`], without a last line that is only a word or two where a slightly narrower text avoids it.
    pub(crate) fn wrap_tidily(&self, text: &str, size: u32, width: f32) -> Vec<String> {
        let lines = self.wrap(text, size, width);
        let short = |lines: &[String]| match lines {
            [_, .., last] => self.width(last, size) < width * 0.25,
            _ => false,
        };
        if !short(&lines) {
            return lines;
        }
        let narrower = (70..100).rev().map(|percent| self.wrap(text, size, width * percent as f32 / 100.0));
        narrower
            .take_while(|tried| tried.len() == lines.len() && !splits_a_word(tried, text))
            .find(|tried| !short(tried))
            .unwrap_or(lines)
    }

    /// As [`Font::wrap`], with lines as even as they can be: for titles.
    pub(crate) fn wrap_evenly(&self, text: &str, size: u32, width: f32) -> Vec<String> {
        let lines = self.wrap(text, size, width);
        let narrower = (1..20).rev().map(|tenth| width * (0.05 * tenth as f32));
        narrower
            .map(|width| self.wrap(text, size, width))
            .take_while(|tried| tried.len() == lines.len() && !splits_a_word(tried, text))
            .last()
            .unwrap_or(lines)
    }
}

/// How far one letter moves the pen.
fn advance(face: &Face<'_>, letter: char, size: u32) -> f32 {
    let glyph = face.glyph_index(letter).unwrap_or_default();
    let advance = f32::from(face.glyph_hor_advance(glyph).unwrap_or_else(|| face.units_per_em()));
    advance * size as f32 / f32::from(face.units_per_em().max(1))
}

fn splits_a_word(lines: &[String], text: &str) -> bool {
    lines.iter().map(|line| line.split_whitespace().count()).sum::<usize>() != text.split_whitespace().count()
}

fn is_selector(letter: char) -> bool {
    matches!(letter, '\u{FE00}'..='\u{FE0F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dejavu() -> Font {
        look_for("DejaVuSans.ttf", "DejaVu Sans").expect("apt-get install fonts-dejavu-core")
    }

    #[test]
    fn lines_are_as_wide_as_they_may_be_and_lose_nothing() {
        let font = dejavu();
        let long = "a".repeat(500);
        for text in [
            "",
            "short",
            "Some words that take more than one line on a narrow slide.",
            &long,
            "שלום עולם זה ארוך מאוד",
        ] {
            let lines = font.wrap(text, 40, 400.0);
            assert!(lines.iter().all(|line| font.width(line, 40) <= 400.0 && !line.trim().is_empty()));
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeeze(&lines.concat()), squeeze(text));
        }
        assert_eq!(font.wrap("", 40, 400.0), Vec::<String>::new());
    }

    #[test]
    fn titles_are_broken_evenly() {
        let font = dejavu();
        let lines = font.wrap_evenly("How plants turn light into the sugar", 54, 900.0);
        assert_eq!(lines.len(), 2);
        let widths: Vec<f32> = lines.iter().map(|line| font.width(line, 54)).collect();
        assert!((widths[0] - widths[1]).abs() < 250.0, "{lines:?}");
    }

    #[test]
    fn a_last_line_of_one_word_is_avoided() {
        let font = dejavu();
        let text = "Before we look for an answer, let us look at the question itself.";
        assert_eq!(font.wrap(text, 36, 1_072.0).last().unwrap(), "itself.");
        assert_ne!(font.wrap_tidily(text, 36, 1_072.0).last().unwrap(), "itself.");
    }

    #[test]
    fn letters_beyond_the_font_are_counted_and_pictures_vanish() {
        let font = dejavu();
        let cases = [
            ("Grün & «ça» 100% x:y", "Grün & «ça» 100% x:y", 0),
            ("go 👩‍🚀 now", "go now", 0),
            ("光合", "□□", 2),
            ("Привет שלום مرحبا", "Привет שלום مرحبا", 0),
            ("🎉🎉", "", 0),
        ];
        for (text, drawn, missing) in cases {
            assert_eq!(font.drawable(text), (drawn.to_owned(), missing), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_no_font_is_named() {
        let error = Font::load(Path::new("/etc/passwd")).unwrap_err();
        assert!(error.starts_with("/etc/passwd: "), "{error}");
    }
}
