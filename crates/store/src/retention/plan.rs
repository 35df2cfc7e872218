//! What is to be done with the ranges of history: decided from where they stand, and nothing else.

use longtake_engine::time::{Duration, Timestamp};

/// How many numbers a range has. Many more than are ever used before it is left for its age: at 10,000 runs a second, they would
/// last for eleven days; a range a second uses all that there are up in 29 years.
pub(crate) const WIDTH: i64 = 10_000_000_000;
/// How many ranges are there that no run has come to yet.
const AHEAD: usize = 2;
/// How many are made in one tick, at most.
const MADE_AT_ONCE: usize = 10;
/// The part of the retention that is one range. Whoever reads a run's history opens every partition: with 40 of them that took 0.7 ms
/// more than with none, so there are to be fewer. And history stays for up to two ranges longer than its run.
const RANGES: i64 = 15;
/// However short the retention.
const SHORTEST: Duration = Duration::from_secs(1);

/// A range of numbers, and its partition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Range {
    pub no: i64,
    /// Its first number; the oldest range has all before it, too.
    pub starts_at: i64,
    pub ends_before: i64,
    pub began_at: Option<Timestamp>,
    pub thinned: bool,
}

/// All of them in order, the last number that a run was given, and the time.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    pub all: Vec<Range>,
    pub last: i64,
    pub now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// To be made.
    pub missing: Vec<Range>,
    /// The present range is old: new runs are to have numbers from here on.
    pub leave_at: Option<i64>,
    /// A range that runs have come to does not say since when.
    pub unmarked: bool,
    /// Everything that was made in these has ended, and been removed, or else is here to stay for long. The last of them is
    /// the one that stands for all.
    pub past: Vec<Range>,
}

/// How long new runs get the numbers of one range.
fn age(keep: Duration) -> Duration {
    Duration(keep.micros() / RANGES).max(SHORTEST)
}

impl Ranges {
    pub(crate) fn plan(&self, keep: Duration) -> Plan {
        let missing = self.missing();
        let present = self.all.iter().position(|range| range.ends_before > self.last);
        let Some(present) = present else {
            // Numbers have gone on beyond every range: first of all there must be one for them.
            return Plan { missing, ..Plan::default() };
        };
        let range = &self.all[present];
        let is_used = self.last > range.starts_at;
        let is_old = range.began_at.is_some_and(|began| self.now.since(began) >= age(keep));
        Plan {
            missing,
            leave_at: (is_used && is_old).then_some(range.ends_before),
            unmarked: self.all[..=present].iter().any(|range| range.began_at.is_none()),
            past: self.past(present, keep),
        }
    }

    fn missing(&self) -> Vec<Range> {
        let Some(mut newest) = self.all.last().cloned() else { return Vec::new() };
        let mut ahead = self.all.iter().filter(|range| range.starts_at > self.last).count();
        let mut missing = Vec::new();
        while ahead < AHEAD && missing.len() < MADE_AT_ONCE {
            newest = Range {
                no: newest.no + 1,
                starts_at: newest.ends_before,
                ends_before: newest.ends_before.saturating_add(WIDTH),
                began_at: None,
                thinned: false,
            };
            ahead += usize::from(newest.starts_at > self.last);
            missing.push(newest.clone());
        }
        missing
    }

    /// One more age is waited for: until then, what has run for longer than most has ended, too.
    fn past(&self, present: usize, keep: Duration) -> Vec<Range> {
        let wait = keep + age(keep);
        let is_past = |next: &Range| next.began_at.is_some_and(|left| self.now.since(left) > wait);
        let past = self.all[..=present].iter().skip(1).take_while(|next| is_past(next)).count();
        match &self.all[..past] {
            // It is as it should be.
            [only] if only.thinned => Vec::new(),
            past => past.to_vec(),
        }
    }
}
