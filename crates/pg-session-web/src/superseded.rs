//! [`Superseded`]: sessions that clients have logged out of on this node, or that this node has replaced by another.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use pg_session::SessionId;

/// Sessions that are remembered, at most. The oldest are forgotten first.
const SUPERSEDED_MAX: usize = 4_096;

/// A response that removes a cookie must not arrive after the one that has replaced it. So a
/// request in flight at the same time does not remove the cookie of a session that is in here.
#[derive(Debug, Default)]
pub(crate) struct Superseded(Mutex<VecDeque<SessionId>>);

impl Superseded {
    /// To be called before the session ends or is replaced.
    pub(crate) fn add(&self, id: SessionId) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() == SUPERSEDED_MAX {
            ids.pop_front();
        }
        ids.push_back(id);
    }

    /// Looked at only by requests that have found their session gone.
    pub(crate) fn contains(&self, id: SessionId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}
