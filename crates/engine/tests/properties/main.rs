//! What holds for every run, whatever is asked of it: DESIGN §7, invariants 3 to 9, on random workflows under random commands.
//!
//! `workflows` and `commands` make them up, `world` plays them and checks `invariants` after each command, `honest` brings any
//! state to its end, and `model` counts once more what was counted.

mod commands;
mod garbage;
mod honest;
mod invariants;
mod model;
mod workflows;
mod world;

use longtake_engine::definition::Retry;
use longtake_engine::retry::{Verdict, judge};
use longtake_engine::run::{Cause, Step};
use longtake_engine::time::Duration;
use proptest::prelude::*;

use world::World;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(1200))]

    /// Every invariant holds after every command; and from wherever that led, an honest executor brings the run to its end.
    #[test]
    fn invariants_hold_and_every_run_can_end(
        plan in workflows::plan(),
        asked in proptest::collection::vec(commands::asked(), 0..100),
        survivors in any::<u64>(),
    ) {
        let mut world = World::new(plan.workflow(), plan.request());
        for asked in &asked {
            world.play(asked);
        }
        world.fold_again();
        honest::finish(&mut world, survivors);
        world.fold_again();
    }
}

proptest! {
    #![proptest_config(config(1000))]

    /// Events that no decision made, and commands on what they fold to: nonsense, but no panic.
    #[test]
    fn nothing_panics(
        plan in workflows::plan(),
        kinds in proptest::collection::vec((garbage::kind(), any::<i64>(), any::<i64>()), 0..30),
        asked in proptest::collection::vec(commands::asked(), 0..10),
        other in workflows::plan(),
    ) {
        garbage::play(&plan, &kinds, &asked, &other);
    }

    /// Full jitter: between nothing and the exponential, whichever bits come.
    #[test]
    fn backoff_is_bounded(
        initial in 1..86_400_000_000i64,
        more in 0..86_400_000_000i64,
        multiplier in 1..=10u32,
        failures in 0..9_000u32,
        jitter in any::<u64>(),
    ) {
        let mut definition = workflows::lenient();
        definition.retry = Retry { initial: Duration(initial), max: Duration(initial + more), multiplier };
        let mut step = Step::new();
        step.used.failures = failures;
        let ceiling = (0..failures).try_fold(initial, |delay, _| {
            delay.checked_mul(i64::from(multiplier)).filter(|delay| *delay < initial + more)
        });
        let ceiling = ceiling.unwrap_or(initial + more);
        let delay = |jitter| match judge(&definition, &step, Cause::Failed, None, jitter) {
            Verdict::After(delay) => delay.0,
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(delay(0), 0);
        prop_assert_eq!(delay(u64::MAX), ceiling);
        prop_assert!((0..=ceiling).contains(&delay(jitter)));
        prop_assert!(delay(jitter / 2) <= delay(jitter), "more bits, more delay");
    }
}
