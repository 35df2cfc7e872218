//! Splits what is to be sent into calls that the server reads.

use crate::config::{CALL_BYTES, CALL_ITEMS};

/// Takes from the front of `items` as many as fit into one call, and at least one.
pub(crate) fn take_call<T>(items: &mut Vec<T>, size: impl Fn(&T) -> usize) -> Vec<T> {
    let mut bytes = 0;
    let fits = items.iter().take(CALL_ITEMS).take_while(|item| {
        // A nested message costs its tag and length besides itself.
        bytes += size(item) + 8;
        bytes <= CALL_BYTES
    });
    let count = fits.count().max(1).min(items.len());
    let rest = items.split_off(count);
    std::mem::replace(items, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_stay_within_their_budget_and_keep_the_order() {
        let third = CALL_BYTES / 3;
        let rows: [(Vec<usize>, &[usize]); 6] = [
            (vec![], &[0]),
            (vec![1; 10], &[10]),
            (vec![third; 5], &[2, 2, 1]),
            (vec![CALL_BYTES * 2, 1, 1], &[1, 2]),
            (vec![1, CALL_BYTES * 2, 1], &[1, 1, 1]),
            (vec![0; CALL_ITEMS + 1], &[CALL_ITEMS, 1]),
        ];
        for (sizes, counts) in rows {
            let mut items: Vec<(usize, usize)> = sizes.into_iter().enumerate().collect();
            let all = items.clone();
            let mut calls = vec![take_call(&mut items, |item| item.1)];
            while !items.is_empty() {
                calls.push(take_call(&mut items, |item| item.1));
            }
            assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), counts);
            assert_eq!(calls.concat(), all);
        }
    }
}
