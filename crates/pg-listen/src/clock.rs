//! The one place of the crate that reads the clock.
//!
//! `as_of` is compared by users with their own monotonic reading, so it must be the real monotonic clock and
//! not a coarse one kept by a task: a task's clock goes stale in a starved process, exactly when it matters.

use std::time::Instant;

/// The monotonic time of now.
#[allow(clippy::disallowed_methods, reason = "this is the crate's clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
