//! Times, where no fault explains them: how soon the steps of a killed executor go on, and how late backoffs end.

use std::collections::HashMap;

use super::Findings;
use crate::journal::Line;

/// A recovery is measured if nothing else was taken away within this time after the kill, in microseconds.
const UNDISTURBED: i64 = 10_000_000;

/// The faults of a run, and what was measured beside them.
pub struct Measures {
    all: Spans,
    /// Those that take a server or the database away.
    disturbing: Spans,
    /// When each executor was killed, in order.
    kills: HashMap<String, Vec<i64>>,
    recovered_ms: Vec<f64>,
    backoff_late_ms: Vec<f64>,
    /// What a fault was too close to for a measurement.
    disturbed: u64,
}

impl Measures {
    pub fn of(lines: &[Line]) -> Measures {
        let (mut all, mut disturbing) = (Vec::new(), Vec::new());
        let mut kills: HashMap<String, Vec<i64>> = HashMap::new();
        for line in lines {
            let Line::Fault { kind, target, from, to } = line else { continue };
            // Nothing is late for it, and it happens all the time.
            if kind == "drop_call" {
                continue;
            }
            all.push((*from, *to));
            if takes_away(kind, target) {
                disturbing.push((*from, *to));
            }
            if kind == "kill_executor" {
                kills.entry(target.clone()).or_default().push(*from);
            }
        }
        kills.values_mut().for_each(|times| times.sort_unstable());
        Measures {
            all: Spans::of(all),
            disturbing: Spans::of(disturbing),
            kills,
            recovered_ms: Vec::new(),
            backoff_late_ms: Vec::new(),
            disturbed: 0,
        }
    }

    /// When this executor was killed within an attempt from `leased` to `ended`. The target may be its name, or what stands there
    /// before a `.` or a `-`: a process has lives, and several executors in it.
    pub fn killed(&self, executor: &str, leased: i64, ended: i64) -> Option<i64> {
        let cuts = executor.match_indices(['.', '-']).map(|(at, _)| at).chain([executor.len()]);
        let times = cuts.filter_map(|cut| self.kills.get(&executor[..cut]));
        times
            .filter_map(|times| times.get(times.partition_point(|time| *time < leased)))
            .filter(|time| **time <= ended)
            .min()
            .copied()
    }

    /// A step of an executor that was killed then goes on.
    pub fn recovered(&mut self, killed: i64, at: i64) {
        if self.disturbing.overlap(killed, killed + UNDISTURBED) {
            self.disturbed += 1;
        } else {
            self.recovered_ms.push(ms(at - killed));
        }
    }

    /// A backoff until then is over.
    pub fn backed_off(&mut self, until: i64, at: i64) {
        if self.all.overlap(until, at) {
            self.disturbed += 1;
        } else {
            self.backoff_late_ms.push(ms(at - until));
        }
    }

    /// What was measured: recoveries, and backoffs.
    pub fn taken(self, findings: &mut Findings) -> (Vec<f64>, Vec<f64>) {
        if self.disturbed > 0 {
            findings.add("not_measured", self.disturbed);
        }
        (self.recovered_ms, self.backoff_late_ms)
    }
}

/// Whatever is not done to an executor or a client, or to the link between them and a server: its target is `server-0/client`.
fn takes_away(kind: &str, target: &str) -> bool {
    let link = target.rsplit_once('/').map_or("", |(_, link)| link);
    !["executor", "client", "liar"].iter().any(|who| kind.contains(who) || link.contains(who))
}

#[allow(clippy::cast_precision_loss)] // days, in microseconds
fn ms(micros: i64) -> f64 {
    micros as f64 / 1_000.0
}

/// Spans of time, to be asked whether one lies across another.
struct Spans {
    begins: Vec<i64>,
    /// The latest end of the spans up to this one.
    latest: Vec<i64>,
}

impl Spans {
    fn of(mut spans: Vec<(i64, i64)>) -> Spans {
        spans.sort_unstable();
        let latest = spans.iter().scan(i64::MIN, |latest, (_, to)| {
            *latest = (*latest).max(*to);
            Some(*latest)
        });
        let latest = latest.collect();
        Spans { begins: spans.iter().map(|(from, _)| *from).collect(), latest }
    }

    fn overlap(&self, from: i64, to: i64) -> bool {
        let begun = self.begins.partition_point(|begin| *begin <= to);
        begun.checked_sub(1).is_some_and(|last| self.latest[last] >= from)
    }
}
