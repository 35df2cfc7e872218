//! Whatever the bytes are: a workflow or a list of problems, never a panic.

use std::collections::BTreeMap;

use longtake_engine::definition::Workflow;
use proptest::prelude::*;
use serde_json::Value;

const SHIPPED: [&str; 5] = [
    include_str!("../../../workflows/content.toml"),
    include_str!("../../../workflows/drill.toml"),
    include_str!("../../../workflows/episode.toml"),
    include_str!("../../../workflows/noop.toml"),
    include_str!("../../../workflows/render.toml"),
];

/// What CEL is made of, and what comes close to it.
const TOKENS: [&str; 72] = [
    "input",
    "steps",
    ".",
    ".",
    ".x",
    ".a",
    ".output",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "[0]",
    "['a']",
    "1",
    "0",
    "-1",
    "1.5",
    "2u",
    "0x1f",
    "9223372036854775807",
    "1e308",
    "true",
    "false",
    "null",
    "'x'",
    "\"y\"",
    "r'\\'",
    "b'z'",
    "'''",
    "\"\"\"",
    "'",
    "\"",
    "\\",
    "\\q",
    "`",
    "//",
    "\n",
    " ",
    " ",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "&&",
    "||",
    "!",
    "?",
    ":",
    ",",
    " in ",
    "size(",
    "has(",
    "string(",
    "int(",
    ".size()",
    ".contains(",
    ".all(x,",
    "matches",
    "@",
    "é",
    "\u{0}",
    "=",
    "&",
];

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&TOKENS[..]), 0..80).prop_map(|tokens| tokens.concat())
}

/// Expressions that compile more often than not.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "input",
        "input.a",
        "input.b.c",
        "input['d']",
        "steps.a.output",
        "steps.a.output.x",
        "1",
        "-1",
        "0",
        "1.5",
        "2u",
        "'s'",
        "b'b'",
        "true",
        "null",
        "[]",
        "{}",
        "9223372036854775807",
        "-9223372036854775808",
        "1e308",
        "has(input.a)",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(6, 40, 3, |inner| {
        let operators = vec!["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", " in "];
        let functions = vec!["size", "int", "uint", "double", "string", "bool"];
        let methods = vec!["contains", "startsWith", "endsWith"];
        prop_oneof![
            (inner.clone(), prop::sample::select(operators), inner.clone())
                .prop_map(|(a, op, b)| format!("({a}{op}{b})")),
            (prop::sample::select(functions), inner.clone()).prop_map(|(f, a)| format!("{f}({a})")),
            (inner.clone(), prop::sample::select(methods), inner.clone())
                .prop_map(|(a, f, b)| format!("({a}).{f}({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            inner.clone().prop_map(|a| format!("!({a})")),
            inner.prop_map(|a| format!("-({a})")),
        ]
    })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-dx]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-dx]", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn with_when(when: &str) -> String {
    let when = toml::Value::String(when.to_owned());
    format!(
        "format = 1\nname = \"w\"\n[[step]]\nname = \"a\"\n[[step]]\nname = \"b\"\nneeds = [\"a\"]\nwhen = {when}\n"
    )
}

/// Parses; what is refused has reasons with lines that exist, what is accepted is whole.
fn check(source: &[u8]) -> Option<Workflow> {
    match Workflow::parse(source) {
        Ok(workflow) => {
            assert!(!workflow.steps.is_empty());
            for (number, step) in workflow.steps.iter().enumerate() {
                assert_eq!(workflow.step(&step.name).map(|(number, _)| number), Some(number));
                assert!(step.needs.iter().all(|need| workflow.steps[*need].needed_by.contains(&number)));
            }
            Some(workflow)
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            let lines = source.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line)), "{problems:?}");
            assert!(problems.iter().all(|problem| !problem.message.is_empty()));
            None
        }
    }
}

proptest! {
    // PROPTEST_CASES says how many.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(source in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&source);
    }

    #[test]
    fn arbitrary_text(source in "(\\PC|\n|[\\[\\]=\"'.{}#]){0,200}") {
        check(source.as_bytes());
    }

    /// Bytes of a good file replaced, removed, repeated and exchanged.
    #[test]
    fn mutated_definitions(
        file in 0..SHIPPED.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, any::<prop::sample::Index>(), 0..5_u8), 1..6),
    ) {
        let mut source = SHIPPED[file].as_bytes().to_vec();
        for (at, length, from, kind) in edits {
            let at = at.index(source.len());
            let end = (at + length).min(source.len());
            let from = from.index(source.len());
            let piece = source[from..(from + length).min(source.len())].to_vec();
            match kind {
                0 => drop(source.drain(at..end)),
                1 => source[at] = piece.first().copied().unwrap_or(0),
                2 => drop(source.splice(at..at, piece)),
                3 => drop(source.splice(at..end, piece)),
                _ => source[at] ^= 1 << (length % 8),
            }
            source.push(b'\n');
        }
        check(&source);
    }

    /// Values of a good file replaced by others.
    #[test]
    fn odd_values(file in 0..SHIPPED.len(), line in any::<prop::sample::Index>(), value in value()) {
        let lines: Vec<&str> = SHIPPED[file].lines().collect();
        let odd = line.index(lines.len());
        let source: String = lines.iter().enumerate().map(|(number, line)| match line.split_once(" = ") {
            Some((key, _)) if number == odd => format!("{key} = {value}\n"),
            _ => format!("{line}\n"),
        }).collect();
        check(source.as_bytes());
    }

    #[test]
    fn arbitrary_conditions(when in soup(), input in value(), output in value()) {
        if let Some(workflow) = check(with_when(&when).as_bytes()) {
            let when = workflow.steps[1].when.as_ref().unwrap();
            drop(when.evaluate(&input, &BTreeMap::from([("a".to_owned(), output)])));
        }
    }

    #[test]
    fn well_formed_conditions(when in expression(), input in value(), output in value()) {
        if let Some(workflow) = check(with_when(&format!("{when} == true")).as_bytes()) {
            let when = workflow.steps[1].when.as_ref().unwrap();
            if let Err(message) = when.evaluate(&input, &BTreeMap::from([("a".to_owned(), output)])) {
                prop_assert!(!message.ends_with("cannot be evaluated"), "it panicked: {message}");
            }
        }
    }
}
