use super::*;
use crate::config::MediaConfig;
use crate::{Media, script::Script};

fn fonts() -> Fonts {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = folder.path().display().to_string();
    let media = Media::open(MediaConfig { artifacts, ..MediaConfig::default() }).unwrap();
    Fonts::find(&media).expect("apt-get install fonts-dejavu-core")
}

fn script(title: &str, scenes: Vec<Scene>) -> Script {
    Script {
        format: 1,
        title: title.to_owned(),
        query: String::new(),
        grade_level: None,
        interest: None,
        provider: "template".to_owned(),
        model: None,
        note: String::new(),
        source: None,
        scenes,
    }
}

fn scene(title: &str, narration: &str) -> Scene {
    Scene { title: title.to_owned(), part: Some((2, 3)), narration: narration.to_owned() }
}

/// Everything lies within the slide, nothing overlaps, and no line is empty.
fn assert_sound(slide: &Slide, fonts: &Fonts) {
    let mut baselines = Vec::new();
    for drawing in &slide.drawings {
        match drawing {
            Drawing::Box { x, y, width, height, .. } => {
                assert!(x + width <= WIDTH && y + height <= HEIGHT, "{drawing:?}");
            }
            Drawing::Line { text, bold, size, place, baseline, .. } => {
                let font = if *bold { &fonts.bold } else { &fonts.regular };
                let width = font.width(text, *size).ceil() as u32;
                match place {
                    Across::From(x) => assert!(x + width <= WIDTH - MARGIN + 1, "{drawing:?}"),
                    Across::UpTo(x) => assert!(width <= x - MARGIN + 1, "{drawing:?}"),
                }
                assert!((TOP..=FOOTER_BASELINE).contains(baseline) && !text.trim().is_empty(), "{drawing:?}");
                if *size != FOOTER_SIZE {
                    baselines.push((*baseline, *size));
                }
            }
        }
    }
    for pair in baselines.windows(2) {
        assert!(pair[0].0 + pair[1].1 * 9 / 10 <= pair[1].0, "lines overlap: {baselines:?}");
    }
}

#[test]
fn slides_hold_whatever_the_text() {
    let fonts = fonts();
    let long_word = "a".repeat(500);
    let many_words = "words ".repeat(45);
    let wide = "W".repeat(330);
    let texts = [
        "A short one.",
        &many_words,
        &long_word,
        &wide,
        "quotes ' \" percent %{eif} colon : backslash \\n -f evil",
        "😀 🎉",
        "שלום עולם, זה משפט ארוך יותר שצריך להיכנס לשורה אחת או שתיים בשקופית",
        "光合作用是什么",
        "",
    ];
    for title in texts {
        for narration in texts {
            let title = text::shorten(title, 90);
            let script = script(
                &title,
                vec![scene(&title, narration), scene(&title, narration), scene("B", narration)],
            );
            for slide in lay_out(&script, &fonts) {
                assert_sound(&slide, &fonts);
            }
        }
    }
}

#[test]
fn text_that_does_not_fit_ends_in_an_ellipsis() {
    let fonts = fonts();
    let block = Block::fit(&"W".repeat(2_000), &fonts.regular, &[42, 21], 12, 300);
    assert!(block.height() <= 300 && block.lines.last().unwrap().ends_with('…'));
    assert!(fonts.regular.width(block.lines.last().unwrap(), block.size) <= (WIDTH - 2 * MARGIN) as f32);
}

#[test]
fn hebrew_ends_at_the_right_margin() {
    let fonts = fonts();
    let script = script("x", vec![scene("שלום", "שלום עולם")]);
    let slide = lay_out(&script, &fonts).remove(0);
    let right = |drawing: &&Drawing| matches!(drawing, Drawing::Line { place: Across::UpTo(_), text, .. } if text::has_right_to_left(text));
    assert_eq!(slide.drawings.iter().filter(right).count(), 2);
}

#[test]
fn scenes_share_one_size_of_text() {
    let fonts = fonts();
    let script = script("x", vec![scene("A", "Short."), scene("B", &"words of middling length ".repeat(13))]);
    let sizes = |slide: &Slide| -> Vec<u32> {
        let body = slide.drawings.iter().filter_map(|drawing| match drawing {
            Drawing::Line { size, color: BODY, .. } => Some(*size),
            _ => None,
        });
        body.collect()
    };
    let slides = lay_out(&script, &fonts);
    assert_eq!(sizes(&slides[0])[0], sizes(&slides[1])[0]);
    assert!((BODY_SHARED..BODY_SIZES[0]).contains(&sizes(&slides[0])[0]));
}
