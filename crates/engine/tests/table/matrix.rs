//! Every state of a run and a step, crossed with every command.

use std::collections::BTreeMap;
use std::fmt::Write;

use longtake_engine::run::{Run, RunState, StepState};

use crate::flow::workflow;
use crate::row::read;
use crate::show;
use crate::stage::Stage;

/// Plays every cell of the file's tables, and shows the rows as they would have to be written where any differs.
pub fn check(file: &str) {
    let text = read(file);
    let mut columns: BTreeMap<&str, &str> = BTreeMap::new();
    let mut rows: BTreeMap<&str, Stage> = BTreeMap::new();
    let mut headers: Vec<&str> = Vec::new();
    let (mut shown, mut wrong, mut cells) = (String::new(), 0, 0);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, meaning) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
        match word {
            "" => {}
            "column" => drop(columns.insert(name, meaning.trim())),
            "row" => drop(rows.insert(name, stage(meaning.trim()))),
            "table" => {
                headers = rest.split_whitespace().collect();
                let _ = writeln!(shown, "\n{}", aligned("table", &headers));
            }
            name => {
                let stage = rows.get(name).unwrap_or_else(|| panic!("no row {name}"));
                let actual: Vec<String> = headers.iter().map(|header| cell(stage, columns[header])).collect();
                cells += actual.len();
                if !rest.split_whitespace().eq(&actual) {
                    wrong += 1;
                    let actual: Vec<&str> = actual.iter().map(String::as_str).collect();
                    let _ = writeln!(shown, "{}", aligned(name, &actual));
                }
            }
        }
    }
    assert!(wrong == 0, "what happens in rows that say otherwise:\n{shown}");
    assert_eq!(cells, rows.len() * columns.len(), "not every row with every column");
}

fn aligned(name: &str, cells: &[&str]) -> String {
    let cells: String = cells.iter().map(|cell| format!("{cell:<14} ")).collect();
    format!("{name:<15} {}", cells.trim_end())
}

fn stage(meaning: &str) -> Stage {
    let (with, from) = meaning.split_once(" from ").unwrap_or((meaning, ""));
    let mut stage = Stage::new(workflow(with.trim()));
    stage.prepare(from);
    stage
}

/// What a command does to step `a`, and that its repetition does nothing more: the legend is in the file.
fn cell(stage: &Stage, text: &str) -> String {
    let mut stage = stage.clone();
    let was = of(stage.run.as_ref());
    let command = stage.read(text);
    let first = stage.follow(&command);
    let is = of(stage.run.as_ref());
    let second = stage.follow(&command);
    assert!(second.events.is_empty(), "{text}, repeated: {:?}", second.events);
    assert_eq!(first.answer.is_ok(), second.answer.is_ok(), "{text}, repeated");
    if first.answer.is_err() {
        assert_eq!(first.answer, second.answer, "{text}, repeated");
        let answer = show::answer(&first.answer).to_lowercase();
        let reason = answer.split(' ').next().unwrap_or_default();
        assert_eq!(was, is, "{text} was refused");
        return if first.events.is_empty() { reason.to_owned() } else { format!("{reason}+") };
    }
    let mut cell = String::new();
    if was.1 != is.1 {
        cell.push_str(&is.1);
    }
    if was.0 != is.0 {
        let _ = write!(cell, ">{}", is.0);
    }
    match (cell.is_empty(), first.events.is_empty()) {
        (true, true) => ".".to_owned(),
        (true, false) => "~".to_owned(),
        (false, _) => cell,
    }
}

/// The run's state and that of its first step, shortened to what fits a cell.
fn of(run: Option<&Run>) -> (String, String) {
    let Some(run) = run else { return (String::new(), String::new()) };
    let step = run.steps[0].state;
    let step =
        if matches!(step, StepState::BackingOff(_)) { "BACKOFF".to_owned() } else { show::step_state(step) };
    let stopping = matches!(run.state, RunState::Stopping(_));
    let state = if stopping { "STOPPING" } else { run.state.as_str() };
    (state.chars().take(4).collect(), step.chars().take(7).collect())
}
