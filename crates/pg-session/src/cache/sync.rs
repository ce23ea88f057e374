//! The locks and atomics of the cache. Under `cfg(shuttle)` a scheduler owns them: `torture/model/cache` runs this
//! very code in many orders of its steps. No other build sets that `cfg`.
//!
//! The counters of `stats` are not among them. No decision of the cache depends on a counter.

#[cfg(not(shuttle))]
pub(super) use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(shuttle))]
pub(super) use std::sync::{Mutex, MutexGuard};

#[cfg(shuttle)]
pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};
#[cfg(shuttle)]
pub(super) use shuttle::sync::{Mutex, MutexGuard};

/// Two stripes under the scheduler, so that sessions share them often.
pub(super) const STRIPES: usize = if cfg!(shuttle) { 2 } else { 1_024 };
/// Shards of each index, likewise.
pub(super) const SHARDS: usize = if cfg!(shuttle) { 2 } else { 64 };
