//! Keys to fields: the one place that knows what a definition may say.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::problem::{Problem, brief, quote};
use super::reads::Scope;
use super::source::{Field, Report, Section};
use super::{Budgets, Modality, Retry, Step, Version, When, Workflow, graph, limits};
use crate::money::Money;

pub(super) fn parse(source: &[u8]) -> Result<Workflow, Vec<Problem>> {
    let text = decode(source).map_err(|problem| vec![problem])?;
    let mut report = Report::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        syntax_error(text, error, &mut report);
    }
    // What the parser made of broken lines would only raise problems that are none.
    if !errors.iter().all(is_duplicate) {
        return Err(report.into_problems());
    }
    let (name, steps) = workflow(Section::new(document.get_ref(), 0, ""), &mut report);
    let problems = report.into_problems();
    if problems.is_empty() {
        Ok(Workflow { name, version: Version::of(source), source: text.to_owned(), steps })
    } else {
        Err(problems)
    }
}

fn decode(source: &[u8]) -> Result<&str, Problem> {
    let problem = |line, message| Problem { line, key: String::new(), message };
    if source.len() > limits::SOURCE_BYTES {
        let (long, most) = (source.len(), limits::SOURCE_BYTES);
        return Err(problem(1, format!("the file is {long} bytes long: at most {most} are read")));
    }
    str::from_utf8(source).map_err(|error| {
        let line = 1 + source[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        problem(line, "the file is not UTF-8: save it as UTF-8".to_owned())
    })
}

fn syntax_error(text: &str, error: &toml::de::Error, report: &mut Report) {
    let span = error.span().unwrap_or(0..0);
    if is_duplicate(error) {
        let key = text.get(span.clone()).unwrap_or_default();
        report.add(span.start, "", format!("the key {} is there twice: remove one", quote(key)));
    } else if !report.is_wrong_at(span.start) {
        // Once for each line: what follows on a broken line follows from it.
        report.add(span.start, "", format!("this is no TOML: {}", brief(&error.message())));
    }
}

fn is_duplicate(error: &toml::de::Error) -> bool {
    error.message() == "duplicate key"
}

fn workflow(mut section: Section<'_>, report: &mut Report) -> (String, Vec<Step>) {
    if let Some(format) = section.required("format", "format = 1", report) {
        let wanted = format!("{}, the only format that this binary reads", limits::FORMAT);
        format.integer(report, limits::FORMAT..=limits::FORMAT, &wanted);
    }
    let name = section.required("name", "name = \"…\"", report).and_then(|name| name.name(report));
    let listed = section.required("step", "at least one [[step]]", report);
    let mut sections = listed.as_ref().map(|field| field.sections(report)).unwrap_or_default();
    if let Some(excess) = sections.get(limits::STEPS) {
        let (many, most) = (sections.len(), limits::STEPS);
        report.add(
            excess.at,
            "step",
            format!("there are {many} steps: at most {most} can be, so from here on none is read"),
        );
        sections.truncate(limits::STEPS);
    }
    section.finish(report);
    let drafts: Vec<Draft<'_>> = sections.into_iter().map(|section| Draft::read(section, report)).collect();
    (name.unwrap_or_default().to_owned(), link(drafts, report))
}

/// A step before the others are known.
struct Draft<'t> {
    /// With nothing in `needs`, `needed_by` and `when`.
    step: Step,
    /// Its name and where that stands; it may be no good name.
    name: Option<Field<'t>>,
    /// Where and what it needs.
    needs: Option<(Field<'t>, Vec<(usize, &'t str)>)>,
    produces: Option<Field<'t>>,
    when: Option<(Field<'t>, &'t str)>,
}

impl<'t> Draft<'t> {
    fn read(mut section: Section<'t>, report: &mut Report) -> Draft<'t> {
        let name_field = section.required("name", "name = \"…\"", report);
        let name = name_field.as_ref().and_then(|field| field.name(report)).unwrap_or_default();
        section.rename("step", name);
        let queue = section.field("queue").and_then(|field| field.name(report));
        let needs = section.field("needs").map(|field| {
            let names = field.strings(report, "a list of names of steps, such as [\"script\"]");
            (field, names)
        });
        let produces = section.field("produces");
        let modality: Option<Modality> = produces.as_ref().and_then(|field| field.word(report));
        let when = section.field("when").and_then(|field| {
            let text =
                field.string(report, "CEL in quotes, such as '\"video\" in input.requested_modalities'")?;
            Some((field, text))
        });
        let price = section.field("price_usd").and_then(|field| field.money(report));
        let heartbeat = limits::HEARTBEAT_MIN..=limits::HEARTBEAT_MAX;
        let heartbeat =
            section.field("heartbeat_timeout").and_then(|field| field.duration(report, heartbeat));
        let timeout = limits::TIMEOUT_MIN..=limits::TIMEOUT_MAX;
        let mut timeout = |name| section.field(name)?.duration(report, timeout.clone());
        let progress_timeout = timeout("progress_timeout");
        let attempt_timeout = timeout("attempt_timeout");
        let step_timeout = timeout("step_timeout");
        let max_attempts =
            section.field("max_attempts").and_then(|field| field.count(report, limits::ATTEMPTS_MAX));
        let on_exhausted = section.field("on_exhausted").and_then(|field| field.word(report));
        let step = Step {
            name: name.to_owned(),
            queue: queue.unwrap_or(name).to_owned(),
            needs: Vec::new(),
            needed_by: Vec::new(),
            produces: modality,
            when: None,
            price: price.unwrap_or(Money::ZERO),
            heartbeat_timeout: heartbeat.unwrap_or(Step::HEARTBEAT_TIMEOUT),
            progress_timeout,
            attempt_timeout,
            step_timeout,
            max_attempts,
            on_exhausted: on_exhausted.unwrap_or_default(),
            retry: retry(&mut section, report),
            budgets: budgets(&mut section, report),
        };
        section.finish(report);
        Draft { step, name: name_field.filter(|_| !name.is_empty()), needs, produces, when }
    }
}

fn retry(step: &mut Section<'_>, report: &mut Report) -> Retry {
    let mut retry = Retry::default();
    let Some(field) = step.field("retry") else { return retry };
    let Some(mut section) = field.section(report, "[step.retry], or retry.initial_delay = \"1s\"") else {
        return retry;
    };
    let delays = limits::RETRY_DELAY_MIN..=limits::RETRY_DELAY_MAX;
    let mut delay = |name| section.field(name).and_then(|field| field.duration(report, delays.clone()));
    retry.initial = delay("initial_delay").unwrap_or(retry.initial);
    retry.max = delay("max_delay").unwrap_or(retry.max);
    let multiplier = section.field("multiplier");
    let multiplier = multiplier.and_then(|field| field.count(report, limits::RETRY_MULTIPLIER_MAX));
    retry.multiplier = multiplier.unwrap_or(retry.multiplier);
    if retry.initial > retry.max {
        let (initial, max) = (retry.initial, retry.max);
        field.wrong(
            report,
            format!("has the initial_delay {initial}, longer than the max_delay {max}: raise max_delay"),
        );
    }
    section.finish(report);
    retry
}

fn budgets(step: &mut Section<'_>, report: &mut Report) -> Budgets {
    let defaults = Budgets::default();
    let Some(field) = step.field("budgets") else { return defaults };
    let Some(mut section) = field.section(report, "[step.budgets], or budgets.failures = 3") else {
        return defaults;
    };
    let mut budget = |name, default| {
        let field: Option<Field<'_>> = section.field(name);
        field.and_then(|field| field.count(report, limits::ATTEMPTS_MAX)).unwrap_or(default)
    };
    let budgets = Budgets {
        failures: budget("failures", defaults.failures),
        losses: budget("losses", defaults.losses),
        yields: budget("yields", defaults.yields),
    };
    section.finish(report);
    budgets
}

/// Joins the steps: what one says of the others.
fn link(drafts: Vec<Draft<'_>>, report: &mut Report) -> Vec<Step> {
    let names: Vec<String> = drafts.iter().map(|draft| draft.step.name.clone()).collect();
    let by_name = number(&drafts, &names, report);
    single_producers(&drafts, report);
    let needs: Vec<Vec<usize>> =
        drafts.iter().enumerate().map(|(number, draft)| resolve(number, draft, &by_name, report)).collect();
    let reach = graph::reach(&needs);
    for cycle in graph::cycles(&needs, &reach) {
        let way: Vec<&str> = cycle.iter().chain(cycle.first()).map(|step| names[*step].as_str()).collect();
        if let Some((field, _)) = cycle.first().and_then(|step| drafts[*step].needs.as_ref()) {
            field.wrong(report, format!("go round in a circle, {}: remove one of them", way.join(" → ")));
        }
    }
    let mut steps = Vec::new();
    for (number, draft) in drafts.into_iter().enumerate() {
        let when = draft.when.and_then(|(field, text)| {
            let scope = Scope { steps: &by_name, done: reach[number] & !(1 << number) };
            When::compile(text, &scope)
                .map_err(|wrong| wrong.into_iter().for_each(|message| field.wrong(report, message)))
                .ok()
        });
        let needed_by = (0..needs.len()).filter(|other| needs[*other].contains(&number)).collect();
        steps.push(Step { needs: needs[number].clone(), needed_by, when, ..draft.step });
    }
    steps
}

/// Numbers the steps by name; the first of several counts.
fn number<'n>(drafts: &[Draft<'_>], names: &'n [String], report: &mut Report) -> BTreeMap<&'n str, usize> {
    let mut by_name = BTreeMap::new();
    for (number, (draft, name)) in drafts.iter().zip(names).enumerate() {
        let Some(field) = &draft.name else { continue };
        if by_name.contains_key(name.as_str()) {
            field
                .wrong(report, format!("{} is the name of an earlier step: rename one of them", quote(name)));
        } else {
            by_name.insert(name.as_str(), number);
        }
    }
    by_name
}

fn single_producers(drafts: &[Draft<'_>], report: &mut Report) {
    let mut producers: BTreeMap<Modality, &str> = BTreeMap::new();
    for draft in drafts {
        let (Some(modality), Some(field)) = (draft.step.produces, &draft.produces) else { continue };
        match producers.get(&modality) {
            Some(first) => {
                let message =
                    format!("\"{modality}\" is what the step {} produces: only one step can", quote(first));
                field.wrong(report, message);
            }
            None => drop(producers.insert(modality, &draft.step.name)),
        }
    }
}

/// The numbers of the steps that `draft` needs.
fn resolve(
    own: usize,
    draft: &Draft<'_>,
    by_name: &BTreeMap<&str, usize>,
    report: &mut Report,
) -> Vec<usize> {
    let mut needs = Vec::new();
    let Some((field, names)) = &draft.needs else { return needs };
    for (at, name) in names {
        let message = match by_name.get(name) {
            Some(need) if *need == own => format!("{} is this step itself: remove it", quote(name)),
            Some(need) if needs.contains(need) => format!("{} is there twice: remove one", quote(name)),
            Some(need) => {
                needs.push(*need);
                continue;
            }
            None => {
                let known: Vec<&str> = by_name.keys().copied().collect();
                format!(
                    "{} is no step of this workflow: its steps are {}",
                    quote(name),
                    brief(&known.join(", "))
                )
            }
        };
        report.add(*at, field.key.as_str(), message);
    }
    needs
}
