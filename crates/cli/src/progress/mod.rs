//! A run as a person watches it: its state folded from what the server streams, and drawn as one bar per step on a terminal, or
//! told line by line in a pipe.

mod bars;
mod history;
mod step_line;
mod view;

use longtake_proto::v1::watch_run_response::Update;
use longtake_proto::v1::{Event, Run, RunProgress, WatchRunResponse, event::Kind};

pub(crate) use history::{sentence, subject};
pub(crate) use view::{View, is_terminal_state, run_state, step_state};

use crate::follow::Seen;
use crate::{format, output};
use bars::Bars;

/// How a watched run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// One bar per step, redrawn in place, on standard error.
    Bars,
    /// One line per event, on standard error or (for `watch`) standard output.
    Lines {
        /// To standard output: they are what was asked for.
        to_output: bool,
        /// Also what only operators care about.
        all: bool,
    },
    /// One JSON object per update, on standard output.
    Json,
    /// Not at all.
    Quiet,
}

impl Style {
    /// For a command whose result is something else: progress is told beside it.
    pub(crate) fn beside(json: bool) -> Style {
        match (json, output::notes_to_terminal()) {
            (true, _) => Style::Quiet,
            (false, true) => Style::Bars,
            (false, false) => Style::Lines { to_output: false, all: false },
        }
    }
}

/// Shows one run while it is followed.
pub(crate) struct Screen {
    view: View,
    style: Style,
    bars: Option<Bars>,
    /// What the last line about each step's progress said.
    told: Vec<(String, i64)>,
}

impl Screen {
    /// Begins with the run as it is.
    pub(crate) fn new(style: Style, run: &Run) -> Screen {
        let view = View::new(run);
        let bars = (style == Style::Bars).then(|| Bars::new(&view));
        Screen { view, style, bars, told: Vec::new() }
    }

    /// Takes in what came, and shows it.
    pub(crate) fn see(&mut self, seen: &Seen) -> std::io::Result<()> {
        match seen {
            Seen::Update(response) => self.update(response)?,
            Seen::Lost(why) => self.note(&format!("lost the server ({why}): looking for it")),
            Seen::Back => self.note("the server is back: carrying on"),
        }
        self.redraw();
        Ok(())
    }

    fn update(&mut self, response: &WatchRunResponse) -> std::io::Result<()> {
        match &response.update {
            Some(Update::Event(event)) => {
                self.view.apply(event);
                self.tell_event(event)?;
            }
            Some(Update::Progress(progress)) => {
                self.view.progress(progress);
                self.tell_progress(progress)?;
            }
            None => {}
        }
        if self.style == Style::Json { output::json_line(response) } else { Ok(()) }
    }

    fn tell_event(&mut self, event: &Event) -> std::io::Result<()> {
        let Style::Lines { all, .. } = self.style else { return Ok(()) };
        let Some(kind) = &event.kind else { return Ok(()) };
        let for_operators = matches!(
            kind,
            Kind::RunCreated(_) | Kind::StepReady(_) | Kind::StepLeased(_) | Kind::CostBooked(_)
        );
        if for_operators && !all {
            return Ok(());
        }
        let when = event.time.as_ref().map(format::clock).unwrap_or_default();
        self.line(&format!("{when}  {:<10}  {}", subject(kind), sentence(kind)))
    }

    /// Progress goes by often: only what is new in whole units is a line of its own.
    fn tell_progress(&mut self, progress: &RunProgress) -> std::io::Result<()> {
        if !matches!(self.style, Style::Lines { .. }) {
            return Ok(());
        }
        let running = self.view.steps.iter().filter(|step| progress.steps.contains_key(&step.name));
        let new: Vec<_> = running
            .filter(|step| step.done > step.committed && !self.told.contains(&(step.name.clone(), step.done)))
            .cloned()
            .collect();
        for step in new {
            let text = step_line::units(step.done, step.total);
            let message = output::printable(&step.doing);
            let when = format::clock(&format::now());
            self.line(format!("{when}  {:<10}  {text}  {message}", step.name).trim_end())?;
            self.told.retain(|(told, _)| *told != step.name);
            self.told.push((step.name, step.done));
        }
        Ok(())
    }

    fn line(&self, text: &str) -> std::io::Result<()> {
        match self.style {
            Style::Lines { to_output: true, .. } => output::line(text),
            Style::Lines { to_output: false, .. } | Style::Bars | Style::Json | Style::Quiet => {
                output::note(text);
                Ok(())
            }
        }
    }

    /// Says something that is not about the run itself.
    pub(crate) fn note(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.note(text),
            None => output::note(text),
        }
    }

    /// Times go on while nothing happens.
    pub(crate) fn redraw(&self) {
        if let Some(bars) = &self.bars {
            bars.draw(&self.view);
        }
    }

    /// Leaves the last picture on the terminal.
    pub(crate) fn finish(self) {
        self.redraw();
        if let Some(bars) = self.bars {
            bars.finish();
        }
    }

    /// Leaves the terminal as it is, in the middle of the run.
    pub(crate) fn leave(self) {
        if let Some(bars) = self.bars {
            bars.leave();
        }
    }
}
