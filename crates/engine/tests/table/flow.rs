//! Workflows in shorthand: `a(price 0.1) b(needs a; when input.go; failures 2; pause)`, or the name of a shipped one.

use std::sync::Arc;

use longtake_engine::definition::Workflow;

pub fn workflow(text: &str) -> Arc<Workflow> {
    let source = if text.ends_with(".toml") {
        let path = format!("{}/../../workflows/{text}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    } else {
        let steps: Vec<String> = split(text, ' ').into_iter().map(step).collect();
        format!("format = 1\nname = \"w\"\n{}", steps.concat())
    };
    Arc::new(
        Workflow::parse(source.as_bytes())
            .unwrap_or_else(|problems| panic!("{text}: {problems:#?}\n{source}")),
    )
}

fn step(text: &str) -> String {
    let (name, attributes) = text.split_once('(').unwrap_or((text, ")"));
    let attributes = attributes.strip_suffix(')').unwrap_or_else(|| panic!("unbalanced: {text}"));
    let lines: Vec<String> = split(attributes, ';').into_iter().map(attribute).collect();
    format!("[[step]]\nname = \"{name}\"\n{}", lines.concat())
}

fn attribute(text: &str) -> String {
    let (key, value) = text.split_once(' ').unwrap_or((text, ""));
    match key {
        "needs" => format!("needs = {:?}\n", value.split(',').collect::<Vec<_>>()),
        "when" => format!("when = '{value}'\n"),
        "price" => format!("price_usd = \"{value}\"\n"),
        "pause" => "on_exhausted = \"pause\"\n".to_owned(),
        "failures" | "losses" | "yields" => format!("budgets.{key} = {value}\n"),
        "max_attempts" => format!("max_attempts = {value}\n"),
        "retry" => {
            let mut words = value.split(' ');
            let keys = ["initial_delay", "max_delay"].into_iter().zip(words.by_ref());
            let delays: String = keys.map(|(key, delay)| format!("retry.{key} = \"{delay}\"\n")).collect();
            delays + &words.map(|factor| format!("retry.multiplier = {factor}\n")).collect::<String>()
        }
        "produces" | "attempt_timeout" | "step_timeout" | "progress_timeout" | "heartbeat_timeout" => {
            format!("{key} = \"{value}\"\n")
        }
        _ => panic!("no attribute of a step: {text}"),
    }
}

/// Splits at `separator`, but not within brackets; without empty parts.
pub fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, found) in text.char_indices() {
        match found {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ if found == separator && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + found.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}
