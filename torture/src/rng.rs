//! [`Rng`]: SplitMix64. The same seed gives the same numbers everywhere.

use std::time::Duration;

/// A clone repeats the sequence; a fork starts another.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Starts another sequence, the same for the same `name`.
    pub fn fork(&self, name: u64) -> Self {
        let mut rng = Self(self.0 ^ name.wrapping_mul(0xd134_2543_de82_ef95));
        Self(rng.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap_or(0)
    }

    /// Returns true with a probability of `percent`.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns `low` to `high` milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(low + self.below(high - low + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |mut rng: Rng| (0..8).map(|_| rng.below(1_000)).collect::<Vec<_>>();
        let rng = Rng::new(7);
        assert_eq!(numbers(rng.clone()), numbers(rng.clone()));
        assert_eq!(numbers(rng.fork(1)), numbers(rng.fork(1)));
        assert_ne!(numbers(rng.fork(1)), numbers(rng.fork(2)));
    }
}
