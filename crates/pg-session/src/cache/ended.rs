//! Sessions that have ended, as far as the node remembers them: a read of one costs no query.
//!
//! An id is never used again, so an end is final. But a load that finds no row may be wrong about that:
//!
//! ```text
//! other    BEGIN ── INSERT (an id that a client knows already) ─────────── COMMIT, NOTIFY
//! node             ticket ── SELECT (no row) ──────────────────── remember?
//! ```
//!
//! Two kinds of ids are known before the commit. One is the ids that the application moves from
//! another store (`Create::with_id`). The other is those of an SQL function in an open transaction.
//! Both creations notify. The notification forgets the id, and refuses the loads that began before
//! it, as it refuses a fill.
//!
//! A notification of a deletion is not remembered. Any role can send one, and it must not end a session.
//!
//! What is remembered is served under the conditions of a hit: in the epoch of its ticket, while the node is trusted.

use std::collections::VecDeque;

use super::epoch::Epoch;
use crate::clock::Tick;
use crate::id::SessionId;

/// Sessions that one stripe remembers: 65 536 in all. The oldest is forgotten first.
const ENDED_MAX: usize = 64;

/// The ended sessions of one stripe.
#[derive(Debug, Default)]
pub(super) struct Ended(VecDeque<Entry>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: SessionId,
    epoch: Epoch,
    until: Tick,
}

impl Ended {
    pub(super) fn remember(&mut self, id: SessionId, epoch: Epoch, until: Tick) {
        self.forget(id);
        if self.0.len() == ENDED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Entry { id, epoch, until });
    }

    pub(super) fn forget(&mut self, id: SessionId) {
        self.0.retain(|entry| entry.id != id);
    }

    /// Until when the session is known to have ended.
    pub(super) fn get(&self, id: SessionId, epoch: Epoch) -> Option<Tick> {
        self.0.iter().find(|entry| entry.id == id && entry.epoch == epoch).map(|entry| entry.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ended_session_is_forgotten_first() {
        let (epoch, until) = (Epoch::default(), Tick::from_nanos(7));
        let mut ended = Ended::default();
        let ids: Vec<SessionId> = (0..=ENDED_MAX).map(|_| SessionId::random()).collect();
        for &id in &ids {
            ended.remember(id, epoch, until);
            ended.remember(id, epoch, until);
        }
        assert_eq!(ended.0.len(), ENDED_MAX);
        assert_eq!(ended.get(ids[0], epoch), None);
        assert!(ids[1..].iter().all(|&id| ended.get(id, epoch) == Some(until)));
        assert_eq!(ended.get(ids[1], Epoch(1)), None, "not in another epoch");
        ended.forget(ids[1]);
        assert_eq!(ended.get(ids[1], epoch), None);
    }
}
