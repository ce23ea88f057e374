//! [`Extension`]: when a store of another session library writes a later end.
//!
//! Those libraries move the end with each request that they save or extend, also if nothing else changed. Then each read
//! would be a write.

use std::time::{Duration, SystemTime};

use pg_session::{Session, SessionManager};

/// A later end is written once it moves the stored one by this much, if nothing is set.
const STEP: Duration = Duration::from_secs(60);
/// And at the latest when this part of the lifetime is lost otherwise.
const PARTS: u32 = 10;

/// For the stores of the edges: how far behind a session's stored end may stay.
#[derive(Clone, Copy, Debug)]
pub struct Extension(Duration);

impl Default for Extension {
    fn default() -> Self {
        Self(STEP)
    }
}

impl Extension {
    /// Writes a later end once it moves the stored one by `step`. Zero: with each request.
    #[must_use]
    pub fn every(step: Duration) -> Self {
        Self(step)
    }

    /// Whether `end` has to be written: it is earlier than the stored one, or later by the step or by a tenth of what is
    /// left.
    #[must_use]
    pub fn is_due(self, manager: &SessionManager, session: &Session, end: SystemTime) -> bool {
        let Ok(later) = end.duration_since(session.expires_at()) else { return true };
        let left = end.duration_since(manager.database_time()).unwrap_or_default();
        later >= self.0.min(left / PARTS)
    }
}
