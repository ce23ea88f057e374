//! [`Capacity`]: how many sessions and how many bytes memory holds, in one sum.
//!
//! Memory has a place for each session that it may hold. A large session takes several places, so that all places together
//! bound the bytes as well.

use std::thread::available_parallelism;

use quick_cache::{Options, OptionsBuilder};

/// Bytes of a session in memory beside its keys and values.
const RECORD_BYTES: u64 = 450;
/// Largest sessions for which each shard has room, at least.
const LARGEST_PER_SHARD: u64 = 8;
/// Shards for each processor, if each has room for so many of the largest sessions.
const SHARDS_PER_PROCESSOR: usize = 4;

/// What memory holds at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    pub(crate) sessions_max: usize,
    pub(crate) bytes_max: usize,
    /// Keys and values of the largest session.
    pub(crate) session_bytes_max: usize,
}

/// Counts the places of an entry.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) bytes_each: u64,
}

impl Places {
    /// Of a session whose keys and values have so many bytes.
    pub(super) fn of(&self, attribute_bytes: usize) -> u64 {
        (RECORD_BYTES + as_u64(attribute_bytes)).div_ceil(self.bytes_each)
    }
}

impl Capacity {
    pub(super) fn places(self) -> Places {
        // A place has room for an empty session: so many bytes are needed for so many sessions.
        Places { bytes_each: (as_u64(self.bytes_max) / as_u64(self.sessions_max).max(1)).max(RECORD_BYTES) }
    }

    /// Memory is divided into shards, each with an equal part of the places. A session that has no room in its shard would
    /// never be in memory.
    pub(super) fn options(self) -> Options {
        let largest = self.places().of(self.session_bytes_max);
        let places =
            (as_u64(self.bytes_max) / self.places().bytes_each).min(as_u64(self.sessions_max)).max(1);
        let most = available_parallelism().map_or(1, usize::from) * SHARDS_PER_PROCESSOR;
        let shards = usize::try_from(places / (largest * LARGEST_PER_SHARD)).unwrap_or(most).clamp(1, most);
        // It takes powers of two, and rounds others up: here only if each of them has room for large sessions.
        let shards = if shards == most { most } else { 1 << shards.ilog2() };
        let options = OptionsBuilder::new()
            .estimated_items_capacity(self.sessions_max)
            .weight_capacity(places)
            .shards(shards)
            .build();
        // Both capacities are given.
        #[allow(clippy::expect_used, reason = "it fails for missing capacities only")]
        options.expect("capacities")
    }
}

/// So many small sessions.
impl From<usize> for Capacity {
    fn from(sessions_max: usize) -> Self {
        let small = 1_024;
        Self { sessions_max, bytes_max: sessions_max.saturating_mul(small), session_bytes_max: small / 2 }
    }
}

fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_bound_sessions_and_bytes() {
        const KIB: usize = 1_024;
        let places =
            Capacity { sessions_max: 100, bytes_max: 1_000 * KIB, session_bytes_max: 64 * KIB }.places();
        assert_eq!((places.of(0), places.of(9 * KIB)), (1, 1));
        assert_eq!((places.of(10 * KIB), places.of(64 * KIB)), (2, 7));
        // Fewer bytes than so many empty sessions need.
        let small = Capacity { sessions_max: 100, bytes_max: 4_500, session_bytes_max: 100 };
        assert_eq!(small.places().of(0), 1);
        assert_eq!(small.places().of(100), 2);
    }
}
