//! Scenes from the text that came with a request: Markdown or plain text, its sections in their order, its words unchanged.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::{Scene, SourceUse, pack};
use crate::config::Limits;
use crate::text;

/// What became of a text.
pub(super) struct Told {
    pub title: String,
    pub scenes: Vec<Scene>,
    pub used: SourceUse,
}

/// Divides a text into scenes, one short of the limit: a script closes with one of its own. What does not fit, or cannot be said
/// (code, pictures), is counted.
pub(super) fn scenes(source_text: &str, query: &str, limits: &Limits) -> Told {
    let mut outline = Outline::read(source_text);
    if outline.sections.iter().all(Section::is_empty) {
        outline = Outline::plain(source_text);
    }
    let title = outline.title().map_or_else(|| title_from(query, &outline), str::to_owned);
    let title = text::shorten(&title, limits.characters_per_title);
    let mut scenes: Vec<Scene> =
        outline.sections.iter().flat_map(|section| section.scenes(&title, limits)).collect();
    scenes.truncate(limits.scenes.saturating_sub(1));
    let said: usize = scenes.iter().map(|scene| text::word_count(&scene.narration)).sum();
    let all = outline.sections.iter().flat_map(|section| section.scenes(&title, limits));
    let sayable: usize = all.map(|scene| text::word_count(&scene.narration)).sum();
    let used = SourceUse {
        words: sayable + outline.code_words,
        words_used: said,
        complete: said == sayable && outline.code_words == 0,
        left_out: outline.left_out(sayable - said),
    };
    Told { title, scenes, used }
}

fn title_from(query: &str, outline: &Outline) -> String {
    if !query.is_empty() {
        return query.to_owned();
    }
    outline.sections.iter().find_map(|section| section.text.first().cloned()).unwrap_or_default()
}

/// A text's sections, and what in it cannot be said.
#[derive(Default)]
struct Outline {
    sections: Vec<Section>,
    code_words: usize,
    code_blocks: usize,
    pictures: usize,
}

/// A heading and the paragraphs below it.
#[derive(Default)]
struct Section {
    heading: Option<String>,
    top_level: bool,
    text: Vec<String>,
}

impl Section {
    fn is_empty(&self) -> bool {
        self.heading.is_none() && self.text.is_empty()
    }

    fn scenes(&self, document_title: &str, limits: &Limits) -> Vec<Scene> {
        let title = self.heading.as_deref().unwrap_or(document_title);
        let title = text::shorten(title, limits.characters_per_title);
        // A heading with nothing below it is still part of the text.
        let narration = match (&self.heading, self.text.is_empty()) {
            (Some(heading), true) => closed(heading),
            _ => self.text.join(" "),
        };
        titled(&title, pack::parts(&narration, limits))
    }
}

/// Scenes with one title, numbered when there are several.
pub(super) fn titled(title: &str, parts: Vec<String>) -> Vec<Scene> {
    let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let number = |index: usize| (of > 1).then(|| (u32::try_from(index + 1).unwrap_or(u32::MAX), of));
    let scene = |(index, narration)| Scene { title: title.to_owned(), part: number(index), narration };
    parts.into_iter().enumerate().map(scene).collect()
}

impl Outline {
    fn read(source_text: &str) -> Self {
        let options = Options::ENABLE_TABLES
            | Options::ENABLE_STRIKETHROUGH
            | Options::ENABLE_TASKLISTS
            | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS;
        let mut reader = Reader::default();
        for event in Parser::new_ext(source_text, options) {
            reader.take(event);
        }
        reader.end_paragraph();
        reader.outline.sections.retain(|section| !section.is_empty());
        reader.outline
    }

    /// The text as one section, whatever marks are in it.
    fn plain(source_text: &str) -> Self {
        let text = vec![text::clean(source_text)];
        Self { sections: vec![Section { text, ..Section::default() }], ..Self::default() }
    }

    /// The only heading of the first level, when the text begins with it.
    fn title(&self) -> Option<&str> {
        let first = self.sections.first()?;
        first.heading.as_deref().filter(|_| first.top_level)
    }

    fn left_out(&self, words_too_many: usize) -> Vec<String> {
        let mut left_out = Vec::new();
        if words_too_many > 0 {
            left_out
                .push(format!("the last {words_too_many} words: a script has a bounded number of scenes"));
        }
        if self.code_blocks > 0 {
            left_out.push(format!("code blocks: {} ({} words)", self.code_blocks, self.code_words));
        }
        if self.pictures > 0 {
            left_out.push(format!("pictures: {}", self.pictures));
        }
        left_out
    }
}

/// Collects sections from Markdown events.
#[derive(Default)]
struct Reader {
    outline: Outline,
    paragraph: String,
    /// Inside of what is not said: code, picture descriptions, metadata.
    unsaid: usize,
    in_code: bool,
}

impl Reader {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(words) if self.in_code => {
                self.outline.code_words += text::word_count(&words);
            }
            Event::Text(words) | Event::Code(words) if self.unsaid == 0 => self.paragraph.push_str(&words),
            Event::Html(html) | Event::InlineHtml(html) => self.paragraph.push_str(&without_tags(&html)),
            Event::SoftBreak | Event::HardBreak => self.paragraph.push(' '),
            Event::Rule => self.end_paragraph(),
            Event::Text(_)
            | Event::Code(_)
            | Event::InlineMath(_)
            | Event::DisplayMath(_)
            | Event::FootnoteReference(_)
            | Event::TaskListMarker(_) => {}
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Heading { .. } | Tag::Paragraph | Tag::Item | Tag::TableHead | Tag::TableRow => {
                self.end_paragraph();
            }
            // Text that is merely indented is code to Markdown, but not to those who write plain text.
            Tag::CodeBlock(CodeBlockKind::Indented) => self.end_paragraph(),
            Tag::CodeBlock(CodeBlockKind::Fenced(_)) => {
                self.end_paragraph();
                self.outline.code_blocks += 1;
                self.in_code = true;
            }
            Tag::Image { .. } => {
                self.outline.pictures += 1;
                self.unsaid += 1;
            }
            Tag::MetadataBlock(_) => self.unsaid += 1,
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let heading = text::clean(&std::mem::take(&mut self.paragraph));
                let top_level = level == pulldown_cmark::HeadingLevel::H1;
                if !heading.is_empty() {
                    let heading = Some(heading);
                    self.outline.sections.push(Section { heading, top_level, text: Vec::new() });
                }
            }
            TagEnd::TableCell => self.paragraph.push_str(", "),
            TagEnd::Paragraph
            | TagEnd::Item
            | TagEnd::TableHead
            | TagEnd::TableRow
            | TagEnd::BlockQuote(_)
            | TagEnd::HtmlBlock => self.end_paragraph(),
            TagEnd::CodeBlock => {
                self.in_code = false;
                self.end_paragraph();
            }
            TagEnd::Image | TagEnd::MetadataBlock(_) => self.unsaid = self.unsaid.saturating_sub(1),
            _ => {}
        }
    }

    fn end_paragraph(&mut self) {
        let paragraph = text::clean(&std::mem::take(&mut self.paragraph));
        let paragraph = paragraph.trim_end_matches([',', ' ']);
        if paragraph.is_empty() {
            return;
        }
        if self.outline.sections.is_empty() {
            self.outline.sections.push(Section::default());
        }
        if let Some(section) = self.outline.sections.last_mut() {
            section.text.push(closed(paragraph));
        }
    }
}

/// With a full stop where it ends in a letter, as list items do: a voice needs it.
fn closed(paragraph: &str) -> String {
    let open = paragraph.ends_with(|letter: char| letter.is_alphanumeric() || letter == ')');
    if open { format!("{paragraph}.") } else { paragraph.to_owned() }
}

fn without_tags(html: &str) -> String {
    let mut out = String::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        out.push_str(&rest[..start]);
        let end = if rest[start..].starts_with("<!--") { "-->" } else { ">" };
        out.push(' ');
        rest = rest[start..].find(end).map_or("", |at| &rest[start + at + end.len()..]);
    }
    out.push_str(rest);
    out
}
