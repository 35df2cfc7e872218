//! Rows: read from a file, run, compared.

use std::fmt::Write;

use crate::flow::workflow;
use crate::show;
use crate::stage::Stage;

struct Case<'t> {
    line: usize,
    name: &'t str,
    with: &'t str,
    from: &'t str,
    /// The lines after that, as they stand.
    body: Vec<&'t str>,
}

/// Runs every row of a file, and shows all that differ as they would have to be written.
pub fn check(file: &str) {
    let text = read(file);
    let cases = cases(&text);
    assert!(!cases.is_empty(), "{file} has no rows");
    let mut wrong = String::new();
    for case in &cases {
        assert!(!case.body.is_empty(), "{file}:{}: case {} says nothing", case.line, case.name);
        let actual = run(case);
        if actual != case.body {
            let _ = writeln!(wrong, "\n{file}:{}: case {}", case.line, case.name);
            for line in &actual {
                let mark = if case.body.contains(&line.as_str()) { ' ' } else { '!' };
                let _ = writeln!(wrong, "{mark} {line}");
            }
        }
    }
    assert!(wrong.is_empty(), "what happens (! where the row says otherwise):\n{wrong}");
}

pub fn read(file: &str) -> String {
    let path = format!("{}/tests/table/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        if word == "case" {
            let same = cases.iter().find(|case| case.name == rest);
            assert!(same.is_none(), "two rows are named {rest:?}");
            cases.push(Case { line: number + 1, name: rest, with: "a", from: "", body: Vec::new() });
            continue;
        }
        let Some(case) = cases.last_mut().filter(|_| !line.is_empty() && !line.starts_with('#')) else {
            continue;
        };
        match word {
            "with" => case.with = rest,
            "from" => case.from = rest,
            _ => case.body.push(line),
        }
    }
    cases
}

/// Plays a case; the lines that it should have.
fn run(case: &Case<'_>) -> Vec<String> {
    let mut stage = Stage::new(workflow(case.with));
    if !case.from.contains("submit") && case.from != "none" {
        stage.play("submit");
    }
    if case.from != "none" {
        stage.prepare(case.from);
    }
    let mut says = String::new();
    let lines = case.body.iter().map(|line| {
        if let Some(part) = line.strip_prefix("says ") {
            return if says.contains(part) { (*line).to_owned() } else { format!("says {says}") };
        }
        if let Some(reason) = line.strip_prefix("why ") {
            let name = reason.split_once(' ').map_or(reason, |(name, _)| name);
            let step = (name != "run").then(|| stage.step(name));
            return format!("why {name} {}", show::reason(stage.run.as_ref(), step));
        }
        if line.starts_with("rows ") {
            return format!("rows {}", show::rows(&stage.workflow, stage.run.as_ref()));
        }
        if line.starts_with("state ") {
            return format!("state {}", show::state(&stage.workflow, stage.run.as_ref()));
        }
        let (command, expected) = line.split_once("=>").unwrap_or_else(|| panic!("no => in {line:?}"));
        let told = stage.play(command.trim());
        says = told.says;
        let plain = show::is_plain_yes(&told.answer, &told.events);
        let answer = if plain { String::new() } else { format!(" -> {}", told.answer) };
        let actual = format!("{}{answer}", told.events);
        if actual == expected.trim() { (*line).to_owned() } else { format!("{command}=> {actual}") }
    });
    lines.collect()
}
