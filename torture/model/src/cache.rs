//! A node's memory of the one session: `crates/pg-session/src/cache`, function by function.
//!
//! There is one stripe and one slot. Each function is one step, because the real one holds the stripe's lock; only
//! `publish` takes it twice and is two functions here. What happens *inside* the functions is shuttle's business
//! (`tests/cache`), not the model's; so two checks of the library are not here, because the protocol does without:
//! `install` refuses to replace a higher version, and `verify` asks the stripe.

use arrayvec::ArrayVec;

use crate::guard::Guard;
use crate::policy::{Ending, Policy};
use crate::tally::Seen;
use crate::version::Version;

/// Invalidations that the stripe remembers one by one: two, where the library has four, to see some forgotten.
const REMEMBERED: usize = 2;

/// A row with its attributes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Record {
    pub version: Version,
    /// Whether the attributes are those of `version` (I6).
    pub whole: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ticket {
    pub(crate) sequence: u8,
    pub(crate) epoch: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot {
    pub record: Record,
    pub(crate) epoch: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Invalidation {
    version: Version,
    sequence: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Stripe {
    forgotten: u8,
    /// Oldest first.
    remembered: ArrayVec<Invalidation, REMEMBERED>,
    /// The highest version seen since the write in flight began.
    writing: Option<Version>,
}

impl Stripe {
    fn note(&mut self, policy: &Policy, version: Version, sequence: u8) {
        if self.remembered.is_full() {
            let out = self.remembered.remove(0);
            if policy.holds(Guard::Forgotten) {
                self.forgotten = out.sequence;
            }
        }
        self.remembered.push(Invalidation { version, sequence });
    }

    fn see(&mut self, version: Version) {
        self.writing = self.writing.map(|seen| seen.max(version));
    }

    fn is_newest(&self, version: Version) -> bool {
        self.writing.is_none_or(|seen| seen <= version)
    }

    fn admits(&self, ticket: Ticket, version: Version) -> bool {
        self.forgotten <= ticket.sequence
            && self
                .remembered
                .iter()
                .all(|noted| noted.sequence <= ticket.sequence || noted.version <= version)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Cache {
    pub slot: Option<Slot>,
    stripe: Stripe,
    /// The last drop of the session's owner.
    dropped_at: u8,
    sequence: u8,
    unnamed: u8,
    epoch: u8,
    /// The highest version that an invalidation has named. Not in the library: I1 is judged by it.
    pub handled: Version,
    /// Whether an entry was kept that was read or written while disconnected. Not in the library either.
    pub kept_without_listener: bool,
}

impl Cache {
    /// Listening, and nothing in memory.
    pub(crate) fn new() -> Self {
        Self {
            slot: None,
            stripe: Stripe::default(),
            dropped_at: 0,
            sequence: 0,
            unnamed: 0,
            epoch: 1,
            handled: Version::ABSENT,
            kept_without_listener: false,
        }
    }

    pub(crate) fn ticket(&self) -> Ticket {
        Ticket { sequence: self.sequence, epoch: self.epoch }
    }

    pub(crate) fn is_current(&self, policy: &Policy, ticket: Ticket) -> bool {
        (ticket.epoch == self.epoch || !policy.holds(Guard::JoinEpoch))
            && (self.unnamed <= ticket.sequence || !policy.holds(Guard::Unnamed))
            && self.stripe.admits(ticket, Version::ABSENT)
    }

    pub(crate) fn install(&mut self, policy: &Policy, ticket: Ticket, record: Record) -> bool {
        let version = record.version;
        if policy.holds(Guard::Writing) {
            self.stripe.see(version);
        }
        let old = self.slot.map(|slot| slot.record.version);
        let admitted = (is_listening(ticket.epoch) || !policy.holds(Guard::Listening))
            && ticket.epoch / GENERATION == self.epoch / GENERATION
            && self.stripe.is_newest(version)
            && (self.stripe.admits(ticket, version) || !policy.holds(Guard::FillTicket));
        if admitted && self.put(policy, ticket, record) {
            self.kept_without_listener |= !is_listening(ticket.epoch);
            policy.tally.add(if ticket.epoch == self.epoch { Seen::Install } else { Seen::InstallAfterLoss });
            return true;
        }
        policy.tally.add(Seen::Refusal);
        if policy.holds(Guard::SeenDropsLower) && old.is_some_and(|old| old < version) {
            self.take();
        }
        false
    }

    pub(crate) fn begin_write(&mut self) {
        self.stripe.writing = Some(Version::ABSENT);
    }

    /// The drop of `Writing`.
    pub(crate) fn end_write(&mut self) {
        self.stripe.writing = None;
    }

    /// The first half of `publish`; the second is [`install`](Cache::install).
    pub(crate) fn publish_note(&mut self, policy: &Policy, version: Version) {
        let sequence = self.next();
        if policy.holds(Guard::PublishNotes) {
            self.stripe.note(policy, version, sequence);
        }
    }

    pub(crate) fn invalidate(&mut self, policy: &Policy, version: Version) {
        let sequence = self.next();
        if policy.holds(Guard::Note) {
            let tombstone = version != Version::DELETED || policy.holds(Guard::Tombstone);
            let noted = if tombstone { version } else { self.slot_version() };
            self.stripe.note(policy, noted, sequence);
        }
        if self.slot_version() < version {
            self.take();
        }
        self.handled = self.handled.max(version);
    }

    pub(crate) fn remove(&mut self, policy: &Policy) {
        self.invalidate(policy, Version::DELETED);
    }

    pub(crate) fn mark_absent(&mut self, policy: &Policy) {
        let sequence = self.next();
        if policy.holds(Guard::Discard) {
            self.stripe.note(policy, Version::DELETED, sequence);
            self.handled = Version::DELETED;
        }
        self.take();
    }

    /// `remove_user` and `remove_group`, after all of the owner's sessions were deleted.
    pub(crate) fn remove_owner(&mut self, policy: &Policy) {
        let sequence = self.next();
        self.dropped_at = sequence;
        self.unnamed = sequence;
        // The index lists what is in memory, and nothing else.
        if self.slot.is_some() {
            self.remove(policy);
        }
        self.handled = Version::DELETED;
    }

    /// `remove_group`, of the group that the first update moved the session to. An entry of the first version is not in its
    /// index, and is not refused.
    pub(crate) fn remove_new_group(&mut self, policy: &Policy) {
        let sequence = self.next();
        self.dropped_at = sequence;
        self.unnamed = sequence;
        if self.slot.is_some_and(|slot| slot.record.version > Version::FIRST) {
            self.remove(policy);
        }
    }

    /// After all sessions were deleted. An entry of an earlier generation is never served, so here it is gone at once.
    pub(crate) fn remove_all(&mut self, policy: &Policy) {
        if policy.holds(Guard::Generation) {
            self.epoch += GENERATION;
        }
        self.take();
        self.handled = Version::DELETED;
    }

    pub(crate) fn stop_listening(&mut self) {
        if is_listening(self.epoch) {
            self.epoch += 1;
        }
    }

    pub(crate) fn start_listening(&mut self) {
        if !is_listening(self.epoch) {
            self.epoch += 1;
        }
    }

    pub(crate) fn is_listening(&self) -> bool {
        is_listening(self.epoch)
    }

    pub(crate) fn epoch(&self) -> u8 {
        self.epoch
    }

    pub(crate) fn is_unverified(&self) -> bool {
        self.slot.is_some_and(|slot| slot.epoch != self.epoch)
    }

    /// Whether an entry is older than `row` and is served once the node is trusted.
    pub(crate) fn is_outdated(&self, row: Version) -> bool {
        self.slot.is_some_and(|slot| slot.epoch == self.epoch && slot.record.version < row)
    }

    /// `found` is what the database held, asked under `ticket`.
    pub(crate) fn verify(&mut self, policy: &Policy, ticket: Ticket, found: Version) {
        let Some(slot) = self.slot.filter(|slot| slot.epoch < ticket.epoch) else { return };
        if found != slot.record.version && policy.holds(Guard::VerifyVersion) {
            policy.tally.add(Seen::Outdated);
            self.take();
            return;
        }
        policy.tally.add(Seen::Verified);
        self.put(policy, ticket, slot.record);
    }

    pub(crate) fn take(&mut self) {
        self.slot = None;
    }

    fn put(&mut self, policy: &Policy, ticket: Ticket, record: Record) -> bool {
        let is_of_owner = policy.bounds.ending != Some(Ending::NewGroup) || record.version > Version::FIRST;
        if is_of_owner && self.dropped_at > ticket.sequence && policy.holds(Guard::OwnerDropped) {
            return false;
        }
        let epoch = if policy.holds(Guard::TicketsEpoch) { ticket.epoch } else { self.epoch };
        self.slot = Some(Slot { record, epoch });
        true
    }

    fn next(&mut self) -> u8 {
        self.sequence += 1;
        self.sequence
    }

    fn slot_version(&self) -> Version {
        self.slot.map_or(Version::ABSENT, |slot| slot.record.version)
    }

    /// Renumbers the sequences, which only are compared, so that equal situations are equal states; and forgets the
    /// invalidations that are older than every ticket, which refuse no fill.
    pub(crate) fn canonical<'a>(&mut self, tickets: impl Iterator<Item = &'a mut Ticket>) {
        let mut tickets: ArrayVec<&mut Ticket, 3> = tickets.collect();
        let oldest = tickets.iter().map(|ticket| ticket.sequence).min().unwrap_or(self.sequence);
        self.stripe.remembered.retain(|noted| noted.sequence > oldest);
        let mut numbers: ArrayVec<&mut u8, 10> = ArrayVec::new();
        numbers.extend([
            &mut self.sequence,
            &mut self.stripe.forgotten,
            &mut self.dropped_at,
            &mut self.unnamed,
        ]);
        numbers.extend(self.stripe.remembered.iter_mut().map(|noted| &mut noted.sequence));
        numbers.extend(tickets.iter_mut().map(|ticket| &mut ticket.sequence));
        for number in &mut numbers {
            **number = oldest.max(**number);
        }
        numbers.sort_unstable();
        let (mut rank, mut last) = (0, oldest);
        for number in &mut numbers {
            if **number > last {
                (rank, last) = (rank + 1, **number);
            }
            **number = rank;
        }
    }
}

/// What `remove_all` adds to the epoch. The connections of a model's bounds are fewer.
const GENERATION: u8 = 32;

fn is_listening(epoch: u8) -> bool {
    epoch % 2 == 1
}
