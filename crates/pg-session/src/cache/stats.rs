//! What the cache has seen, counted without a shared cache line: a hit must not make two cores take turns.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the manager's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
#[non_exhaustive]
pub struct CacheStats {
    /// Reads answered from memory.
    pub hits: u64,
    /// Reads that went to the database.
    pub misses: u64,
    /// Reads of sessions that are known to have ended. They cost no query. They count neither as hits nor as misses.
    pub ended: u64,
    /// Loaded or written sessions that were put into memory.
    pub fills: u64,
    /// Loaded or written sessions that were not, because an invalidation or a lost connection came between.
    pub rejected_fills: u64,
    /// Invalidations that this node has handled, its own included.
    pub invalidations: u64,
    /// Sessions in memory now.
    pub sessions: usize,
    /// Bytes that these count for, at most [`cache_bytes_max`](crate::Config::cache_bytes_max). A session counts for its keys and
    /// values and 450 bytes, rounded up to a multiple of `cache_bytes_max / cache_sessions_max`.
    pub bytes: u64,
}

#[derive(Clone, Copy)]
pub(crate) enum Count {
    Hit,
    Miss,
    Ended,
    Install,
    Refusal,
    Invalidation,
}

const KINDS: usize = 6;
const CELLS: usize = 16;

/// One cell per few threads, each on a cache line of its own.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Cell {
    counts: [AtomicU64; KINDS],
    /// Answers from memory that were not observed yet.
    unobserved: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    cells: [Cell; CELLS],
    /// One answer from memory in so many is observed; 0 for none.
    observed_part: u64,
}

thread_local! {
    static CELL: usize = {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        usize::try_from(NEXT.fetch_add(1, Ordering::Relaxed) % CELLS as u64).unwrap_or(0)
    };
}

impl Stats {
    pub(super) fn observing(one_in: u32) -> Self {
        Self { observed_part: u64::from(one_in), ..Self::default() }
    }

    #[inline]
    pub(super) fn add(&self, count: Count) {
        let cell = CELL.with(|cell| *cell);
        self.cells[cell].counts[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer from memory. Returns whether it is to be observed.
    #[inline]
    pub(super) fn add_answer(&self, count: Count) -> bool {
        let cell = &self.cells[CELL.with(|cell| *cell)];
        cell.counts[count as usize].fetch_add(1, Ordering::Relaxed);
        if self.observed_part == 0 {
            return false;
        }
        // Not atomic as a whole: threads that share the cell may lose a few, which observes a little later.
        let unobserved = cell.unobserved.load(Ordering::Relaxed) + 1;
        let is_due = unobserved >= self.observed_part;
        cell.unobserved.store(if is_due { 0 } else { unobserved }, Ordering::Relaxed);
        is_due
    }

    pub(super) fn snapshot(&self, sessions: usize, bytes: u64) -> CacheStats {
        let sum = |count: Count| {
            self.cells.iter().map(|cell| cell.counts[count as usize].load(Ordering::Relaxed)).sum()
        };
        CacheStats {
            hits: sum(Count::Hit),
            misses: sum(Count::Miss),
            ended: sum(Count::Ended),
            fills: sum(Count::Install),
            rejected_fills: sum(Count::Refusal),
            invalidations: sum(Count::Invalidation),
            sessions,
            bytes,
        }
    }
}
