//! [`Padded`]: numbers as attributes, with padding of a random size. A small one is inline, a large one overflows, and
//! one in between is inline while the budget lasts. So each write may move an attribute between the two places.

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// `[17,"xxxx"]`.
#[derive(Serialize, Deserialize)]
pub(super) struct Padded<N>(pub N, String);

impl<N> Padded<N> {
    pub(super) fn new(number: N, rng: &mut Rng) -> Self {
        let bytes = match rng.below(100) {
            0..50 => 0,
            // The inline budget takes two of them.
            50..80 => 440,
            80..97 => 700,
            // TOASTed.
            _ => 5_000,
        };
        Self(number, "x".repeat(bytes))
    }
}
