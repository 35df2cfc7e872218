//! One step in one line: `audio  ████████░░░░ 3/7  speaking scene 4`.

use longtake_proto::v1::step::State;
use prost_types::Timestamp;

use super::view::{StepView, View};
use crate::{format, output};

const BAR_CELLS: i64 = 20;

/// `3/7`, or `3` when nobody knows of how many.
pub(crate) fn units(done: i64, total: i64) -> String {
    if total > 0 { format!("{done}/{total}") } else { done.to_string() }
}

/// The whole line, without an end; names are padded to `name_width`.
pub(crate) fn render(view: &View, step: &StepView, name_width: usize, now: &Timestamp) -> String {
    let name = format!("{:<name_width$}", step.name);
    output::printable(&format!("  {name}  {}", standing(view, step, now)))
}

fn standing(view: &View, step: &StepView, now: &Timestamp) -> String {
    let again = if step.attempt > 1 { format!("  attempt {}", step.attempt) } else { String::new() };
    match step.state {
        State::Unspecified | State::Pending => match view.open_needs(step).as_slice() {
            [] => "…".to_owned(),
            needs => format!("… waits for {}", needs.join(" and ")),
        },
        State::Ready if step.attempt > 0 => format!("… waits for an executor again: {}", step.trouble),
        State::Ready => "… waits for an executor".to_owned(),
        State::Leased | State::Running => format!("{}{again}", working(step, now)),
        State::BackingOff => {
            let until = step.until.as_ref().map(|until| format::relative(until, now)).unwrap_or_default();
            format!("↻ attempt {}: {}; again {until}", step.attempt, step.trouble)
        }
        State::Succeeded => format!("✓ {}{again}", took(step, step.end.as_ref())),
        State::Skipped if step.price.is_some() => {
            format!("– skipped, saves {}", format::money(step.price.as_ref()))
        }
        State::Skipped => "– skipped".to_owned(),
        State::Failed => format!("✗ failed: {}{again}", step.trouble),
        State::TimedOut => format!("✗ timed out: {}{again}", step.trouble),
        State::Cancelled => "✗ cancelled".to_owned(),
    }
}

fn working(step: &StepView, now: &Timestamp) -> String {
    let full = match step.total {
        1.. => step.done.clamp(0, step.total).saturating_mul(BAR_CELLS) / step.total,
        _ => 0,
    };
    let full = usize::try_from(full).unwrap_or(0);
    let empty = usize::try_from(BAR_CELLS).unwrap_or(0).saturating_sub(full);
    let bar = "█".repeat(full) + &"░".repeat(empty);
    let counted = if step.done > 0 || step.total > 0 { units(step.done, step.total) } else { String::new() };
    let parts = [bar, counted, step.doing.clone(), took(step, Some(now))];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
}

fn took(step: &StepView, end: Option<&Timestamp>) -> String {
    match (&step.start, end) {
        (Some(start), Some(end)) => format::span(format::between(start, end)),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use longtake_proto::v1::{Money, Run, run};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn step(state: State) -> StepView {
        StepView {
            name: "video".into(),
            state,
            needs: Vec::new(),
            attempt: 1,
            done: 0,
            committed: 0,
            total: 0,
            doing: String::new(),
            price: Some(Money { nano_usd: 183_000_000 }),
            start: Some(at(100)),
            end: None,
            until: None,
            trouble: String::new(),
        }
    }

    #[test]
    fn every_state_has_its_line() {
        let empty = View::new(&Run { state: run::State::Running.into(), ..Default::default() });
        let working = StepView { done: 3, total: 7, doing: "segment 4".into(), ..step(State::Running) };
        let rows = [
            (StepView { attempt: 0, ..step(State::Ready) }, "… waits for an executor"),
            (step(State::Leased), "░░░░░░░░░░░░░░░░░░░░  12 s"),
            (working.clone(), "████████░░░░░░░░░░░░  3/7  segment 4  12 s"),
            (
                StepView { attempt: 2, ..working.clone() },
                "████████░░░░░░░░░░░░  3/7  segment 4  12 s  attempt 2",
            ),
            (
                StepView { done: 9, total: 7, doing: "\u{1b}[2J".into(), ..working },
                "████████████████████  9/7   [2J  12 s",
            ),
            (
                StepView { until: Some(at(116)), trouble: "rate limit".into(), ..step(State::BackingOff) },
                "↻ attempt 1: rate limit; again in 4.0 s",
            ),
            (StepView { end: Some(at(141)), ..step(State::Succeeded) }, "✓ 41 s"),
            (step(State::Skipped), "– skipped, saves $0.183"),
            (StepView { price: None, ..step(State::Skipped) }, "– skipped"),
            (StepView { trouble: "no font".into(), ..step(State::Failed) }, "✗ failed: no font"),
            (step(State::Cancelled), "✗ cancelled"),
        ];
        for (step, text) in rows {
            assert_eq!(render(&empty, &step, 8, &at(112)), format!("  video     {text}"));
        }
    }

    #[test]
    fn a_pending_step_names_what_it_waits_for() {
        let mut view = View::new(&Run::default());
        view.steps =
            ["script", "audio"].map(|name| StepView { name: name.into(), ..step(State::Running) }).into();
        let needs = vec!["script".to_owned(), "audio".to_owned()];
        let video = StepView { needs, ..step(State::Pending) };
        assert_eq!(render(&view, &video, 5, &at(0)), "  video  … waits for script and audio");
    }
}
