//! Scenes from a question alone: they help to look for an answer. They state nothing about its subject, because nothing here
//! knows anything about it.

use super::source::titled;
use super::{Scene, pack};
use crate::config::Limits;
use crate::text;

/// English words that say nothing about the subject of a question.
const COMMON: &str = " a about all an and any are as at be been being but by can could did do does each for from had has have \
    he her his how i if in into is it its let like made make many may me might more most much must my no not of on one only or \
    other our out over please s she should so some such t tell than that the their them then there these they this those through \
    to under up us very was we were what when where which while who whom whose why will with would you your explain describe ";

/// What kind of answer a question asks for.
struct Sort {
    /// The words that it begins with.
    openings: &'static [&'static str],
    /// What a good answer looks like.
    answer: &'static str,
    /// What to ask first.
    pieces: &'static str,
}

const SORTS: [Sort; 5] = [
    Sort {
        openings: &["how many", "how much", "how far", "how long", "how old", "how big", "how fast"],
        answer: "It asks for a number. A good answer names the number, its unit, and how anybody could measure or count it.",
        pieces: "What exactly is counted or measured? In which unit? Is it always the same, or does it depend on something? How sure is the number?",
    },
    Sort {
        openings: &["how"],
        answer: "It asks how something works. A good answer is a chain of steps: what is there at the start, what happens to it, and what is there at the end.",
        pieces: "What goes in, and what comes out? What has to happen first? Where does it happen? What would stop it?",
    },
    Sort {
        openings: &["why"],
        answer: "It asks for a reason. A good answer names a cause, says how the cause leads to what we see, and why it could not as well be otherwise.",
        pieces: "What exactly is observed? What happens just before it? Does it also happen without that? Which other explanation would fit?",
    },
    Sort {
        openings: &["what", "which"],
        answer: "It asks what something is. A good answer says what kind of thing it is, what sets it apart from similar things, and gives an example.",
        pieces: "What kind of thing is it? What is it not? What is a good example? Who needs to know it, and what for?",
    },
    Sort {
        openings: &["who", "when", "where"],
        answer: "It asks for a fact: a person, a time or a place. A good answer names it, and says how we know.",
        pieces: "Which fact exactly is asked for? Who wrote it down first? Do all sources agree? What happened around it?",
    },
];

const ANY: Sort = Sort {
    openings: &[],
    answer: "It names a subject. A good answer says what it is, how it works or came about, and why anybody should care.",
    pieces: "What is it? How does it work, or how did it come about? What is a good example? Why does it matter?",
};

/// Title and scenes for a cleaned question.
pub(super) fn scenes(
    query: &str,
    grade_level: Option<u32>,
    interest: Option<&str>,
    limits: &Limits,
) -> (String, Vec<Scene>) {
    let title = text::shorten(query, limits.characters_per_title);
    let sort = sort_of(query);
    let mut told = vec![
        (
            title.clone(),
            format!(
                "The question is: {query} Before we look for an answer, let us look at the question itself."
            ),
        ),
        ("What the question asks for".to_owned(), sort.answer.to_owned()),
        ("Words to look up".to_owned(), words_to_look_up(query)),
        ("Smaller questions".to_owned(), format!("Big questions are easier in pieces. {}", sort.pieces)),
        ("Where to look".to_owned(), where_to_look(grade_level).to_owned()),
    ];
    if let Some(interest) = interest {
        let interest = text::shorten(interest, 60);
        told.push((
            "A comparison to try".to_owned(),
            format!("You like this: {interest}. Explain what you find to somebody who likes it too, and look for a comparison. Where does it fit? Where does it break? The place where it breaks shows what is special."),
        ));
    }
    told.push((
        "Check what you find".to_owned(),
        "Two sources that do not copy from each other are worth more than ten that do. Who wrote it, and when? How do they know? Where two sources disagree, look for a third.".to_owned(),
    ));
    told.push((
        "Say it in your own words".to_owned(),
        "Put the sources away and explain the answer aloud, in three sentences. The place where you get stuck is the next thing to look up.".to_owned(),
    ));
    let scenes =
        told.into_iter().flat_map(|(title, narration)| titled(&title, pack::parts(&narration, limits)));
    (title, scenes.take(limits.scenes.saturating_sub(1)).collect())
}

fn sort_of(query: &str) -> &'static Sort {
    let query = format!("{} ", query.to_lowercase().replace(|letter: char| !letter.is_alphanumeric(), " "));
    let opens = |sort: &&Sort| sort.openings.iter().any(|opening| query.starts_with(&format!("{opening} ")));
    SORTS.iter().find(opens).unwrap_or(&ANY)
}

fn words_to_look_up(query: &str) -> String {
    let words = subject_words(query);
    let advice = "Write down in one line what each of them means, and search with them rather than with the whole sentence.";
    match words.as_slice() {
        [] => "Which words carry the question? Underline them first. Look up each one, and search with them rather than with the whole sentence.".to_owned(),
        [word] => format!("The word that carries the question is {word}. Write down in one line what it means, and look for words that often stand beside it."),
        [first @ .., last] => format!("The words that carry the question are {} and {last}. {advice}", first.join(", ")),
    }
}

/// The words that a question is about, in its order, at most five.
fn subject_words(query: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in query.split(|letter: char| !letter.is_alphanumeric() && !"'’-".contains(letter)) {
        let word = word.trim_matches(['\'', '’', '-']).to_lowercase();
        let common = COMMON.contains(&format!(" {word} "));
        let sayable = (2..=30).contains(&text::character_count(&word));
        if sayable && !common && !words.contains(&word) {
            words.push(word);
        }
    }
    words.truncate(5);
    words
}

fn where_to_look(grade_level: Option<u32>) -> &'static str {
    match grade_level {
        Some(..=5) => {
            "Ask somebody who knows: a teacher, a librarian, a grandparent. Look for a book with good pictures, and for a museum near you. Write down where you found each thing."
        }
        Some(6..=8) => {
            "Begin with your schoolbook and an encyclopedia: they give the outline. Then ask a teacher or a librarian for one good book. Write down where each fact comes from."
        }
        Some(_) | None => {
            "Begin with a textbook or an encyclopedia: they give the outline. Then go closer to the source: a museum, a university, a learned society, an original paper. Write down where each fact comes from."
        }
    }
}
