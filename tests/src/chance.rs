//! Random choices that a seed brings back.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// A generator (splitmix64) that shows its seed.
#[derive(Clone, Debug)]
pub struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// A generator with the seed of `COOPER_FAULTS_SEED`, or a new one. The seed is printed, for a failed test's output.
    #[expect(clippy::disallowed_methods, reason = "the test harness leaves a test no other argument")]
    pub fn from_environment() -> Self {
        let given = std::env::var("COOPER_FAULTS_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(()) >> 32);
        let line = format!("COOPER_FAULTS_SEED={seed} plays these choices again\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        Self::new(seed)
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is at least one.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// A time within these bounds, in milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }
}
