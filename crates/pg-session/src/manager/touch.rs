//! Counting an access after the read.

use super::SessionManager;
use crate::session::Session;

impl SessionManager {
    /// Counts as an access to the session, now. For callers that read with [`Get::no_touch`](crate::Get::no_touch), and
    /// decide later whether that was an access. It never waits, and is written as the access of a read is.
    pub fn touch(&self, session: &Session) {
        let policy = &self.0.core.policy;
        self.0.touches.touch(session.record(), policy, policy.clock.database_now());
    }
}
