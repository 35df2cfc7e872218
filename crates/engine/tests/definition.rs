//! What definitions may say, and what is said of those that may not.

use longtake_engine::definition::{
    Budgets, Modality, OnExhausted, Problem, Retry, Step, Version, Workflow, limits,
};
use longtake_engine::money::Money;
use longtake_engine::time::Duration;

/// Parses `source` and compares what is wrong with it: each entry is how a problem begins, up to `…`, and what it contains.
#[track_caller]
fn check(source: &str, expected: &[&str]) {
    check_bytes(source.as_bytes(), expected);
}

#[track_caller]
fn check_bytes(source: &[u8], expected: &[&str]) {
    let problems: Vec<String> = match Workflow::parse(source) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(Problem::to_string).collect(),
    };
    let fits = |(problem, expected): (&String, &&str)| {
        let (start, part) = expected.split_once(" … ").unwrap_or((expected, ""));
        problem.starts_with(start) && problem.contains(part)
    };
    let all = problems.len() == expected.len() && problems.iter().zip(expected).all(fits);
    assert!(all, "expected {expected:#?}\nfound {problems:#?}");
}

/// A workflow of one step with these lines, the first of which is line 5.
fn one(lines: &str) -> String {
    format!("format = 1\nname = \"w\"\n[[step]]\nname = \"a\"\n{lines}\n")
}

/// A workflow of these steps and what they need.
fn graph(steps: &[(&str, &[&str])]) -> String {
    let mut source = "format = 1\nname = \"w\"\n".to_owned();
    for (name, needs) in steps {
        source.push_str(&format!("[[step]]\nname = \"{name}\"\nneeds = {needs:?}\n"));
    }
    source
}

#[track_caller]
fn parse(source: &str) -> Workflow {
    Workflow::parse(source.as_bytes()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn shipped() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../workflows");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the workflows are in the tree") {
        let path = entry.expect("the folder can be read").path();
        if let (Some(stem), true) =
            (path.file_stem(), path.extension().is_some_and(|extension| extension == "toml"))
        {
            let source = std::fs::read(&path).expect("the file can be read");
            files.push((stem.to_string_lossy().into_owned(), source));
        }
    }
    files.sort();
    files
}

#[test]
fn every_shipped_definition_parses_and_explains_itself() {
    let files = shipped();
    assert!(files.len() >= 4, "found {}", files.len());
    for (stem, source) in files {
        let workflow = Workflow::parse(&source).unwrap_or_else(|problems| panic!("{stem}: {problems:#?}"));
        assert_eq!(workflow.name, stem, "a file is named after its workflow");
        assert!(workflow.source.starts_with("# "), "{stem} does not start with what it shows");
    }
}

#[test]
fn the_content_workflow_is_the_documented_one() {
    let (_, source) = shipped().into_iter().find(|(stem, _)| stem == "content").unwrap();
    let workflow = Workflow::parse(&source).unwrap();
    let names: Vec<&str> = workflow.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["script", "audio", "video", "finalize"]);
    let (number, video) = workflow.step("video").unwrap();
    assert_eq!((number, video.needs.as_slice(), video.needed_by.as_slice()), (2, &[0, 1][..], &[3][..]));
    assert!(video.when.as_ref().unwrap().reads_only_input());
    assert_eq!(video.queue, "video");
    let price = |step: &Step| step.price.0;
    let all: i64 = workflow.steps.iter().map(price).sum();
    assert_eq!(Money(all), Money::parse("0.20").unwrap());
    assert_eq!(Money(all - price(video)), Money::parse("0.017").unwrap());
    let producers = Modality::ALL.map(|modality| workflow.produces(modality));
    assert_eq!(producers, [Some(0), Some(1), None, Some(2)]);
    assert_eq!(workflow.step("thumbnail").map(|(number, _)| number), None);
}

#[test]
fn a_step_that_says_nothing_gets_the_defaults() {
    let workflow = parse(&one(""));
    let step = &workflow.steps[0];
    assert_eq!((step.queue.as_str(), step.price, step.produces), ("a", Money::ZERO, None));
    assert_eq!(step.heartbeat_timeout, Duration::from_secs(30));
    assert_eq!((step.progress_timeout, step.attempt_timeout, step.step_timeout), (None, None, None));
    assert_eq!((step.max_attempts, step.on_exhausted), (None, OnExhausted::Fail));
    assert_eq!(
        step.retry,
        Retry { initial: Duration::from_secs(1), max: Duration::from_secs(300), multiplier: 2 }
    );
    assert_eq!(step.budgets, Budgets { failures: 3, losses: 10, yields: 100 });
}

#[test]
fn every_key_reaches_its_field() {
    let workflow = parse(&one(
        "queue = \"gpu\"\nproduces = \"images\"\nwhen = \"true\"\nprice_usd = \"1.5\"\nheartbeat_timeout = \"3s\"\n\
         progress_timeout = \"10m\"\nattempt_timeout = \"2h\"\nstep_timeout = \"30d\"\nmax_attempts = 7\n\
         on_exhausted = \"pause\"\nretry = { initial_delay = \"250ms\", max_delay = \"1d\", multiplier = 10 }\n\
         budgets.failures = 1\nbudgets.losses = 2\nbudgets.yields = 3",
    ));
    let step = &workflow.steps[0];
    assert_eq!((step.queue.as_str(), step.price), ("gpu", Money(1_500_000_000)));
    assert_eq!((step.produces, step.on_exhausted), (Some(Modality::Images), OnExhausted::Pause));
    assert!(step.when.is_some());
    assert_eq!(step.heartbeat_timeout, Duration::from_secs(3));
    assert_eq!(step.progress_timeout, Some(Duration::from_secs(600)));
    assert_eq!(step.attempt_timeout, Some(Duration::from_secs(7_200)));
    assert_eq!(step.step_timeout, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(step.max_attempts, Some(7));
    assert_eq!(
        step.retry,
        Retry { initial: Duration::from_millis(250), max: Duration::from_secs(86_400), multiplier: 10 }
    );
    assert_eq!(step.budgets, Budgets { failures: 1, losses: 2, yields: 3 });
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let source = r#"format = 2
name = "Content"

[[step]]
name = "script"
price_usd = 0.0001
colour = "red"

[[step]]
name = "video"
needs = ["script", "audio"]
when = '"video" in inputs'
heartbeat_timeout = "1s"
name = "again"
"#;
    check(
        source,
        &[
            "line 1: format: is the number 2: write 1",
            "line 2: name: \"Content\" is no name",
            "line 6: step.script.price_usd: is a bare number … exact: \"0.0001\"",
            "line 7: step.script.colour: is unknown: known here are name, queue, needs",
            "line 11: step.video.needs: \"audio\" is no step of this workflow: its steps are script, video",
            "line 12: step.video.when: names the unknown variable \"inputs\"",
            "line 13: step.video.heartbeat_timeout: \"1s\" is out of range: write \"3s\" to \"1h\"",
            "line 14: the key \"name\" is there twice",
        ],
    );
}

#[test]
fn the_file_as_a_whole() {
    check("", &["line 1: format: is missing", "line 1: name: is missing", "line 1: step: is missing"]);
    check("format = 1\nname = \"w\"\nstep = []", &["line 3: step: is empty"]);
    check("format = 1\nname = \"w\"\n[step]\nname = \"a\"", &["line 3: step: is a table: write [[step]]"]);
    check("format = 1\nname = \"w\"\nstep = [1]", &["line 3: step[1]: is the number 1"]);
    check(
        "format = \"1\"\nname = 1\n[[step]]\nname = \"a\"",
        &[
            "line 1: format: is the text \"1\": write 1, the only format",
            "line 2: name: is the number 1: write a name in quotes",
        ],
    );
    check(
        "format = 1\nname = \"w\"\nowner = \"me\"\n[[step]]\nname = \"a\"\n[extra]\n",
        &["line 3: owner: is unknown: known here are format, name, step", "line 6: extra: is unknown"],
    );
    check(
        "format = 1\nname = \"w\"\n[[step]]\n\n[[step]]\nname = true",
        &["line 3: step[1].name: is missing", "line 6: step[2].name: is true: write a name in quotes"],
    );
    check_bytes(b"format = 1\nname = \"\xff\"", &["line 2: the file is not UTF-8"]);
    let padding = "#".repeat(limits::SOURCE_BYTES);
    check(&format!("{}\n{padding}", one("")), &["line 1: the file is 262"]);
    assert!(Workflow::parse(&[one("").as_bytes(), &padding.as_bytes()[100..]].concat()).is_ok());
    check(
        "format = 1\r\nname = \"w\"\r\n[[step]]\r\nname = \"A\"\r\n",
        &["line 4: step[1].name: \"A\" is no name"],
    );
}

#[test]
fn syntax_errors_have_a_line() {
    check("format = 1\nname = w\n", &["line 2: this is no TOML: string values must be quoted"]);
    check("format = 1\nname = \"w\n[[step]]\nname = \"a\"", &["line 2: this is no TOML"]);
    check("format = = 1\nname = \"w\"\n[[step]\n", &["line 1: this is no TOML", "line 3: this is no TOML"]);
    check(&format!("x = {}", "[".repeat(1_000)), &["line 1: this is no TOML … "]);
}

#[test]
fn names() {
    for name in ["a", "a-b_c9", &"a".repeat(63)] {
        check(&format!("format = 1\nname = {name:?}\n[[step]]\nname = {name:?}\nqueue = {name:?}"), &[]);
    }
    for name in ["", "A", "9a", "-a", "_a", "a b", "a.b", "é", "a\u{0}", &"a".repeat(64)] {
        let source = format!("format = 1\nname = {name:?}\n[[step]]\nname = \"a\"\nqueue = {name:?}");
        if name.contains('\0') {
            continue; // TOML has no such escape
        }
        check(&source, &["line 2: name: ", "line 5: step.a.queue: … is no name: write a lower-case letter"]);
    }
}

#[test]
fn durations() {
    for (text, micros) in [
        ("3s", 3_000_000),
        ("3000ms", 3_000_000),
        ("1m", 60_000_000),
        ("1h", 3_600_000_000),
        ("007s", 7_000_000),
    ] {
        let workflow = parse(&one(&format!("heartbeat_timeout = {text:?}")));
        assert_eq!(workflow.steps[0].heartbeat_timeout, Duration(micros), "{text}");
    }
    for text in ["", "3", "s", "-3s", "+3s", "3 s", "3S", "3.5s", "1h30m", "3us", "three", "３s"] {
        check(
            &one(&format!("heartbeat_timeout = {text:?}")),
            &["line 5: step.a.heartbeat_timeout: … is no span of time: write a whole number and a unit"],
        );
    }
    for text in ["0s", "2999ms", "3601s", "2h", "99999999999999999999d", "9223372036854775807ms"] {
        check(
            &one(&format!("heartbeat_timeout = {text:?}")),
            &["line 5: step.a.heartbeat_timeout: … out of range: write \"3s\" to \"1h\""],
        );
    }
    for key in ["progress_timeout", "attempt_timeout", "step_timeout"] {
        for text in ["1s", "30d"] {
            check(&one(&format!("{key} = {text:?}")), &[]);
        }
        for text in ["999ms", "31d"] {
            check(
                &one(&format!("{key} = {text:?}")),
                &[&format!("line 5: step.a.{key}: {text:?} is out of range")],
            );
        }
    }
    check(
        &one("step_timeout = 30"),
        &["line 5: step.a.step_timeout: is the number 30: write a span of time"],
    );
}

#[test]
fn money() {
    check(&one("price_usd = 0.25"), &["line 5: step.a.price_usd: is a bare number … \"0.25\""]);
    check(&one("price_usd = 3"), &["line 5: step.a.price_usd: is a bare number … \"3\""]);
    check(&one("price_usd = 1e-3"), &["line 5: step.a.price_usd: is a bare number … \"0.183\""]);
    check(&one("price_usd = -1.0"), &["line 5: step.a.price_usd: is a bare number … \"0.183\""]);
    check(&one("price_usd = \"$3\""), &["line 5: step.a.price_usd: \"$3\" is not an amount"]);
    check(&one("price_usd = \"-3\""), &["line 5: step.a.price_usd: \"-3\" is not an amount"]);
    check(&one("price_usd = true"), &["line 5: step.a.price_usd: is true: write dollars as a text"]);
}

#[test]
fn numbers_and_words() {
    for (line, expected) in [
        (
            "max_attempts = 0",
            "line 5: step.a.max_attempts: is the number 0: write a whole number from 1 to 10000",
        ),
        ("max_attempts = -1", "line 5: step.a.max_attempts: is the number -1"),
        (
            "max_attempts = 99999999999999999999",
            "line 5: step.a.max_attempts: is the number 99999999999999999999",
        ),
        ("max_attempts = 1.5", "line 5: step.a.max_attempts: is the number 1.5"),
        ("max_attempts = \"3\"", "line 5: step.a.max_attempts: is the text \"3\""),
        ("max_attempts = 1979-05-27", "line 5: step.a.max_attempts: is a date"),
        (
            "on_exhausted = \"retry\"",
            "line 5: step.a.on_exhausted: \"retry\" is neither \"fail\" nor \"pause\"",
        ),
        ("produces = \"Video\"", "line 5: step.a.produces: \"Video\" is no modality: write one of \"text\""),
        ("retry = \"1s\"", "line 5: step.a.retry: is the text \"1s\": write [step.retry]"),
        (
            "retry.delay = \"1s\"",
            "line 5: step.a.retry.delay: is unknown: known here are initial_delay, max_delay",
        ),
        ("retry.initial_delay = \"0s\"", "line 5: step.a.retry.initial_delay: \"0s\" is out of range"),
        (
            "retry.multiplier = 11",
            "line 5: step.a.retry.multiplier: is the number 11: write a whole number from 1 to 10",
        ),
        (
            "retry.initial_delay = \"10m\"",
            "line 5: step.a.retry: has the initial_delay 10m, longer than the max_delay 5m",
        ),
        ("budgets = 3", "line 5: step.a.budgets: is the number 3: write [step.budgets]"),
        ("budgets.failures = 0", "line 5: step.a.budgets.failures: is the number 0"),
        ("budgets.retries = 3", "line 5: step.a.budgets.retries: is unknown"),
        ("needs = \"b\"", "line 5: step.a.needs: is the text \"b\": write a list of names"),
        ("needs = [1]", "line 5: step.a.needs: holds the number 1"),
        ("\"odd key\" = 1", "line 5: step.a.\"odd key\": is unknown"),
    ] {
        check(&one(line), &[expected]);
    }
}

#[test]
fn needs() {
    let workflow = parse(&graph(&[("d", &["b", "c"]), ("b", &["a"]), ("c", &["a"]), ("a", &[])]));
    let needs: Vec<&[usize]> = workflow.steps.iter().map(|step| step.needs.as_slice()).collect();
    let needed_by: Vec<&[usize]> = workflow.steps.iter().map(|step| step.needed_by.as_slice()).collect();
    assert_eq!(needs, [&[1, 2][..], &[3], &[3], &[]]);
    assert_eq!(needed_by, [&[][..], &[0], &[0], &[1, 2]]);

    check(&graph(&[("a", &["a"])]), &["line 5: step.a.needs: \"a\" is this step itself"]);
    check(&graph(&[("a", &[]), ("b", &["a", "a"])]), &["line 8: step.b.needs: \"a\" is there twice"]);
    check(
        &graph(&[("a", &["x"])]),
        &["line 5: step.a.needs: \"x\" is no step of this workflow: its steps are a"],
    );
    check(
        &graph(&[("a", &["b"]), ("b", &["a"])]),
        &["line 5: step.a.needs: go round in a circle, a → b → a"],
    );
    // One problem for each knot; the way that is shown is a shortest one.
    check(
        &graph(&[
            ("z", &["c"]),
            ("a", &["b"]),
            ("b", &["c"]),
            ("c", &["a", "b"]),
            ("d", &["e"]),
            ("e", &["d", "a"]),
        ]),
        &["line 8: step.a.needs: go round in a circle, a → b → c → a", "line 17: step.d.needs: … d → e → d"],
    );
    check(
        "format = 1\nname = \"w\"\n[[step]]\nname = \"a\"\nneeds = [\n  \"b\",\n  \"c\",\n]",
        &["line 6: step.a.needs: \"b\" is no step", "line 7: step.a.needs: \"c\" is no step"],
    );
    // A step with a bad name is still a step.
    check(&graph(&[("A", &[]), ("b", &["A"])]), &["line 4: step[1].name: \"A\" is no name"]);
}

#[test]
fn names_and_modalities_are_there_once() {
    check(
        &graph(&[("a", &[]), ("b", &[]), ("a", &["b"])]),
        &["line 10: step[3].name: \"a\" is the name of an earlier step"],
    );
    let source = "format = 1\nname = \"w\"\n[[step]]\nname = \"a\"\nproduces = \"text\"\n\
                  [[step]]\nname = \"b\"\nproduces = \"text\"\n";
    check(source, &["line 8: step.b.produces: \"text\" is what the step \"a\" produces: only one step can"]);
}

#[test]
fn as_many_steps_as_there_may_be() {
    let steps = |count: usize| -> String {
        let all = (0..count).map(|number| {
            let needs: Vec<String> = (0..number.min(64)).map(|need| format!("s{need}")).collect();
            format!("[[step]]\nname = \"s{number}\"\nneeds = {needs:?}\n")
        });
        format!("format = 1\nname = \"w\"\n{}", all.collect::<String>())
    };
    let workflow = parse(&steps(64));
    assert_eq!((workflow.steps.len(), workflow.steps[63].needs.len()), (64, 63));
    check(&steps(65), &["line 195: step: there are 65 steps: at most 64"]);
    let cycle: String =
        (0..64).map(|n| format!("[[step]]\nname = \"s{n}\"\nneeds = [\"s{}\"]\n", (n + 1) % 64)).collect();
    check(
        &format!("format = 1\nname = \"w\"\n{cycle}"),
        &["line 5: step.s0.needs: go round in a circle, s0 → s1 → s2"],
    );
}

#[test]
fn reports_stay_readable_whatever_the_file_holds() {
    let keys: String = (0..5_000).map(|number| format!("k{number} = 1\n")).collect();
    let problems = Workflow::parse(one(&keys).as_bytes()).unwrap_err();
    assert_eq!(problems.len(), limits::PROBLEMS + 1);
    assert_eq!(problems[limits::PROBLEMS].message, "4900 more problems follow: correct these first");
    let long = "x".repeat(100_000);
    for line in [
        format!("queue = \"{long}\""),
        format!("{long} = 1"),
        format!("price_usd = \"{long}\""),
        format!("price_usd = {}", "1".repeat(100_000)),
        format!("heartbeat_timeout = \"{long}\""),
        format!("needs = [\"{long}\"]"),
        format!("when = \"{}\"", "x".repeat(1_024)),
        format!("produces = \"{long}\""),
    ] {
        let problems = Workflow::parse(one(&line).as_bytes()).unwrap_err();
        assert_eq!(problems.len(), 1, "{}", &line[..20]);
        assert!(problems[0].to_string().len() < 600, "{}", problems[0]);
    }
}

#[test]
fn versions() {
    let workflow = parse(&one(""));
    let text = workflow.version.to_string();
    assert_eq!(text.len(), 64);
    assert_eq!(text.parse(), Ok(workflow.version));
    assert_eq!(Version::from_bytes(*workflow.version.as_bytes()), workflow.version);
    assert_eq!(serde_json::to_string(&workflow.version).unwrap(), format!("\"{text}\""));
    assert_eq!(serde_json::from_str::<Version>(&format!("\"{text}\"")).unwrap(), workflow.version);
    assert_eq!(
        Version::of(b"abc").to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "the SHA-256 of FIPS 180-2, appendix B.1"
    );
    assert_ne!(parse(&one("# other bytes")).version, workflow.version);
    for text in ["", "ab", &text.to_uppercase(), &format!("{text}00"), &"é".repeat(32), &"g".repeat(64)] {
        assert!(text.parse::<Version>().is_err(), "{text}");
    }
}

#[test]
fn modalities() {
    for modality in Modality::ALL {
        assert_eq!(modality.as_str().parse(), Ok(modality));
        assert_eq!(serde_json::to_value(modality).unwrap(), modality.as_str());
    }
    assert!("VIDEO".parse::<Modality>().is_err());
    use Modality::{Audio, Images, Text, Video};
    for (some, richest) in [
        (&[Text, Video, Images][..], Some(Video)),
        (&[Audio, Images, Text], Some(Images)),
        (&[Text, Audio], Some(Audio)),
        (&[], None),
    ] {
        assert_eq!(Modality::richest(some.iter().copied()), richest);
    }
}

#[test]
fn definitions_go_to_other_threads() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<Workflow>();
    shared::<Problem>();
}
