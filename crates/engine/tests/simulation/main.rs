//! The simulation: real lanes over a model of the database, under a virtual clock, with everything that can go wrong.
//!
//! A seed is a number from which all chance follows. `LONGTAKE_SIM_SEEDS=100000` runs more of them, `LONGTAKE_SIM_SEED=42` one,
//! with its trace (`LONGTAKE_SIM_LINES=1000` of it) and without some troubles (`LONGTAKE_SIM_WITHOUT=lost,crash`; `shrink` finds out which
//! a failure does not need). What is checked is in `rules` (of every commit), `oracle` (of every reply) and `phases` (in the end). What is left to no chance is in `by_hand`.

mod by_hand;
mod call;
mod client;
mod db;
mod driving;
mod executor;
mod faults;
mod oracle;
mod overload;
mod phases;
mod rng;
mod rules;
mod server;
mod shrink;
mod stats;
mod trace;
mod workflows;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use shrink::{Without, shrink};
use stats::Stats;
use world::World;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 50_000;
/// From so many seeds on, every kind of fault must have struck.
const ENOUGH: u64 = 10_000;

/// Runs a seed. The error holds what was wrong and, if it was traced, what went before.
fn simulate(seed: u64, without: Without, lines: usize) -> Result<Stats, (String, Vec<String>)> {
    let mut world = World::new(seed, without, lines);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        world.begin_all();
        world.run();
    }));
    match outcome {
        Ok(()) => Ok(world.db.stats.clone()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let trace = world.trace.take().unwrap_or_default();
            Err((text.unwrap_or_default(), trace.into()))
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// What is left out of every seed.
fn without() -> Without {
    Without::parse(&std::env::var("LONGTAKE_SIM_WITHOUT").unwrap_or_default())
}

/// Says what is wrong with a seed, with the end of its trace.
fn explain(seed: u64, without: Without) -> String {
    let lines = usize::try_from(number("LONGTAKE_SIM_LINES").unwrap_or(200)).unwrap_or(200);
    match simulate(seed, without, lines) {
        Ok(_) => format!("seed {seed} failed, and did not when it was run again: it is not deterministic"),
        Err((problem, trace)) => format!(
            "{}\nseed {seed}: {problem}\nagain: LONGTAKE_SIM_SEED={seed} LONGTAKE_SIM_WITHOUT={without}",
            trace.join("\n")
        ),
    }
}

/// The same of the simplest failure that is found from this seed on.
fn explain_simply(failed: u64) -> String {
    let (seed, left_out) = shrink(failed, without(), |seed, without| simulate(seed, without, 0).is_err());
    format!("{}\nfound as LONGTAKE_SIM_SEED={failed}", explain(seed, left_out))
}

#[test]
fn every_seed_holds() {
    if let Some(seed) = number("LONGTAKE_SIM_SEED") {
        let failed = simulate(seed, without(), 0).is_err();
        assert!(!failed, "{}", explain(seed, without()));
        return;
    }
    let first = number("LONGTAKE_SIM_FIRST").unwrap_or(0);
    let seeds = first + number("LONGTAKE_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(first);
    let failed = AtomicBool::new(false);
    let problems = Mutex::new(Vec::new());
    let total = Mutex::new(Stats::default());
    // Panics are told once, with their trace.
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut sum = Stats::default();
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    match simulate(seed, without(), 0) {
                        Ok(stats) => sum.add(&stats),
                        Err(_) => {
                            failed.store(true, Ordering::Relaxed);
                            problems.lock().expect("no poison").push(seed);
                        }
                    }
                }
                total.lock().expect("no poison").add(&sum);
            });
        }
    });
    let problems = problems.into_inner().expect("no poison");
    let explanation = problems.iter().min().map(|seed| explain_simply(*seed));
    std::panic::set_hook(loud);
    if let Some(explanation) = explanation {
        panic!("{explanation}");
    }
    let all: Vec<(String, u64)> = total.into_inner().expect("no poison").all().collect();
    let shown: Vec<String> = all.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!("{} seeds: {}", seeds - first, shown.join(", "));
    let missing: Vec<&String> = all.iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect();
    assert!(seeds - first < ENOUGH || missing.is_empty(), "never happened: {missing:?}");
}
