use serde_json::json;

use super::*;

fn script(input: &Value) -> Script {
    template(&Request::parse(input).unwrap(), &Limits::default())
}

fn within_limits(script: &Script) {
    let limits = Limits::default();
    assert!((2..=limits.scenes).contains(&script.scenes.len()), "{} scenes", script.scenes.len());
    for scene in &script.scenes {
        assert!(!scene.narration.trim().is_empty());
        assert!(text::word_count(&scene.narration) <= limits.words_per_scene, "{}", scene.narration);
        assert!(text::character_count(&scene.title) <= limits.characters_per_title, "{}", scene.title);
    }
}

#[test]
fn the_shipped_example_becomes_one_scene_per_section() {
    let text = include_str!("../../../../examples/photosynthesis.md");
    let script =
        script(&json!({"student_query": "How do plants turn light into sugar?", "source_text": text}));
    within_limits(&script);
    assert_eq!(script.title, "How plants turn light into sugar");
    let titles: Vec<_> = script.scenes.iter().map(|scene| scene.title.as_str()).collect();
    assert_eq!(
        titles,
        [
            "How plants turn light into sugar",
            "What goes in",
            "The green workshop",
            "First, catch the light",
            "Then, build the sugar",
            "Why it matters to you",
            "How this was made",
        ]
    );
    let source = script.source.as_ref().unwrap();
    assert!(source.complete && source.left_out.is_empty());
    assert_eq!((script.provider.as_str(), &script.model), ("template", &None));
    assert!(script.scenes.last().unwrap().narration.contains(NO_MODEL));
    assert_eq!(Script::parse(&serde_json::to_vec(&script).unwrap()).unwrap(), script);
}

#[test]
fn a_question_alone_becomes_help_with_finding_an_answer() {
    let script = script(&json!({
        "student_query": "How do plants turn light into sugar?", "grade_level": 7, "interest": "football",
    }));
    within_limits(&script);
    let all: String = script.scenes.iter().map(|scene| format!("{} ", scene.narration)).collect();
    assert!(all.contains("The question is: How do plants turn light into sugar?"));
    assert!(all.contains("plants, turn, light and sugar"), "{all}");
    assert!(all.contains("You like this: football."));
    assert!(all.contains("your schoolbook"));
    assert!(script.scenes.last().unwrap().narration.starts_with(NO_MODEL));
    assert_eq!(script.output()["model"], Value::Null);
}

#[test]
fn the_kind_of_question_is_seen_in_its_first_words() {
    let cases = [
        ("How many legs does a spider have?", "a number"),
        ("How's honey made?", "how something works"),
        ("why is the sky blue", "a reason"),
        ("What is a prime number?", "what something is"),
        ("Who built the pyramids?", "a fact"),
        ("Photosynthese erklären", "names a subject"),
        ("-f evil", "names a subject"),
    ];
    for (query, expected) in cases {
        let script = script(&json!({"student_query": query}));
        assert!(script.scenes[1].narration.contains(expected), "{query}: {}", script.scenes[1].narration);
    }
}

#[test]
fn hostile_and_odd_requests_still_make_a_script() {
    let queries = [
        "?????",
        "-f evil; rm -rf / %{eif} 'a':b\\n",
        "😀😀😀 is this ok?",
        "שלום עולם, מה זה?",
        "光合作用是什么",
        &"a".repeat(500),
        &"wörd ".repeat(100),
    ];
    for query in queries {
        within_limits(&script(&json!({"student_query": query})));
        within_limits(&script(&json!({"student_query": query, "source_text": query.repeat(30)})));
    }
}

#[test]
fn markdown_is_read_as_people_read_it() {
    let text = "---\ntitle: hidden\n---\nIntro with [a link](http://x) and **bold** `code`.\n\nSetext\n======\n\n- one item\n- two items\n\n\
        ![alt](p.png)\n\n```rust\nfn main() {}\n```\n\n> quoted words\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<b>html</b> <!-- gone -->\n\n    indented text\n\n# Empty\n";
    let script = script(&json!({"student_query": "What is this?", "source_text": text}));
    let told: Vec<_> =
        script.scenes.iter().map(|scene| (scene.title.as_str(), scene.narration.as_str())).collect();
    assert_eq!(
        told[..3],
        [
            ("What is this?", "Intro with a link and bold code."),
            ("Setext", "one item. two items. quoted words. a, b. 1, 2. html. indented text."),
            ("Empty", "Empty."),
        ]
    );
    let source = script.source.as_ref().unwrap();
    assert!(!source.complete);
    assert_eq!(source.left_out, ["code blocks: 1 (3 words)", "pictures: 1"]);
}

#[test]
fn a_long_text_goes_on_over_many_scenes_and_says_when_it_stops() {
    let sentence = "This sentence has exactly eight words in it. ";
    let long = script(&json!({"student_query": "Long?", "source_text": sentence.repeat(300)}));
    within_limits(&long);
    assert_eq!(
        long.source,
        Some(SourceUse { words: 2_400, words_used: 2_400, complete: true, left_out: vec![] })
    );
    assert_eq!(long.scenes[1].part.map(|(part, _)| part), Some(2));

    let endless = script(&json!({"student_query": "Long?", "source_text": sentence.repeat(2_000)}));
    within_limits(&endless);
    let source = endless.source.as_ref().unwrap();
    assert_eq!((source.words, source.complete), (16_000, false));
    assert!(source.words_used < 16_000 && endless.note.contains(&source.words_used.to_string()));
    assert!(endless.scenes.last().unwrap().narration.contains("of 16000 words"));
}

#[test]
fn only_code_is_shown_as_text_rather_than_nothing() {
    let script = script(&json!({"student_query": "Code?", "source_text": "```\nlet x = 1;\n```"}));
    assert!(script.scenes[0].narration.contains("let x = 1;"));
}

#[test]
fn what_is_not_a_request_is_refused_by_name() {
    let refused = [
        (json!({}), "student_query"),
        (json!({"student_query": " \u{200B}\u{7} "}), "student_query"),
        (json!({"student_query": 5}), "input"),
        (json!([]), "input"),
        (json!({"student_query": "fine", "grade_level": "seven"}), "input"),
    ];
    for (input, field) in refused {
        let error = Request::parse(&input).unwrap_err();
        assert!(error.to_string().contains(field) && !error.retryable(), "{error}");
    }
    assert!(Provider::named("gemini").unwrap_err().to_string().contains("known: template"));
}
