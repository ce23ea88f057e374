//! [`Observed`]: the last ends of sessions on any node, and this node's trust, for the console.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use pg_session::{Cause, Event, Events};

use crate::shared::rfc3339;

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

/// Nothing for what happens with each login.
fn describe(event: &Event) -> Option<(String, Option<Cause>)> {
    Some(match event {
        Event::Ended { session, user: None, cause } => (format!("session {session} ended"), Some(*cause)),
        Event::Ended { session, user: Some(user), cause } => {
            (format!("session {session} of user {user} ended"), Some(*cause))
        }
        Event::UserEnded { user, cause } => (format!("sessions of user {user} ended"), Some(*cause)),
        Event::GroupEnded { group, cause } => (format!("sessions of group {group} ended"), Some(*cause)),
        Event::AllEnded { cause } => ("all sessions ended".to_owned(), Some(*cause)),
        Event::Trusted => ("this node answers from memory".to_owned(), None),
        Event::Untrusted => ("this node reads from PostgreSQL; it may miss ends".to_owned(), None),
        Event::Lagged(lost) => (format!("{lost} events were lost"), None),
        _ => return None,
    })
}
