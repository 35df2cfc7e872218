//! Money: whole nano-dollars, so that a thousandth of a cent is exact and sums do not drift.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// An amount in nano-dollars (1 = $0.000000001).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Money(pub i64);

impl Money {
    /// Nothing.
    pub const ZERO: Money = Money(0);

    /// The largest price and the largest cost that one report may carry: a million dollars.
    pub const MAX: Money = Money(1_000_000 * 1_000_000_000);

    /// Reads a decimal string of dollars such as `"0.183"`: digits, at most nine of them after the point, at most [`Money::MAX`].
    pub fn parse(text: &str) -> Result<Money, String> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || text.ends_with('.') {
            return Err(format!("{text:?} is not an amount: write dollars such as \"0.183\""));
        }
        if fraction.len() > 9 {
            return Err(format!("{text:?} has {} decimal places: at most nine are kept", fraction.len()));
        }
        format!("{whole}{fraction:0<9}")
            .parse::<i64>()
            .ok()
            .map(Money)
            .filter(|amount| *amount <= Money::MAX)
            .ok_or_else(|| format!("{text:?} is more than a million dollars"))
    }
}

impl Add for Money {
    type Output = Money;
    fn add(self, other: Money) -> Money {
        Money(self.0.saturating_add(other.0))
    }
}

impl Sub for Money {
    type Output = Money;
    fn sub(self, other: Money) -> Money {
        Money(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Money) {
        *self = *self + other;
    }
}

impl fmt::Display for Money {
    /// Dollars with at least two decimal places: `$0.20`, `$0.0049`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let fraction = format!("{:09}", nanos % 1_000_000_000);
        let shown = fraction.trim_end_matches('0').len().max(2);
        write!(f, "{sign}${}.{}", nanos / 1_000_000_000, &fraction[..shown])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_shows_dollars() {
        for (text, nanos, shown) in [
            ("0.183", 183_000_000, "$0.183"),
            ("0.0001", 100_000, "$0.0001"),
            ("0.20", 200_000_000, "$0.20"),
            ("7", 7_000_000_000, "$7.00"),
            ("0.000000001", 1, "$0.000000001"),
        ] {
            assert_eq!(Money::parse(text), Ok(Money(nanos)), "{text}");
            assert_eq!(Money(nanos).to_string(), shown);
        }
        for text in ["", ".5", "5.", "-1", "1e3", "0.0000000001", "1000001", "99999999999999999999", "0,5"] {
            assert!(Money::parse(text).is_err(), "{text}");
        }
        assert_eq!(Money(-5).to_string(), "-$0.000000005");
    }
}
