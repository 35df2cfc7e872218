//! The lines of a run's steps, redrawn in place.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::step_line;
use super::view::View;
use crate::{format, output};

/// One line per step.
pub(crate) struct Bars {
    all: MultiProgress,
    steps: Vec<ProgressBar>,
    name_width: usize,
}

impl Bars {
    /// Draws on standard error.
    pub(crate) fn new(view: &View) -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg}").expect("a template");
        let bar = || all.add(ProgressBar::new_spinner().with_style(style.clone()));
        let steps = view.steps.iter().map(|_| bar()).collect();
        let name_width = view.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
        let bars = Bars { all, steps, name_width };
        bars.draw(view);
        bars
    }

    /// Shows the run as it is now.
    pub(crate) fn draw(&self, view: &View) {
        let now = format::now();
        for (bar, step) in self.steps.iter().zip(&view.steps) {
            bar.set_message(step_line::render(view, step, self.name_width, &now));
        }
    }

    /// A line above the bars.
    pub(crate) fn note(&self, text: &str) {
        // Where the terminal is gone, nobody can be told that it is.
        let _ = self.all.println(text);
    }

    /// Leaves the picture as it is. After Ctrl-C its echo has moved the cursor to where the next drawing would not expect it.
    pub(crate) fn leave(&self) {
        self.all.set_draw_target(ProgressDrawTarget::hidden());
        output::note("");
    }

    /// Leaves the last picture.
    pub(crate) fn finish(&self) {
        for bar in &self.steps {
            bar.abandon();
        }
    }
}
