//! The one place of the crate that reads the clock.
//!
//! Users compare `as_of` with their own monotonic reading. So it must be the real monotonic clock,
//! not a coarse one that a task keeps. A task's clock stops in a starved process, exactly when it
//! matters.

use std::time::Instant;

/// The monotonic time of now.
#[allow(clippy::disallowed_methods, reason = "this is the crate's clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
