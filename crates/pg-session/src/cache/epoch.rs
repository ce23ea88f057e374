//! [`Epoch`]: which loss of the connection, and which drop of all sessions, an entry is younger than.

/// When a record was known to be the database's. The high half is the generation, the low half the
/// state of the listening connection.
///
/// A start and a loss of listening each add one to the low half. It is odd while the node listens. An entry of
/// another connection may have missed something and is verified. `remove_all` adds one to the generation. An entry of
/// an earlier generation is never served and never verified. One comparison of a hit covers both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Epoch(pub(super) u64);

impl Epoch {
    /// What `remove_all` adds.
    pub(super) const GENERATION: u64 = 1 << 32;

    pub(super) fn is_listening(self) -> bool {
        self.0 % 2 == 1
    }

    pub(crate) fn is_of_generation(self, other: Self) -> bool {
        self.0 / Self::GENERATION == other.0 / Self::GENERATION
    }
}
