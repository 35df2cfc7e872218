//! How long a part that died stays down: longer each time, and short again once it has lived.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const MAX: Duration = Duration::from_secs(15);
/// A part that lived for so long was in order.
const HEALTHY: Duration = Duration::from_secs(20);

/// One part's deaths.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    in_row: u32,
}

impl Deaths {
    /// It died after `lived`: how long to wait, and how often in a row it has died young.
    pub(super) fn another(&mut self, lived: Duration) -> (Duration, u32) {
        self.in_row = if lived >= HEALTHY { 1 } else { self.in_row.saturating_add(1) };
        let doublings = self.in_row.saturating_sub(1).min(8);
        ((FIRST * 2_u32.pow(doublings)).min(MAX), self.in_row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_until_it_has_lived() {
        let mut deaths = Deaths::default();
        let young = Duration::from_secs(1);
        let waits: Vec<_> = (0..7).map(|_| deaths.another(young).0.as_millis()).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
        assert_eq!(deaths.another(HEALTHY), (FIRST, 1));
        assert_eq!(deaths.another(young), (FIRST * 2, 2));
    }
}
