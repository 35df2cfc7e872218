//! The simulation: real lanes over a model of the database, under a virtual clock, with everything that can go wrong.
//!
//! A seed is a number from which all chance follows. `LONGTAKE_SIM_SEEDS=100000` runs more of them, `LONGTAKE_SIM_SEED=42` one,
//! with its trace (`LONGTAKE_SIM_LINES=1000` of it) and without some troubles (`LONGTAKE_SIM_WITHOUT=lost,crash`; `shrink` finds out which
//! a failure does not need). What is checked is in `rules` (of every commit), `oracle` (of every reply) and `phases` (in the end).

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

use longtake_engine::ids::{RunId, SessionId};
use longtake_engine::lane::work::{Committed, Own, Work};
use longtake_engine::lane::{Ask, Beat, Config, Lane, Poll, Standing, Ticket};
use longtake_engine::time::{Duration, Timestamp};

use db::Db;
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

/// Rounds and clocks are due every few seconds, whatever the database's clock was set to in between.
#[test]
fn a_clock_that_is_set_back_puts_off_nothing() {
    let (mut lane, mut db) = (Lane::new(Config::default()), Db::new(false));
    serve(&mut lane, &mut db, world::DAWN, |_, _| ());
    let earlier = world::DAWN - Duration::from_secs(3600);
    serve(&mut lane, &mut db, earlier, |_, _| ());
    let due = earlier + Config::default().housekeeping;
    assert!(lane.wake_at() <= due, "{:?}", lane.wake_at());
    let work = lane.next(due, &mut || 0);
    assert!(matches!(work, Some(Work::Housekeep(_))), "{work:?}");
}

/// Does all that a lane wants done now, as replica 1. `before` sees each work first.
fn serve(lane: &mut Lane, db: &mut Db, now: Timestamp, before: fn(&mut Lane, &Work)) {
    let mut rng = rng::Rng::new(1);
    while let Some(work) = lane.next(now, &mut || rng.next()) {
        before(lane, &work);
        match &work {
            Work::Load(load) => lane.loaded(load, db.load(load, now), now),
            Work::Write(write) if db.refuses(write, now) => {
                lane.committed(write.number, Committed::Failed("poison".into()), now, &mut || rng.next());
            }
            Work::Write(write) => {
                let db::Applied { written, sessions } = db.write(write, 1, now);
                lane.committed(write.number, Committed::Done { written, sessions }, now, &mut || rng.next());
            }
            Work::Housekeep(round) => lane.found(db.housekeep(round, 1, now)),
            Work::EndSessions(_) | Work::ForgetSessions(_) => panic!("nobody's time is up"),
        }
    }
}

/// A run of the first workflow and a poll for its steps, as two asks.
fn run_and_poll(now: Timestamp) -> (RunId, Ask, Ask) {
    let (workflow, id) = (&workflows::pool()[0], rng::Rng::new(1).run());
    let request = workflows::request(id, workflow, now, &mut rng::Rng::new(1)).into();
    let queues = workflow.steps.iter().map(|step| step.queue.as_str().into()).collect();
    let (session, executor) = (SessionId(id.0), "e".into());
    let poll = Some(Poll { session, executor, queues, max_steps: 1, request: None, park: true });
    let commands = vec![client::submit(&request, workflow)];
    let submit = Ask { ticket: Ticket(2), commands, sheddable: true, beat: None, poll: None };
    (id, submit, Ask { ticket: Ticket(1), commands: Vec::new(), sheddable: false, beat: None, poll })
}

/// A server that was alone counts on knowing every lease only once it has looked: another one may have granted some before it went.
#[test]
fn who_was_not_alone_looks_before_it_knows_every_lease() {
    let (mut lane, mut db) = (Lane::new(Config::default()), Db::new(false));
    db.presence.insert(2, world::DAWN);
    let rounds = (0..8).map(|round| {
        let now = world::DAWN + Duration::from_secs(round * 5);
        let Some(Work::Housekeep(round)) = lane.next(now, &mut || 0) else { panic!("a round is due") };
        lane.found(db.housekeep(&round, 1, now));
        round.own
    });
    let looked = [Own::All, Own::Over, Own::Over, Own::Over, Own::Over, Own::Over, Own::All, Own::Known];
    assert_eq!(rounds.collect::<Vec<_>>(), looked);
}

/// Nobody else is there, and yet a queue has a row that is not known any more: that of a run which the database refused to store.
#[test]
fn what_the_database_refused_is_looked_for_once_it_may_be_stored() {
    let (mut lane, mut db, now) = (Lane::new(Config::default()), Db::new(false), world::DAWN);
    let (id, submit, poll) = run_and_poll(now);
    lane.ask(submit, now);
    serve(&mut lane, &mut db, now, |_, _| ());
    db.poison = Some(id);
    lane.ask(poll, now);
    serve(&mut lane, &mut db, now, |_, _| ());
    let held = |db: &Db| db.runs[&id].run.steps.iter().filter(|step| step.live().is_some()).count();
    assert_eq!((db.refused.len(), held(&db)), (1, 0), "it was matched, and refused");
    db.poison = None;
    serve(&mut lane, &mut db, now + Config::default().housekeeping, |_, _| ());
    assert_eq!(held(&db), 1);
}

/// Not after the dispatch timeout: a caller that is gone is no executor that does not answer.
#[test]
fn what_is_matched_with_a_caller_that_is_gone_is_ready_again_at_once() {
    let (mut lane, mut db, now) = (Lane::new(Config::default()), Db::new(false), world::DAWN);
    let (id, submit, poll) = run_and_poll(now);
    lane.ask(poll, now);
    serve(&mut lane, &mut db, now, |_, _| ());
    lane.ask(submit, now);
    serve(&mut lane, &mut db, now, |lane, work| {
        if matches!(work, Work::Write(_)) {
            lane.end_poll(Ticket(1), true, world::DAWN);
        }
    });
    let steps = &db.runs[&id].run.steps;
    assert_eq!(steps.iter().map(|step| step.attempts.len()).sum::<usize>(), 1, "it was matched");
    assert!(steps.iter().all(|step| step.live().is_none()), "and nobody has it");
}

/// Another replica ended it: the renewal finds that, and the heartbeat that asked for it says so.
#[test]
fn a_heartbeat_hears_that_its_session_has_ended() {
    let (mut lane, mut db) = (Lane::new(Config::default()), Db::new(false));
    let session = SessionId(rng::Rng::new(1).run().0);
    let beat = |lane: &mut Lane, db: &mut Db, now| {
        let beat = Some(Beat { session, executor: "e".into(), leases: Vec::new(), complete: true });
        lane.ask(Ask { ticket: Ticket(1), commands: Vec::new(), sheddable: false, beat, poll: None }, now);
        serve(lane, db, now, |_, _| ());
        lane.replies().pop().expect("an answer").session
    };
    assert!(matches!(beat(&mut lane, &mut db, world::DAWN), Some(Standing::Lives { .. })));
    let row = db.sessions.get_mut(&session).expect("a session");
    (row.replica, row.ended) = (2, true);
    let later = world::DAWN + Duration::from_secs(20);
    db.presence.insert(2, later);
    assert_eq!(beat(&mut lane, &mut db, later), Some(Standing::Ended));
}
