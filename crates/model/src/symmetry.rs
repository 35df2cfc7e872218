//! Servers are alike, and so are executors: of states that differ in who is who, one is looked at. Of tokens it matters only
//! which are the same, and of versions which is newer, so both are counted anew in every state.
//!
//! So a counterexample may change names on its way.

use crate::row::{Row, Standing, Token};
use crate::{Cache, State};

impl State {
    /// The first of the states that are this one by other names.
    pub(crate) fn representative(mut self) -> State {
        self.rename_versions();
        let mut first = None;
        for _ in 0..2 {
            self.servers.reverse();
            for _ in 0..2 {
                self.swap_executors();
                let mut named = self.clone();
                named.rename_tokens();
                first = Some(first.map_or(named.clone(), |first: State| first.min(named)));
            }
        }
        first.unwrap_or(self)
    }

    /// A token that is not in use.
    pub(crate) fn draw(&self) -> Token {
        let mut fresh = 0;
        self.clone().each_token(|token| fresh = fresh.max(token.0 + 1));
        Token(fresh)
    }

    fn swap_executors(&mut self) {
        self.sessions.reverse();
        self.each_row(|row| {
            for attempt in row.attempts.iter_mut().flatten() {
                if let Standing::Live(executor) = &mut attempt.standing {
                    *executor ^= 1;
                }
            }
        });
        for server in &mut self.servers {
            server.ended.reverse();
            if let Some((executor, _)) = &mut server.doubt {
                *executor ^= 1;
            }
        }
    }

    fn rename_versions(&mut self) {
        let mut versions = Vec::new();
        self.each_row(|row| versions.push(row.version));
        versions.sort_unstable();
        versions.dedup();
        self.each_row(|row| row.version = rank(&versions, row.version));
    }

    fn rename_tokens(&mut self) {
        let mut names: Vec<Token> = Vec::new();
        self.each_token(|token| {
            let known = names.iter().position(|name| name == token);
            let name = known.unwrap_or_else(|| {
                names.push(*token);
                names.len() - 1
            });
            token.0 = u8::try_from(name).unwrap_or(u8::MAX);
        });
    }

    fn each_row(&mut self, mut change: impl FnMut(&mut Row)) {
        change(&mut self.row);
        for server in &mut self.servers {
            if let Cache::Held(row) = &mut server.cache {
                change(row);
            }
        }
    }

    fn each_token(&mut self, mut change: impl FnMut(&mut Token)) {
        self.each_row(|row| row.attempts.iter_mut().flatten().for_each(|attempt| change(&mut attempt.token)));
        for (_, token) in self.servers.iter_mut().filter_map(|server| server.doubt.as_mut()) {
            change(token);
        }
    }
}

fn rank(versions: &[u8], version: u8) -> u8 {
    let older = versions.iter().filter(|other| **other < version).count();
    u8::try_from(older).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use stateright::Model;

    use crate::{Protocol, State};

    fn next(state: &State) -> BTreeSet<State> {
        Protocol::default().next_steps(state).into_iter().map(|(_, next)| next).collect()
    }

    /// By other names the same comes of it: else what is passed over would matter.
    #[test]
    fn names_do_not_matter() {
        let mut waiting = VecDeque::from(Protocol::default().init_states());
        let mut seen: BTreeSet<State> = waiting.iter().cloned().collect();
        while let Some(state) = waiting.pop_front().filter(|_| seen.len() < 20_000) {
            let after = next(&state);
            let mut renamed = state.clone();
            renamed.swap_executors();
            assert_eq!(next(&renamed), after, "executors of {state:?}");
            renamed.servers.reverse();
            assert_eq!(next(&renamed), after, "servers of {state:?}");
            renamed.each_row(|row| row.version = row.version * 3 + 5);
            renamed.each_token(|token| token.0 = 90 - token.0 * 2);
            assert_eq!(next(&renamed), after, "versions and tokens of {state:?}");
            waiting.extend(after.into_iter().filter(|next| seen.insert(next.clone())));
        }
    }
}
