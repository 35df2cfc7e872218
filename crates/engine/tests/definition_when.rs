//! The conditions of steps: what they may read, what they answer, and what they cost at most.

use std::collections::BTreeMap;

use longtake_engine::definition::{When, Workflow, limits};
use serde_json::{Value, json};

/// Steps `a`, `b` (needs a), `c-d` (needs b), `e` (needs nothing), and `last` (needs c-d) with this `when`, in line 18.
fn workflow(when: &str) -> Result<When, Vec<String>> {
    let when = toml::Value::String(when.to_owned());
    let source = format!(
        "format = 1\nname = \"w\"\n[[step]]\nname = \"a\"\n[[step]]\nname = \"b\"\nneeds = [\"a\"]\n[[step]]\nname = \"c-d\"\n\
         needs = [\"b\"]\n[[step]]\nname = \"e\"\n\n\n[[step]]\nname = \"last\"\nneeds = [\"c-d\"]\nwhen = {when}\n"
    );
    match Workflow::parse(source.as_bytes()) {
        Ok(mut workflow) => Ok(workflow.steps.remove(4).when.expect("the last step has one")),
        Err(problems) => Err(problems
            .into_iter()
            .map(|problem| {
                assert_eq!((problem.line, problem.key.as_str()), (18, "step.last.when"), "{problem}");
                problem.message
            })
            .collect()),
    }
}

#[track_caller]
fn compile(text: &str) -> When {
    workflow(text).unwrap_or_else(|problems| panic!("{text}: {problems:#?}"))
}

/// Refused, with one problem for each of `expected`, which it contains.
#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let problems = workflow(text).map_or_else(|problems| problems, |_| Vec::new());
    let fits = problems.len() == expected.len()
        && expected.iter().all(|part| problems.iter().any(|problem| problem.contains(part)));
    assert!(fits, "{text}: expected {expected:#?}, found {problems:#?}");
}

fn outputs() -> BTreeMap<String, Value> {
    BTreeMap::from([
        (
            "a".to_owned(),
            json!({ "words": 120, "rate": 1.5, "language": "en", "tags": ["x", "y"], "deep": { "er": true } }),
        ),
        ("b".to_owned(), Value::Null),
        ("c-d".to_owned(), json!({ "ok": true })),
    ])
}

fn input() -> Value {
    json!({ "requested_modalities": ["text", "video"], "grade_level": 6, "student_query": "Why?", "big": u64::MAX, "nothing": null })
}

/// `Ok` with the answer, or `Err` with a part of the message.
#[track_caller]
fn check(text: &str, expected: Result<bool, &str>) {
    let answer = compile(text).evaluate(&input(), &outputs());
    match (&answer, expected) {
        (Ok(answer), Ok(expected)) if *answer == expected => {}
        (Err(message), Err(part)) if message.contains(part) => {}
        _ => panic!("{text}: expected {expected:?}, found {answer:?}"),
    }
}

#[test]
fn answers() {
    for (text, expected) in [
        ("true", Ok(true)),
        ("\"video\" in input.requested_modalities", Ok(true)),
        ("'images' in input.requested_modalities", Ok(false)),
        ("!(\"video\" in input.requested_modalities)", Ok(false)),
        ("input.grade_level >= 6 && input.grade_level < 7.5 && input.grade_level == 6.0", Ok(true)),
        ("input.grade_level + 1 == 7", Ok(true)),
        ("input.big > 9223372036854775807", Ok(true)),
        ("input.nothing == null", Ok(true)),
        ("has(input.interest)", Ok(false)),
        ("has(input.interest) && input.interest == 'x'", Ok(false)),
        ("has(input.grade_level) ? input.grade_level > 5 : false", Ok(true)),
        ("size(input.requested_modalities) == 2 && input.student_query.size() == 4", Ok(true)),
        ("input[\"grade_level\"] == 6", Ok(true)),
        ("input.requested_modalities[0] == 'text'", Ok(true)),
        ("input.student_query.startsWith('Wh') && input.student_query.endsWith('?')", Ok(true)),
        ("input.student_query.contains('hy') && string(input.grade_level) == \"6\"", Ok(true)),
        ("int('12') == 12 && double('0.5') == 0.5 && uint(3) == 3u && bool('true')", Ok(true)),
        ("steps.a.output.words > 100 && steps.a.output.rate * 2.0 == 3.0", Ok(true)),
        ("steps.a.output.deep.er", Ok(true)),
        ("'y' in steps.a.output.tags", Ok(true)),
        ("steps.b.output == null", Ok(true)),
        ("steps[\"c-d\"].output.ok", Ok(true)),
        ("steps['c-d']['output']['ok'] // a comment", Ok(true)),
        ("steps.a.output == {'x': 1}", Ok(false)),
        ("input.grade_level in [1, 2, 3, 4, 5, 6]", Ok(true)),
        ("input.student_query in {'Why?': 1}", Ok(true)),
        ("r'\\d' == '\\\\d' && '''a'b''' == \"a'b\" && b'a' == b\"a\"", Ok(true)),
        ("false && input.missing == 1", Ok(false)),
        ("input.missing == 1", Err("No such key: missing")),
        ("steps.b.output.words > 1", Err("failed")),
        ("input.requested_modalities", Err("gave a list, neither true nor false")),
        ("input.grade_level", Err("gave a number")),
        ("input", Err("gave a map")),
        ("input.nothing", Err("gave null")),
        ("input.student_query", Err("gave a text")),
        ("input.grade_level + 'x' == 'x'", Err("failed")),
        ("input.grade_level / 0 == 1", Err("failed")),
        ("9223372036854775807 + input.grade_level > 0", Err("failed")),
        ("input.requested_modalities[7] == 'x'", Err("failed")),
        ("input.student_query && true", Err("failed")),
        ("!input.student_query", Err("failed")),
        ("int('x') == 1", Err("failed")),
    ] {
        check(text, expected);
    }
}

#[test]
fn reads() {
    for (text, steps) in [
        ("true", &[][..]),
        ("input.x == 1", &[]),
        ("steps.a.output.x && has(steps.b.output.y)", &[0, 1]),
        ("steps['c-d'].output == input && steps.a.output == null && steps.a.output.x", &[0, 2]),
        ("[1, 2][steps.b.output.index] == 1 || {'k': steps.a.output}['k'] == 1", &[0, 1]),
    ] {
        let when = compile(text);
        assert_eq!((when.reads(), when.reads_only_input()), (steps, steps.is_empty()), "{text}");
        assert_eq!(when.text(), text);
    }
}

#[test]
fn an_output_that_is_not_there_is_an_error() {
    let when = compile("true || steps.a.output.x");
    assert!(
        when.evaluate(&input(), &BTreeMap::new())
            .unwrap_err()
            .contains("output of \"a\", which is not there")
    );
}

#[test]
fn refusals() {
    for (text, expected) in [
        ("", &["is no valid CEL at line 1, column 1"][..]),
        ("input.x ==", &["is no valid CEL at line 1, column 11: mismatched input end of text"]),
        ("true &&\n&& true", &["is no valid CEL at line 2, column 1"]),
        ("1 2", &["is no valid CEL"]),
        ("(true", &["is no valid CEL"]),
        ("true)", &["closes a bracket that was not opened"]),
        ("'abc", &["has a string without an end"]),
        ("'a\nb' == input.x", &["has a string without an end"]),
        ("'a\\q' == input.x", &["has an unknown escape at \"\\\\q"]),
        ("input.x == é", &["has \"é\" outside of quotes"]),
        ("input.`a-b` == 1", &["has \"`\" outside of quotes"]),
        ("abc'x' == input.x", &["has a quote right after \"abc\""]),
        ("1r'x' == input.x", &["has a quote right after \"1r\""]),
        ("input.all(x, x)", &["loops over a list"]),
        ("input.xs.exists(x, x == 1)", &["loops over a list"]),
        ("input.xs.exists_one(x, x == 1)", &["loops over a list"]),
        ("input.xs.map(x, x) == []", &["loops over a list"]),
        ("input.xs.filter(x, x) == []", &["loops over a list"]),
        ("input.xs.exists(x)", &["calls exists: loops are refused"]),
        ("input.x.matches('(a+)+')", &["calls \"matches\", which is not offered: there are bool, contains"]),
        ("timestamp(input.x) > timestamp(input.y)", &["calls \"timestamp\""]),
        ("now() == 1", &["calls \"now\""]),
        ("input.?x == 1", &["uses `.?` or `[?`"]),
        ("input.xs[?0] == 1", &["uses `.?` or `[?`"]),
        ("a.B{c: 1} == 1", &["makes a message of type \"a.B\""]),
        ("inputs.x == 1", &["names the unknown variable \"inputs\""]),
        (".input.x == 1", &["names the unknown variable \".input\""]),
        (
            "video in input.x",
            &["unknown variable \"video\": there are input and steps.<name>.output; text goes in quotes"],
        ),
        ("steps.x.output == 1", &["names the step \"x\", which this workflow does not have"]),
        ("steps.x == 1", &["names the step \"x\", which this workflow does not have"]),
        ("steps.a == 1", &["names `steps` without an output"]),
        ("steps.a.state == 1", &["names `steps` without an output"]),
        ("steps == 1", &["names `steps` without an output"]),
        ("steps[input.x].output == 1", &["names `steps` without an output"]),
        (
            "steps.e.output == 1",
            &["the output of \"e\", which may not be done by then: add \"e\" to this step's needs"],
        ),
        ("steps.last.output == 1", &["the output of \"last\", which may not be done by then"]),
        (
            "steps.c-d.output == 1",
            &["reads `-` in \"c-d\" as a minus: write steps[\"c-d\"].output", "variable \"d\""],
        ),
        (
            "foo == 1 && bar == foo && steps.x.output",
            &["variable \"foo\"", "variable \"bar\"", "the step \"x\""],
        ),
        ("1", &["gives a number, never true or false"]),
        ("'true'", &["gives a text"]),
        ("[true]", &["gives a list"]),
        ("size(input.x)", &["gives a number"]),
        ("string(input.x)", &["gives a text"]),
        ("input.x + 1", &["gives a sum"]),
        ("null", &["gives null"]),
    ] {
        refused(text, expected);
    }
}

#[test]
fn length_and_nesting() {
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    compile(&nested(limits::WHEN_NESTING));
    refused(&nested(limits::WHEN_NESTING + 1), &["nests deeper than 16 brackets and ternaries"]);
    compile("((((((((((((((((true)))))))))))))))) && ((((((((((((((((true))))))))))))))))");
    let ternaries = |count: usize| format!("{}true", "input.x ? false : ".repeat(count));
    compile(&ternaries(limits::WHEN_NESTING));
    refused(&ternaries(limits::WHEN_NESTING + 1), &["nests deeper than 16 brackets and ternaries"]);
    let chain = |count: usize| format!("input{}", ".x".repeat(count));
    compile(&chain(limits::WHEN_CHAIN));
    compile(&format!("1{}", " == 1".repeat(limits::WHEN_CHAIN)));
    refused(&chain(limits::WHEN_CHAIN + 1), &["chains more than 48 operators, fields and calls"]);
    let long = |length: usize| format!("true{}", " ".repeat(length - 4));
    compile(&long(1_024));
    refused(&long(1_025), &["is 1025 bytes long: at most 1024"]);
    // Brackets in strings and comments are none.
    compile(&format!("input.x == '{0}' && input.x == r\"{0}\" // {0}", "(".repeat(100)));
    compile(&format!("input.x == \"\"\"{0}\"\n'{0}\"\"\"", "(".repeat(100)));
    compile(&format!("input.x == '\\'{0}\\x41\\u0041\\101'", "(".repeat(100)));
    // What is joined by && and || or listed is not deep.
    compile(&format!("true{}", " && input.a.b == 1 || input.c[0]".repeat(30)));
    compile(&format!("input.x in [1{}]", ", 1".repeat(300)));
}

/// Texts that recurse as deeply as their shape allows, up to and beyond what is allowed.
fn deep_texts() -> Vec<String> {
    let chains: [fn(usize) -> String; 16] = [
        |n| format!("{}1{}", "(".repeat(n), ")".repeat(n)),
        |n| format!("{}1{}", "[".repeat(n), "]".repeat(n)),
        |n| format!("{}1{}", "{1:".repeat(n), "}".repeat(n)),
        |n| format!("{}1{}", "size(".repeat(n), ")".repeat(n)),
        |n| format!("{}1{}", "-(".repeat(n), ")".repeat(n)),
        |n| format!("{}0{}", "[1][".repeat(n), "]".repeat(n)),
        |n| format!("1{}", "+1".repeat(n)),
        |n| format!("1{}", "==1".repeat(n)),
        |n| format!("1{}", " in [1]".repeat(n)),
        |n| format!("input{}", ".b".repeat(n)),
        |n| format!("input{}", "[0]".repeat(n)),
        |n| format!("input{}", ".size()".repeat(n)),
        |n| format!("{}true", "!".repeat(n)),
        |n| format!("{}1", "-".repeat(n)),
        |n| format!("{}1", "true?1:".repeat(n)),
        |n| "([{".repeat(n),
    ];
    let mut texts = Vec::new();
    for (outer, inner) in chains.iter().flat_map(|outer| chains.iter().map(move |inner| (outer, inner))) {
        for count in [1, 4, 8, 12, 15, 16, 17, 31, 32, 48, 49, 128, 500] {
            let half = inner(count / 2);
            texts.extend([
                outer(count),
                inner(count),
                outer(count / 2).replacen('1', &half, 1),
                format!("({half}) == 1"),
            ]);
        }
    }
    texts.sort();
    texts.dedup();
    texts
}

#[test]
fn no_text_overflows_a_thread_with_two_mebibytes_of_stack() {
    let on_small_stack = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(|| {
        let mut accepted = 0;
        for text in deep_texts() {
            if let Ok(when) = workflow(&format!("({text}) == 1")).or_else(|_| workflow(&text)) {
                accepted += 1;
                drop(when.evaluate(&input(), &outputs()));
            }
        }
        accepted
    });
    let accepted = on_small_stack.unwrap().join().unwrap();
    assert!(accepted > 500, "only {accepted} were accepted: the shapes say nothing");
}

#[test]
fn evaluation_has_a_price_limit() {
    let numbers = json!({ "xs": vec![1; 120_000], "text": "x".repeat(250_000) });
    let nested = (0..500).fold(json!(1), |inner, _| json!([inner]));
    for (text, input, expected) in [
        // What is read once is affordable at the largest size that the API takes.
        ("size(input.xs) == 120000", &numbers, Ok(true)),
        ("2 in input.xs || input.xs == input.xs", &numbers, Ok(true)),
        ("size(input.text + input.text + input.text) == 750000", &numbers, Ok(true)),
        // What is not read costs nothing.
        ("input.text.contains('y')", &numbers, Ok(false)),
        (
            "input.xs + input.xs + input.xs + input.xs + input.xs == []",
            &numbers,
            Err("reads more than it may cost"),
        ),
        (
            "input == input && input == input && input == input && input == input && input == input && input == input && \
          input == input && input == input && input == input",
            &numbers,
            Err("reads more than it may cost"),
        ),
        ("input == 1", &nested, Err("nests too deeply")),
        ("input.x == 1", &json!({ "x": nested }), Err("nests too deeply")),
        ("input.x == 1", &nested, Err("nests too deeply")),
    ] {
        let when = compile(text);
        let answer = when.evaluate(input, &outputs());
        match (&answer, expected) {
            (Ok(answer), Ok(expected)) if *answer == expected => {}
            (Err(message), Err(part)) if message.contains(part) => {}
            _ => panic!("{text}: expected {expected:?}, found {answer:?}"),
        }
    }
}

#[test]
fn messages_stay_small_whatever_the_values_are() {
    let input = json!({ "x": vec!["y".repeat(100); 1_000], "s": "y\n".repeat(50_000) });
    for text in [
        "input.x + 1 == 1",
        "input.x < 1",
        "input.s - 1 == 1",
        "-input.x == 1",
        "input[input.s] == 1",
        "input.x[input.s]",
    ] {
        let message = compile(text).evaluate(&input, &outputs()).unwrap_err();
        assert!(message.len() < 600, "{text}: {} bytes", message.len());
    }
}
