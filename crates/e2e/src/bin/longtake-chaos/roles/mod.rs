//! What a chaos run starts as processes of their own: this same program under a hidden command, with its plan as JSON.

pub mod client;
pub mod executor;
pub mod liar;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a role is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Its name, and that of its life: no two processes share one.
    pub name: String,
    /// Where the servers are, as it reaches them.
    pub servers: Vec<String>,
    /// The file of its journal.
    pub journal: PathBuf,
    pub seed: u64,
    /// Runs a second, for a client; slots, for an executor.
    pub many: usize,
}

/// Chance that follows from a seed: small, and good enough to choose with (Steele, Lea, Flood: SplitMix, 2014).
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or_default()
    }

    /// True so many times in a thousand.
    pub fn permille(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }
}
