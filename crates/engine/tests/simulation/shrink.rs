//! Makes a failure simpler: leaves out one kind of trouble after another for as long as something still fails.

use std::fmt;

/// What can be left out, the most confusing first.
const TROUBLES: [&str; 15] = [
    "freezes",
    "cuts",
    "servers",
    "runs",
    "poison",
    "crash",
    "lost",
    "refused",
    "double",
    "lose",
    "slow",
    "database_slow",
    "blind",
    "wander",
    "drift",
];
/// So many seeds are tried without it: chance takes another course then.
const NEARBY: u64 = 400;

/// What is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without(u32);

impl Without {
    /// Of a list of names, separated by commas.
    pub fn parse(text: &str) -> Without {
        text.split(',').filter(|name| !name.is_empty()).fold(Without::default(), Without::and)
    }

    pub fn has(self, name: &str) -> bool {
        self.0 & Without::bit(name) != 0
    }

    fn and(self, name: &str) -> Without {
        Without(self.0 | Without::bit(name))
    }

    fn bit(name: &str) -> u32 {
        let at = TROUBLES.iter().position(|trouble| *trouble == name);
        1 << at.unwrap_or_else(|| panic!("no trouble is named {name}: {}", TROUBLES.join(", ")))
    }
}

impl fmt::Display for Without {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out: Vec<&str> = TROUBLES.into_iter().filter(|name| self.has(name)).collect();
        formatter.write_str(&left_out.join(","))
    }
}

/// The simplest failure that is found from this one on.
pub fn shrink(seed: u64, without: Without, fails: impl Fn(u64, Without) -> bool) -> (u64, Without) {
    TROUBLES.into_iter().filter(|trouble| !without.has(trouble)).fold(
        (seed, without),
        |(seed, without), trouble| {
            let fewer = without.and(trouble);
            let found = (seed..seed.saturating_add(NEARBY)).find(|seed| fails(*seed, fewer));
            found.map_or((seed, without), |seed| (seed, fewer))
        },
    )
}

#[test]
fn what_a_failure_does_not_need_is_left_out() {
    let needs =
        |seed: u64, without: Without| seed % 7 == 3 && !without.has("lost") && !without.has("servers");
    let (seed, without) = shrink(10, Without::default(), needs);
    assert!(needs(seed, without));
    assert_eq!(
        without.to_string(),
        "freezes,cuts,runs,poison,crash,refused,double,lose,slow,database_slow,blind,wander,drift"
    );
    assert_eq!(Without::parse(&without.to_string()), without);
}
