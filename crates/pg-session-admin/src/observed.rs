//! [`Observed`]: the last ends of sessions on any node, and this node's trust, for the console.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use pg_session::{Cause, Events};

use crate::shared::{describe, rfc3339};

/// Events in memory. The oldest are forgotten first.
const EVENTS_MAX: usize = 200;

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) time: String,
    pub(crate) what: String,
    /// Why sessions have ended.
    pub(crate) cause: Option<Cause>,
}

#[derive(Debug, Default)]
pub(crate) struct Observed(Mutex<VecDeque<Seen>>);

impl Observed {
    /// Reads the events until the node ends.
    pub(crate) async fn run(&self, mut events: Events) {
        while let Some(event) = events.next().await {
            if let Some((what, cause)) = describe(&event) {
                self.add(Seen { time: rfc3339(SystemTime::now()), what, cause });
            }
        }
    }

    fn add(&self, seen: Seen) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == EVENTS_MAX {
            all.pop_front();
        }
        all.push_back(seen);
    }

    /// The newest first.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}
