//! Chance that can be repeated: SplitMix64, the same everywhere for the same seed.

use std::time::Duration;

/// Clone it to see the same future twice; fork it for another one.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another sequence, the same for the same `name`.
    pub fn fork(&self, name: u64) -> Self {
        let mut dice = Self(self.0 ^ name.wrapping_mul(0xd134_2543_de82_ef95));
        Self(dice.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `sides`, which is not 0.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    pub fn index(&mut self, sides: usize) -> usize {
        usize::try_from(self.roll(sides as u64)).unwrap_or(0)
    }

    /// Whether something happens that does so `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    /// From `low` to `high` milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(low + self.roll(high - low + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same() {
        let throw = |mut dice: Dice| (0..8).map(|_| dice.roll(1_000)).collect::<Vec<_>>();
        let dice = Dice::new(7);
        assert_eq!(throw(dice.clone()), throw(dice.clone()));
        assert_eq!(throw(dice.fork(1)), throw(dice.fork(1)));
        assert_ne!(throw(dice.fork(1)), throw(dice.fork(2)));
    }
}
