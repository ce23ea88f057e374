//! Fill tickets: what closes the race between a load and an invalidation that overtakes it.
//!
//! ```text
//! node B   ticket ── SELECT (sees version 1) ───────────────────── install?
//! node A              UPDATE to 2, COMMIT, NOTIFY
//! node B                                     invalidation (id, 2)
//! ```
//!
//! Without a ticket, B would keep version 1 for as long as it is cached. With it, the install finds
//! an invalidation that is younger than the ticket and names a higher version. The row is returned
//! uncached.
//!
//! One counter numbers all invalidations of a node. A ticket is the counter's value *before the
//! query leaves*; a stripe remembers the last few invalidations of its ids. Invalidations have
//! versions, so a record that already contains the invalidated version may be kept. A node's own
//! notification, which arrives while the writer publishes, does not drop the new record.
//!
//! I1: no entry is older than an invalidation handled after its fill began.

use super::ended::Ended;
use super::epoch::Epoch;
use crate::clock::Tick;
use crate::failpoints::{Guard, Probes};
use crate::id::SessionId;
use crate::version::Version;

/// The right to install what a query returns, taken before the query leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket {
    pub(super) sequence: u64,
    pub(super) epoch: Epoch,
}

impl Ticket {
    /// A ticket that admits nothing: its record is judged, and not kept.
    pub(crate) fn void(self) -> Self {
        Self { epoch: Epoch::default(), ..self }
    }
}

/// Invalidations that a stripe remembers one by one. With 1 024 stripes and a few milliseconds
/// between ticket and install, more than four in one stripe are rare. They only cost a load.
const REMEMBERED: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Invalidation {
    id: SessionId,
    version: Version,
    sequence: u64,
}

/// The latest invalidations of the ids that fall on this stripe.
#[derive(Debug, Default)]
pub(super) struct Stripe {
    /// The sequence of the newest invalidation that is no longer remembered one by one.
    forgotten: u64,
    remembered: [Option<Invalidation>; REMEMBERED],
    oldest: usize,
    /// Sessions with a write of this node in flight, and the highest version of them seen since it began.
    ///
    /// ```text
    /// A   writes version 2, COMMIT ────────────────────────────────────── publish?
    /// B        writes version 3                                     (A has not received it)
    /// A              a read loads 3; 3 is evicted, or may not be kept
    /// ```
    ///
    /// Neither the cache nor an invalidation tells A's writer of 3 then, and version 2 would come back.
    writing: Vec<(SessionId, Version)>,
    pub(super) ended: Ended,
    probes: Probes,
}

impl Stripe {
    pub(super) fn new(probes: Probes) -> Self {
        Self { probes, ..Self::default() }
    }

    pub(super) fn note(&mut self, id: SessionId, version: Version, sequence: u64) {
        if version != Version::DELETED {
            self.ended.forget(id);
        }
        let invalidation = Invalidation { id, version, sequence };
        if let Some(out) = self.remembered[self.oldest].replace(invalidation) {
            debug_assert!(out.sequence > self.forgotten && out.sequence < sequence, "sequences grow");
            if self.probes.holds(Guard::Forgotten) {
                self.forgotten = out.sequence;
            }
        }
        self.oldest = (self.oldest + 1) % REMEMBERED;
    }

    pub(super) fn begin_write(&mut self, id: SessionId) {
        self.writing.push((id, Version::ABSENT));
    }

    pub(super) fn end_write(&mut self, id: SessionId) {
        if let Some(at) = self.writing.iter().position(|(writing, _)| *writing == id) {
            self.writing.swap_remove(at);
        }
    }

    /// A caller on this node sees `version` of `id`.
    pub(super) fn see(&mut self, id: SessionId, version: Version) {
        for (_, seen) in self.writing.iter_mut().filter(|(writing, _)| *writing == id) {
            *seen = version.max(*seen);
        }
    }

    /// Whether no reader was shown more than `version` of `id` since its write began.
    pub(super) fn is_newest(&self, id: SessionId, version: Version) -> bool {
        self.writing.iter().all(|&(writing, seen)| writing != id || seen <= version)
    }

    /// Whether a record of `version`, read under `ticket`, contains every invalidation of `id` since.
    pub(super) fn admits(&self, ticket: Ticket, id: SessionId, version: Version) -> bool {
        self.all_since(ticket, id, |invalidated| invalidated <= version)
    }

    /// Remembers that `id` has ended, as a statement under `ticket` has seen, if nothing since says otherwise.
    pub(super) fn remember_end(&mut self, ticket: Ticket, id: SessionId, until: Tick) {
        let admitted = self.admits_absence(ticket, id) || !self.probes.holds(Guard::EndedTicket);
        if admitted && ticket.epoch.is_listening() {
            self.ended.remember(id, ticket.epoch, until);
        }
    }

    /// Whether nothing since `ticket` says that `id` exists.
    fn admits_absence(&self, ticket: Ticket, id: SessionId) -> bool {
        self.all_since(ticket, id, |invalidated| invalidated == Version::DELETED)
    }

    /// Whether all invalidations of `id` since `ticket` are known, and of a version that `admits` accepts.
    fn all_since(&self, ticket: Ticket, id: SessionId, admits: impl Fn(Version) -> bool) -> bool {
        self.forgotten <= ticket.sequence
            && self.remembered.iter().flatten().all(|invalidation| {
                invalidation.sequence <= ticket.sequence
                    || invalidation.id != id
                    || admits(invalidation.version)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(sequence: u64) -> Ticket {
        Ticket { sequence, epoch: Epoch::default() }
    }

    #[test]
    fn only_a_younger_invalidation_with_a_higher_version_refuses() {
        let (id, other) = (SessionId::random(), SessionId::random());
        let mut stripe = Stripe::default();
        stripe.note(id, Version::new(5), 10);
        assert!(!stripe.admits(ticket(9), id, Version::new(4)));
        assert!(stripe.admits(ticket(9), id, Version::new(5)), "the record contains it");
        assert!(stripe.admits(ticket(10), id, Version::new(4)), "the query left after it");
        assert!(stripe.admits(ticket(9), other, Version::new(1)), "not about this session");
        stripe.note(id, Version::DELETED, 11);
        assert!(!stripe.admits(ticket(10), id, Version::new(6)), "nothing is as new as a deletion");
        assert!(stripe.admits_absence(ticket(10), id), "a deletion agrees with it");
        assert!(!stripe.admits_absence(ticket(9), id), "version 5 may have come after the look");
    }

    #[test]
    fn forgotten_invalidation_refuses_all_older_tickets() {
        let (id, other) = (SessionId::random(), SessionId::random());
        let mut stripe = Stripe::default();
        stripe.note(id, Version::new(5), 10);
        for sequence in 11..=14 {
            stripe.note(other, Version::new(2), sequence);
        }
        assert!(!stripe.admits(ticket(9), id, Version::new(4)));
        assert!(!stripe.admits(ticket(9), SessionId::random(), Version::new(4)));
        assert!(stripe.admits(ticket(10), id, Version::new(4)));
        assert!(!stripe.admits_absence(ticket(9), SessionId::random()));
    }
}
