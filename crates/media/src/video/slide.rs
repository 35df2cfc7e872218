//! What a slide looks like: words measured, wrapped and placed. Pure: text and fonts in, a list of things to draw out.

use crate::font::{Font, Fonts};
use crate::script::{Scene, Script};
use crate::text;

pub(super) const WIDTH: u32 = 1_280;
pub(super) const HEIGHT: u32 = 720;

/// Left and right of everything.
const MARGIN: u32 = 104;
/// Where the content begins and ends.
const TOP: u32 = 92;
const BOTTOM: u32 = 628;
const FOOTER_BASELINE: u32 = 676;
const RAIL_HEIGHT: u32 = 6;

/// Colours, as ffmpeg writes them. Contrast on the background: text 14:1, quiet text 6:1, accent 9:1.
pub(super) const BACKGROUND: &str = "0x12202F";
const TITLE: &str = "0xFFFFFF";
const BODY: &str = "0xE3EBF3";
const QUIET: &str = "0x93A9BF";
const ACCENT: &str = "0xF6B84B";
const RAIL: &str = "0x22364A";

/// Sizes that are tried, the largest that fits is taken.
const OPENING_SIZES: [u32; 5] = [76, 68, 60, 52, 44];
const TITLE_SIZES: [u32; 4] = [54, 48, 42, 36];
const BODY_SIZES: [u32; 9] = [46, 42, 39, 36, 33, 30, 27, 24, 21];
/// Scenes share one size, the largest that fits all of them, unless it would be below this.
const BODY_SHARED: u32 = 36;
const FOOTER_SIZE: u32 = 22;
/// What the script's title may take of it.
const FOOTER_WIDTH: f32 = 860.0;

/// Something to draw.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Drawing {
    Box { x: u32, y: u32, width: u32, height: u32, color: &'static str },
    Line { text: String, bold: bool, size: u32, color: &'static str, place: Across, baseline: u32 },
}

/// Where a line starts or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Across {
    From(u32),
    UpTo(u32),
}

/// A slide, and how many letters of it the fonts do not have.
#[derive(Debug)]
pub(super) struct Slide {
    pub drawings: Vec<Drawing>,
    pub letters_missing: usize,
}

/// Text in lines of one size.
struct Block<'a> {
    font: &'a Font,
    bold: bool,
    size: u32,
    color: &'static str,
    lines: Vec<String>,
}

impl<'a> Block<'a> {
    /// The largest of these sizes at which the text takes at most `lines` lines and `height` pixels. When none is small enough,
    /// the last one, cut: what is missing on the slide is still said.
    fn fit(text: &str, font: &'a Font, sizes: &[u32], lines: usize, height: u32) -> Self {
        let width = (WIDTH - 2 * MARGIN) as f32;
        let block =
            |size| Self { font, bold: false, size, color: BODY, lines: font.wrap_tidily(text, size, width) };
        let fits = |block: &Self| block.lines.len() <= lines && block.height() <= height;
        if let Some(block) = sizes.iter().map(|&size| block(size)).find(fits) {
            return block;
        }
        let mut block = block(sizes.last().copied().unwrap_or(FOOTER_SIZE));
        let most = lines.min((height / block.line_height()) as usize).max(1);
        block.lines.truncate(most);
        if let Some(last) = block.lines.last_mut() {
            *last = with_ellipsis(last, font, block.size, width);
        }
        block
    }

    fn title(mut self) -> Self {
        let text = self.lines.join(" ");
        if !text.ends_with('…') {
            self.lines = self.font.wrap_evenly(&text, self.size, (WIDTH - 2 * MARGIN) as f32);
        }
        Self { bold: true, color: TITLE, ..self }
    }

    fn line_height(&self) -> u32 {
        if self.bold { self.size * 122 / 100 } else { self.size * 142 / 100 }
    }

    /// All lines begin on one side, that of the text's first letter.
    fn place(&self) -> Across {
        let right = text::is_right_to_left(&self.lines.join(" "));
        if right { Across::UpTo(WIDTH - MARGIN) } else { Across::From(MARGIN) }
    }

    fn height(&self) -> u32 {
        self.lines.len() as u32 * self.line_height()
    }

    /// Draws it with its first line's capitals beginning at `top`; returns where the block ends.
    fn draw(&self, top: u32, into: &mut Vec<Drawing>) -> u32 {
        // The height of a capital in DejaVu and most others.
        let capital = self.size * 73 / 100;
        for (index, line) in self.lines.iter().enumerate() {
            into.push(Drawing::Line {
                text: line.clone(),
                bold: self.bold,
                size: self.size,
                color: self.color,
                place: self.place(),
                baseline: top + capital + index as u32 * self.line_height(),
            });
        }
        match self.lines.len() {
            0 => top,
            lines => top + capital + (lines as u32 - 1) * self.line_height(),
        }
    }
}

/// A line cut to a width, its ellipsis included.
fn with_ellipsis(line: &str, font: &Font, size: u32, width: f32) -> String {
    let mut line = line.to_owned();
    while font.width(&format!("{line}…"), size) > width && line.pop().is_some() {}
    format!("{}…", line.trim_end())
}

/// Lays out all scenes.
pub(super) fn lay_out(script: &Script, fonts: &Fonts) -> Vec<Slide> {
    let scenes = 0..script.scenes.len();
    let alone = scenes.clone().map(|index| Layout { script, fonts, largest: BODY_SIZES[0] }.scene(index).1);
    let largest = alone.min().unwrap_or(BODY_SIZES[0]).max(BODY_SHARED);
    scenes.map(|index| Layout { script, fonts, largest }.scene(index).0).collect()
}

/// What all slides of a script share.
struct Layout<'a> {
    script: &'a Script,
    fonts: &'a Fonts,
    /// The largest size for a scene's text.
    largest: u32,
}

impl Layout<'_> {
    /// One slide, and the size of its text.
    fn scene(&self, index: usize) -> (Slide, u32) {
        let scene = &self.script.scenes[index];
        let (title, missing_in_title) = self.fonts.bold.drawable(&scene.title);
        let (body, missing_in_body) = self.fonts.regular.drawable(&scene.narration);
        let mut drawings = Vec::new();
        let opening = index == 0 && scene.title == self.script.title;
        let size = if opening {
            self.draw_opening(&title, &body, &mut drawings);
            self.largest
        } else {
            self.draw_scene(scene, &title, &body, &mut drawings)
        };
        self.draw_footer(index, opening, &mut drawings);
        (Slide { drawings, letters_missing: missing_in_title + missing_in_body }, size)
    }

    /// The first slide: a large title and what follows from it, as one block in the middle.
    fn draw_opening(&self, title: &str, body: &str, drawings: &mut Vec<Drawing>) {
        const GAP: u32 = 62;
        const MARK: u32 = 50;
        let title = Block::fit(title, &self.fonts.bold, &OPENING_SIZES, 3, 270).title();
        let room = BOTTOM - TOP - MARK - title.height() - GAP;
        let body = Block::fit(body, &self.fonts.regular, &BODY_SIZES[1..], 7, room);
        let height = MARK + title.height() + GAP + body.height();
        let top = TOP + (BOTTOM - TOP).saturating_sub(height) / 2;
        drawings.push(mark(&title, top, 88, 8));
        let end = title.draw(top + MARK, drawings);
        body.draw(end + GAP, drawings);
    }

    /// Returns the size of the text.
    fn draw_scene(&self, scene: &Scene, title: &str, body: &str, drawings: &mut Vec<Drawing>) -> u32 {
        const MARK: u32 = 40;
        const GAP: u32 = 64;
        let title = Block::fit(title, &self.fonts.bold, &TITLE_SIZES, 2, 150).title();
        drawings.push(mark(&title, TOP, 56, 6));
        let beside_mark = match title.place() {
            Across::From(x) => Across::From(x + 72),
            Across::UpTo(x) => Across::UpTo(x - 72),
        };
        if let Some((part, of)) = scene.part {
            drawings.push(Drawing::Line {
                text: format!("{part} of {of}"),
                bold: false,
                size: FOOTER_SIZE,
                color: ACCENT,
                place: beside_mark,
                baseline: TOP + 11,
            });
        }
        let end = title.draw(TOP + MARK, drawings) + GAP;
        let sizes: Vec<u32> = BODY_SIZES.into_iter().filter(|&size| size <= self.largest).collect();
        let body = Block::fit(body, &self.fonts.regular, &sizes, 12, BOTTOM - end);
        body.draw(end, drawings);
        body.size
    }

    /// Where one is: the script's title, the scene's number, and a rail that fills.
    fn draw_footer(&self, index: usize, opening: bool, drawings: &mut Vec<Drawing>) {
        let (script, fonts) = (self.script, self.fonts);
        let of = script.scenes.len() as u32;
        let filled = WIDTH * (index as u32 + 1) / of.max(1);
        let y = HEIGHT - RAIL_HEIGHT;
        drawings.push(Drawing::Box { x: 0, y, width: WIDTH, height: RAIL_HEIGHT, color: RAIL });
        drawings.push(Drawing::Box { x: 0, y, width: filled, height: RAIL_HEIGHT, color: ACCENT });
        let line = |text, place| Drawing::Line {
            text,
            bold: false,
            size: FOOTER_SIZE,
            color: QUIET,
            place,
            baseline: FOOTER_BASELINE,
        };
        drawings.push(line(format!("{} / {of}", index + 1), Across::UpTo(WIDTH - MARGIN)));
        let (mut name, _) = fonts.regular.drawable(&text::shorten(&script.title, 60));
        if fonts.regular.width(&name, FOOTER_SIZE) > FOOTER_WIDTH {
            name = with_ellipsis(&name, &fonts.regular, FOOTER_SIZE, FOOTER_WIDTH);
        }
        if !opening && !name.is_empty() {
            drawings.push(line(name, Across::From(MARGIN)));
        }
    }
}

/// The mark above a title, on the side where the title begins.
fn mark(title: &Block<'_>, y: u32, width: u32, height: u32) -> Drawing {
    let x = match title.place() {
        Across::From(x) => x,
        Across::UpTo(x) => x - width,
    };
    Drawing::Box { x, y, width, height, color: ACCENT }
}

#[cfg(test)]
#[path = "slide_tests.rs"]
mod tests;
