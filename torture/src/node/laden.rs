//! Numbers as attributes, with a load: what is light is in the session's row, what is heavy in a row of its own, and
//! what is in between does so as long as there is room. So each write may move an attribute from one place to the other.

use serde::{Deserialize, Serialize};

use crate::dice::Dice;

/// `[17,"xxxx"]`.
#[derive(Serialize, Deserialize)]
pub(super) struct Laden<N>(pub N, String);

impl<N> Laden<N> {
    pub(super) fn new(number: N, dice: &mut Dice) -> Self {
        let bytes = match dice.roll(100) {
            0..50 => 0,
            // Two of them find room, a third or fourth does not.
            50..80 => 440,
            80..97 => 700,
            // Out of line.
            _ => 5_000,
        };
        Self(number, "x".repeat(bytes))
    }
}
