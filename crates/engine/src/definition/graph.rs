//! Needs as a graph. Sets of steps are bits of a `u64` ([`super::limits::STEPS`]).

/// For each step, the steps that are done before it: its needs, what these need, and so on. A step in a cycle has its own bit.
pub(super) fn reach(needs: &[Vec<usize>]) -> Vec<u64> {
    let bits = |needs: &Vec<usize>| needs.iter().fold(0, |set, need| set | 1 << need);
    let mut reach: Vec<u64> = needs.iter().map(bits).collect();
    for through in 0..reach.len() {
        let beyond = reach[through];
        for set in &mut reach {
            if *set >> through & 1 == 1 {
                *set |= beyond;
            }
        }
    }
    reach
}

/// One shortest cycle of every knot of steps that need each other, each from its first step on.
pub(super) fn cycles(needs: &[Vec<usize>], reach: &[u64]) -> Vec<Vec<usize>> {
    let mut seen = 0u64;
    let mut cycles = Vec::new();
    for start in 0..needs.len() {
        if reach[start] >> start & 1 == 0 || seen >> start & 1 == 1 {
            continue;
        }
        let knot =
            (0..needs.len()).filter(|step| reach[start] >> step & 1 == 1 && reach[*step] >> start & 1 == 1);
        seen |= knot.fold(0, |set, step| set | 1 << step);
        cycles.push(shortest(needs, start));
    }
    cycles
}

/// The shortest way from `start` along needs back to it, which exists.
fn shortest(needs: &[Vec<usize>], start: usize) -> Vec<usize> {
    let mut came_from: Vec<Option<usize>> = vec![None; needs.len()];
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(step) = queue.pop_front() {
        for &need in &needs[step] {
            if need == start {
                let mut way = vec![step];
                while let Some(previous) = came_from[way[way.len() - 1]] {
                    way.push(previous);
                }
                way.reverse();
                return way;
            }
            if came_from[need].is_none() {
                came_from[need] = Some(step);
                queue.push_back(need);
            }
        }
    }
    vec![start]
}
