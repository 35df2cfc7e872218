//! The verdict for people and programs.

use serde_json::{Value, json};

use crate::checker::Verdict;

/// What must have happened in every minute, or nothing was proved. A slow machine does less than a quick one: these are a
/// tenth of what two cores do.
const QUOTAS: [(&str, f64); 8] = [
    ("fault.kill_executor", 20.0),
    ("fault.kill_server", 3.0),
    ("fault.kill_postgres", 1.0),
    ("fault.freeze_executor", 2.0),
    ("fault.cut", 3.0),
    ("fault.drop_call", 10.0),
    ("refused", 3.0),
    ("runs", 200.0),
];

/// See the module.
pub struct Report {
    pub verdict: Verdict,
    pub stuck: i64,
    /// Rows that should not be there.
    pub rest: Vec<String>,
    /// Servers that ended by themselves.
    pub fell: Vec<String>,
    /// Writes whose outcome the servers did not learn.
    pub unknown: usize,
    pub panics: usize,
    pub minutes: f64,
    pub seed: u64,
}

impl Report {
    /// What is wrong.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = self.verdict.violations.clone();
        wrong.extend(self.rest.iter().chain(&self.fell).cloned());
        if self.stuck > 0 {
            wrong.push(format!("{} runs are stuck", self.stuck));
        }
        if self.panics > 0 {
            wrong.push(format!("servers panicked {} times", self.panics));
        }
        wrong
    }

    /// What happened too seldom to prove anything.
    fn missing(&self) -> Vec<String> {
        let count = |name: &str| self.verdict.counts.get(name).copied().unwrap_or(0);
        let short = |(name, a_minute): &(&str, f64)| {
            let (is, wanted) = (count(name) as f64, (a_minute * self.minutes).floor());
            (is < wanted).then(|| format!("{name}: {is} of at least {wanted}"))
        };
        QUOTAS.iter().filter_map(short).collect()
    }

    /// Whether everything held, and enough happened to say so.
    pub fn held(&self) -> bool {
        self.wrong().is_empty() && self.missing().is_empty()
    }

    fn summary(&self) -> &'static str {
        match (self.wrong().is_empty(), self.missing().is_empty()) {
            (false, _) => "VIOLATED",
            (true, false) => "UNKNOWN: too little happened",
            (true, true) => "HELD",
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "verdict": self.summary(),
            "minutes": self.minutes,
            "seed": self.seed,
            "violations": self.wrong(),
            "missing": self.missing(),
            "writes_of_unknown_outcome": self.unknown,
            "counts": self.verdict.counts,
            "recovered_ms": spread(&self.verdict.recovered_ms),
            "backoff_late_ms": spread(&self.verdict.backoff_late_ms),
        })
    }

    #[allow(clippy::print_stdout)] // the result
    pub fn show(&self) {
        println!("{:#}", self.json());
        println!("{}", self.summary());
    }
}

/// Median, 99th percentile and longest.
fn spread(values: &[f64]) -> Value {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(place.saturating_sub(1)).copied()
    };
    json!({ "count": sorted.len(), "p50": at(0.5), "p99": at(0.99), "max": sorted.last() })
}
