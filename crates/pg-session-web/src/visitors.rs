//! Bounds on anonymous sessions: how fast a node creates them, and how long they live.
//!
//! Each client can send requests without a cookie. Each of them may create a row, so the number of such rows is bounded by
//! the product of both settings.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Default of [`anonymous_lifetime`](crate::SessionConfig::anonymous_lifetime).
pub(crate) const ANONYMOUS_LIFETIME: Duration = Duration::from_secs(4 * 3_600);
/// Default of [`anonymous_per_second`](crate::SessionConfig::anonymous_per_second).
pub(crate) const ANONYMOUS_PER_SECOND: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);

/// A bound on creations per second: at most that many at once, and then one for each fraction of the second.
#[derive(Debug)]
pub(crate) struct CreationLimit {
    /// Zero: no bound.
    per_second: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    /// When all creations so far would be over if they took equal parts of a second each.
    until: SystemTime,
    /// Whether the log says already that creations are refused.
    reported: bool,
}

impl CreationLimit {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, taken: Mutex::new(Taken { until: SystemTime::UNIX_EPOCH, reported: false }) }
    }

    /// Counts a creation. False if it is one too many; then it does not count.
    pub(crate) fn admit(&self, now: SystemTime) -> bool {
        let Some(part) = SECOND.checked_div(self.per_second) else { return true };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back must not refuse for as long as the step was.
        let waiting = taken.until.duration_since(now).unwrap_or(Duration::ZERO).min(SECOND);
        taken.until = now + waiting;
        if waiting + part > SECOND {
            if !std::mem::replace(&mut taken.reported, true) {
                tracing::warn!(
                    per_second = self.per_second,
                    "anonymous sessions are refused: too many in one second; raise `anonymous_per_second` if these are people"
                );
            }
            return false;
        }
        // One report for each time without a pause of a second.
        taken.reported &= waiting > Duration::ZERO;
        taken.until += part;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creations_are_limited_per_second() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let limit = CreationLimit::new(10);
        let admitted = |at: SystemTime| (0..100).filter(|_| limit.admit(at)).count();
        assert_eq!(admitted(start), 10, "at once");
        assert_eq!(admitted(start + Duration::from_millis(99)), 0);
        assert_eq!(admitted(start + Duration::from_millis(500)), 5);
        assert_eq!(admitted(start + Duration::from_secs(3_600)), 10, "no more after a pause");
        assert_eq!(admitted(start), 0, "the clock was set back");
        assert_eq!(admitted(start + SECOND), 10, "for a second at most");
    }

    #[test]
    fn zero_is_no_limit() {
        let limit = CreationLimit::new(0);
        assert!((0..100_000).all(|_| limit.admit(SystemTime::UNIX_EPOCH)));
        let limit = CreationLimit::new(u32::MAX);
        assert!((0..1_000).all(|_| limit.admit(SystemTime::UNIX_EPOCH)));
    }
}
