//! Every state of a run and a step, crossed with every command.

use std::collections::BTreeMap;
use std::fmt::Write;

use longtake_engine::run::{Run, RunState, StepState};

use crate::flow::{split, workflow};
use crate::row::read;
use crate::stage::{RUN, Stage};
use crate::{script, show};

/// Plays every cell of the file's tables, and shows the tables as they would have to be written if any differs.
pub fn check(file: &str) {
    let text = read(file);
    let mut columns: BTreeMap<&str, &str> = BTreeMap::new();
    let mut rows: BTreeMap<&str, Stage> = BTreeMap::new();
    let mut headers: Vec<&str> = Vec::new();
    let (mut wrong, mut cells) = (String::new(), 0);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, meaning) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
        match word {
            "" => {}
            "column" => drop(columns.insert(name, meaning.trim())),
            "row" => drop(rows.insert(name, stage(meaning))),
            "table" => {
                headers = rest.split_whitespace().collect();
                let _ = writeln!(wrong, "\ntable {:>18} {}", "", rest.trim());
            }
            row => {
                let stage = rows.get(row).unwrap_or_else(|| panic!("no row {row}"));
                let actual: Vec<String> = headers.iter().map(|header| cell(stage, columns[header])).collect();
                let expected: Vec<&str> = rest.split_whitespace().collect();
                cells += actual.len();
                if actual != expected {
                    let _ = writeln!(wrong, "! {row:<12} {}", actual.join(" "));
                }
            }
        }
    }
    assert!(!wrong.contains('!'), "what happens:\n{wrong}");
    assert!(cells >= rows.len() * columns.len(), "{cells} cells are not every row with every column");
}

fn stage(meaning: &str) -> Stage {
    let (with, from) = meaning.split_once(" from ").unwrap_or((meaning, ""));
    let mut stage = Stage::new(workflow(with.trim()));
    for command in split(from, ';') {
        let told = stage.play(command);
        assert!(!told.refused, "{meaning}: {command}: {}", told.says);
    }
    stage
}

/// What a command does to step `a`: the legend is in the file.
fn cell(stage: &Stage, text: &str) -> String {
    let mut stage = stage.clone();
    let before = stage.run.clone();
    let told = stage.play(text);
    let mut twice = stage.clone();
    twice.calls -= 1;
    let text = text.replace(['+', '@'], "");
    let (_, untimed) = text.split_once(' ').filter(|(time, _)| time.ends_with('s')).unwrap_or(("", &text));
    let again = if untimed.starts_with("lease") { format!("{untimed} again") } else { named(&before, untimed) };
    let command = script::command(&mut twice, &again);
    let repeated = twice.follow(&command);
    assert!(repeated.events.is_empty(), "{untimed} does something again: {:?} in run {RUN}", repeated.events);
    let refusal = match told.answer.as_str() {
        _ if !told.refused => "",
        "LEASE_UNKNOWN" => "unknown",
        "RUN_STOPPED" => "stopped",
        "CONTENT_DIFFERS" => "differs",
        answer if answer.starts_with("SUPERSEDED") => "super",
        "NOT_READY" => "notready",
        "WRONG_STATE" => "wrong",
        "RUN_UNKNOWN" => "norun",
        other => panic!("{untimed}: {other}"),
    };
    let mut cell = refusal.to_owned();
    let (was, is) = (of(before.as_ref()), of(stage.run.as_ref()));
    if was.1 != is.1 {
        cell.push_str(&is.1);
    }
    if was.0 != is.0 {
        let _ = write!(cell, ">{}", is.0);
    }
    match (told.events == "nothing", cell.is_empty()) {
        (true, true) => ".".to_owned(),
        (false, true) => "~".to_owned(),
        (false, false) if !refusal.is_empty() => cell + "+",
        _ => cell,
    }
}

/// The command with the attempt named that was the latest one before it.
fn named(before: &Option<Run>, text: &str) -> String {
    let attempt = before.as_ref().map_or(0, |run| run.steps[0].attempt());
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let verbs = ["beat", "complete", "fail", "yield", "lost", "undelivered", "stalled", "overdue"];
    if verbs.contains(&words[0].as_str()) {
        words[1] = format!("a#{attempt}");
    }
    words.join(" ")
}

/// The run's state and that of its first step, shortened.
fn of(run: Option<&Run>) -> (String, String) {
    let Some(run) = run else { return ("none".to_owned(), "none".to_owned()) };
    let short = |name: &str| name.split(['(', ' ']).next().unwrap_or_default().to_owned();
    let step = match run.steps[0].state {
        StepState::BackingOff(_) => "BACKOFF".to_owned(),
        state => short(&show::step_state(state)),
    };
    let run = match run.state {
        RunState::Stopping(_) => "STOPPING".to_owned(),
        state => short(&show::run_state(state)),
    };
    (run, step)
}
