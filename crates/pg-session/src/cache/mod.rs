//! The node's memory of sessions: what is in it, and what may enter it.
//!
//! - I1 no entry is older than an invalidation handled after its fill began: fills need a [`Ticket`].
//! - I2 versions never go backwards: an install never replaces a higher version, and seeing a higher one removes a lower.
//!
//! Lock order: a stripe, then a shard of an index, then (inside quick_cache) a shard of the slots. No lock is held
//! across an `.await`; readers take none of these but the slot's shard, shared.
//!
//! Whether a hit may be *served* is not decided here but by the trust window; see `invalidation::trust`.

mod capacity;
mod ended;
mod epoch;
mod fill;
mod index;
mod stats;
#[cfg(shuttle)]
mod steps;
mod sync;
#[cfg(test)]
mod tests;

use std::sync::PoisonError;
use std::time::Duration;

use quick_cache::sync::Cache as Slots;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};
use uuid::Uuid;

pub(crate) use self::capacity::Capacity;
use self::capacity::Places;
pub(crate) use self::epoch::Epoch;
use self::fill::Stripe;
pub(crate) use self::fill::Ticket;
use self::index::Index;
pub use self::stats::CacheStats;
pub(crate) use self::stats::Count;
use self::stats::Stats;
use self::sync::{AtomicU64, Mutex, MutexGuard, Ordering, STRIPES};
use crate::clock::{DbTime, Tick};
use crate::failpoints::{Guard, Probes};
use crate::id::{GroupId, SessionId, UserId};
use crate::session::record::{Record, Revision, SharedRecord};
use crate::version::Version;

/// Entries that one step of [`Dropping`] removes.
const DROPPED_MAX: usize = 1_024;

/// The sessions in memory.
pub(crate) struct Cache {
    slots: Slots<SessionId, Slot, Places, DefaultHashBuilder, Collect>,
    /// Of one place of `slots`.
    place_bytes: u64,
    stripes: Box<[Mutex<Stripe>]>,
    users: Index,
    groups: Index,
    /// Numbers the invalidations.
    sequence: AtomicU64,
    /// The sequence of the last invalidation that named no session.
    unnamed: AtomicU64,
    /// The bits of the present [`Epoch`].
    epoch: AtomicU64,
    lifetime: Duration,
    stats: Stats,
    probes: Probes,
}

/// One entry. Cloned out on every hit, so it is small.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) record: SharedRecord,
    /// The epoch in which the record was last known to be the database's: its ticket's, not that of its arrival.
    pub(crate) epoch: Epoch,
    /// Until when the record can be served without reading its end, which would fetch another line
    /// from memory.
    pub(crate) until: DbTime,
}

impl Weighter<SessionId, Slot> for Places {
    fn weight(&self, _: &SessionId, slot: &Slot) -> u64 {
        self.of(slot.record.attributes.bytes_max())
    }
}

/// Hands what was evicted or replaced to the caller, who takes it out of the indices.
#[derive(Clone, Debug)]
struct Collect;

impl Lifecycle<SessionId, Slot> for Collect {
    type RequestState = Vec<SharedRecord>;

    fn on_evict(&self, out: &mut Self::RequestState, _: SessionId, slot: Slot) {
        out.push(slot.record);
    }
}

impl Cache {
    pub(crate) fn new(capacity: impl Into<Capacity>, lifetime: Duration, probes: Probes) -> Self {
        let capacity: Capacity = capacity.into();
        let places = capacity.places();
        Self {
            place_bytes: places.bytes_each,
            slots: Slots::with_options(capacity.options(), places, DefaultHashBuilder::default(), Collect),
            stripes: (0..STRIPES).map(|_| Mutex::new(Stripe::new(probes.clone()))).collect(),
            users: Index::new(probes.clone()),
            groups: Index::new(probes.clone()),
            sequence: AtomicU64::new(0),
            unnamed: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            lifetime,
            stats: Stats::default(),
            probes,
        }
    }

    /// One answer from memory in so many is to be observed; 0 for none.
    pub(crate) fn observing(mut self, one_in: u32) -> Self {
        self.stats = Stats::observing(one_in);
        self
    }

    /// What is in memory for `id`, good or not.
    #[inline]
    pub(crate) fn get(&self, id: SessionId) -> Option<Slot> {
        self.slots.get(&id)
    }

    /// As [`get`](Cache::get), without counting as a use.
    pub(crate) fn peek(&self, id: SessionId) -> Option<Slot> {
        self.slots.peek(&id)
    }

    /// To be taken before the query leaves whose result is to be installed.
    pub(crate) fn ticket(&self) -> Ticket {
        // Acquire: an invalidation that is counted here has also dropped its entry, or will find the one we install.
        Ticket { sequence: self.sequence.load(Ordering::Acquire), epoch: self.epoch() }
    }

    /// Whether nothing that this node has received since `ticket` can concern `id`. Then a read
    /// that begins now may share a load in flight.
    pub(crate) fn is_current(&self, ticket: Ticket, id: SessionId) -> bool {
        ticket.epoch == self.epoch()
            && self.unnamed.load(Ordering::Acquire) <= ticket.sequence
            && self.stripe(id).admits(ticket, id, Version::ABSENT)
    }

    /// Puts a record that was read under `ticket` into memory, if nothing came between. Returns whether it did.
    ///
    /// If the connection was lost since, it enters with an earlier epoch, and is verified before it is served. What
    /// is read without a listener is not kept. Otherwise a node that never receives anything would fill its memory
    /// with entries that it cannot serve.
    pub(crate) fn install(&self, ticket: Ticket, record: &SharedRecord) -> bool {
        let (id, version) = (record.row.id, record.row.version);
        let mut stripe = self.stripe(id);
        stripe.see(id, version);
        stripe.ended.forget(id);
        let old = self.slots.peek(&id);
        if let Some(old) = &old {
            record.access.inherit(&old.record.access);
        }
        // A newer version in memory refuses an older one. An entry of an earlier epoch does not: the database
        // may have been restored since. A record that its ticket admits is what the database holds now.
        if old.as_ref().is_some_and(|old| old.record.row.version > version && old.epoch >= ticket.epoch) {
            self.count(Count::Refusal);
            return false;
        }
        let admitted = !self.probes.holds(Guard::FillTicket)
            || (ticket.epoch.is_listening()
                && ticket.epoch.is_of_generation(self.epoch())
                && stripe.is_newest(id, version)
                && stripe.admits(ticket, id, version));
        if admitted && self.put(ticket, record) {
            self.count(Count::Install);
            return true;
        }
        // I2: a caller that gets this record must not see a lower version here afterwards.
        // Another content of the same version is of another history of the database: the next read asks.
        if old.is_some_and(|old| {
            let (old, new) = (old.record.row.revision(), record.row.revision());
            old.version < new.version || (old.version == new.version && old != new)
        }) {
            self.take(id);
        }
        self.count(Count::Refusal);
        false
    }

    /// To be held from before a write's statement leaves until its outcome was published.
    pub(crate) fn begin_write(&self, id: SessionId) -> Writing<'_> {
        self.stripe(id).begin_write(id);
        Writing { cache: self, id }
    }

    /// Puts the outcome of an own commit into memory, if nothing came between; what is older goes in any case.
    pub(crate) fn publish(&self, ticket: Ticket, record: &SharedRecord) {
        let (id, version) = (record.row.id, record.row.version);
        // What is in flight and older is refused from here on. What is in memory is served until it is replaced: the
        // caller does not know of the commit yet.
        let mut stripe = self.stripe(id);
        stripe.note(id, version, self.next());
        if !self.probes.holds(Guard::PublishOrder) {
            self.put(ticket, record);
            return;
        }
        drop(stripe);
        self.install(ticket, record);
    }

    /// The database holds `version` of `id`: drops what is older, in memory and in flight.
    pub(crate) fn invalidate(&self, id: SessionId, version: Version) {
        let mut stripe = self.stripe(id);
        // First the stripe, then the entry, both under the stripe's lock. An install before both
        // has its entry dropped here. An install after both has a ticket that is too old.
        stripe.note(id, version, self.next());
        if self.slots.peek(&id).is_some_and(|slot| slot.record.row.version < version) {
            self.take(id);
        }
        self.stats.add(Count::Invalidation);
    }

    /// `id` does not exist any more.
    pub(crate) fn remove(&self, id: SessionId) {
        self.invalidate(id, Version::DELETED);
    }

    /// The database, asked under `ticket`, has no live session `id`. What is in memory has ended. So has what an
    /// update of this node has committed and not published. A caller that saw `None` keeps seeing `None`, although
    /// the delete itself has not been received.
    ///
    /// The end is remembered until `until`, if nothing came between that says otherwise.
    pub(crate) fn mark_absent(&self, ticket: Ticket, id: SessionId, until: Tick) {
        let mut stripe = self.stripe(id);
        stripe.remember_end(ticket, id, until);
        stripe.note(id, Version::DELETED, self.next());
        self.take(id);
    }

    /// The database, asked under `ticket`, has no row of `id` any more, and the memory neither.
    pub(crate) fn remember_end(&self, ticket: Ticket, id: SessionId, until: Tick) {
        self.stripe(id).remember_end(ticket, id, until);
    }

    /// The session may exist.
    pub(crate) fn forget_end(&self, id: SessionId) {
        self.stripe(id).ended.forget(id);
    }

    /// Until when the session is known to have ended.
    ///
    /// Whether that may be served is for the trust window to decide, as for a hit.
    pub(crate) fn ended(&self, id: SessionId) -> Option<Tick> {
        let stripe = self.stripe(id);
        stripe.ended.get(id, self.epoch())
    }

    /// Drops a user's sessions, step by step. From now on, loads that began earlier are refused.
    pub(crate) fn remove_user(&self, user: UserId) -> Dropping<'_> {
        self.remove_owner(&self.users, user.as_uuid())
    }

    /// Drops a group's sessions, as [`remove_user`](Cache::remove_user).
    pub(crate) fn remove_group(&self, group: GroupId) -> Dropping<'_> {
        self.remove_owner(&self.groups, group.as_uuid())
    }

    /// Drops everything, in memory and in flight, in constant time: what is of an earlier generation is not served.
    ///
    /// An entry is of its ticket's generation, so nothing that left before this can be served after it.
    /// [`unverified`](Cache::unverified) frees the memory.
    pub(crate) fn remove_all(&self) {
        if self.probes.holds(Guard::Generation) {
            self.epoch.fetch_add(Epoch::GENERATION, Ordering::AcqRel);
        }
        self.stats.add(Count::Invalidation);
    }

    /// The connection or events were lost. All that is in memory, or on its way there, may be
    /// outdated until it is verified.
    pub(crate) fn stop_listening(&self) {
        self.epoch
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |epoch| {
                Epoch(epoch).is_listening().then_some(epoch + 1)
            })
            .ok();
    }

    /// LISTEN is in force: what is read from here on may be kept.
    pub(crate) fn start_listening(&self) {
        self.epoch
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |epoch| {
                (!Epoch(epoch).is_listening()).then_some(epoch + 1)
            })
            .ok();
    }

    /// Whatever is in memory, or on its way there, may be outdated, although no connection was lost.
    pub(crate) fn begin_epoch(&self) {
        self.epoch
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |epoch| {
                Epoch(epoch).is_listening().then_some(epoch + 2)
            })
            .ok();
    }

    #[inline]
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// The ids that an earlier connection left in memory. Removes the entries that [`remove_all`](Cache::remove_all) left.
    ///
    /// It looks at each entry: with a million of them it is for a thread that may block. It holds no lock for longer
    /// than one entry takes.
    pub(crate) fn unverified(&self) -> Vec<SessionId> {
        let mut unverified = Vec::new();
        for (id, slot) in self.slots.iter() {
            let epoch = self.epoch();
            if !slot.epoch.is_of_generation(epoch) {
                self.remove_dropped(id);
            } else if slot.epoch != epoch {
                unverified.push(id);
            }
        }
        unverified
    }

    fn remove_dropped(&self, id: SessionId) {
        let dropped = self.slots.remove_if(&id, |slot| !slot.epoch.is_of_generation(self.epoch()));
        if let Some((id, slot)) = dropped {
            self.unindex(id, &slot.record);
        }
    }

    /// Brings one unverified entry into `ticket`'s epoch if the database, asked under that ticket,
    /// still holds its revision. Drops it otherwise. `found` is the database's revision and last
    /// access, or `None` if the session ended.
    pub(crate) fn verify(&self, ticket: Ticket, id: SessionId, found: Option<(Revision, DbTime)>) {
        // Under the stripe's lock, so that an invalidation comes before the look or after the entry.
        let _stripe = self.stripe(id);
        let Some(slot) = self.slots.peek(&id) else { return };
        if slot.epoch >= ticket.epoch {
            return; // loaded, published or verified since
        }
        if !slot.epoch.is_of_generation(ticket.epoch) {
            return self.take(id);
        }
        match found {
            Some((revision, last_accessed_at)) if revision == slot.record.row.revision() => {
                slot.record.access.confirm(last_accessed_at);
                self.put(ticket, &slot.record);
            }
            _ => self.take(id),
        }
    }

    pub(crate) fn count(&self, count: Count) {
        self.stats.add(count);
    }

    /// Counts an answer from memory. Returns whether it is to be compared with the database.
    #[inline]
    pub(crate) fn count_answer(&self, count: Count) -> bool {
        self.stats.add_answer(count)
    }

    pub(crate) fn stats(&self) -> CacheStats {
        self.stats.snapshot(self.slots.len(), self.slots.weight().saturating_mul(self.place_bytes))
    }

    /// Under the stripe's lock, index first, then slot. So a drop of the owner finds the entry or
    /// refuses it.
    fn put(&self, ticket: Ticket, record: &SharedRecord) -> bool {
        let row = &record.row;
        if let Some(user) = row.user_id
            && !self.users.add(user.as_uuid(), row.id, ticket)
        {
            return false;
        }
        if let Some(group) = row.group_id
            && !self.groups.add(group.as_uuid(), row.id, ticket)
        {
            if let Some(user) = row.user_id
                && self.probes.holds(Guard::IndexRollback)
            {
                self.users.remove(user.as_uuid(), row.id);
            }
            return false;
        }
        let until = record.enter_memory(self.lifetime);
        let slot = Slot { record: SharedRecord::clone(record), epoch: ticket.epoch, until };
        let mut out = Vec::new();
        self.slots.insert_with_lifecycle(row.id, slot, &mut out);
        for record in out {
            self.unindex(record.row.id, &record);
        }
        true
    }

    fn take(&self, id: SessionId) {
        if let Some((_, slot)) = self.slots.remove(&id) {
            self.unindex(id, &slot.record);
        }
    }

    fn unindex(&self, id: SessionId, record: &Record) {
        if let Some(user) = record.row.user_id {
            self.users.remove(user.as_uuid(), id);
        }
        if let Some(group) = record.row.group_id {
            self.groups.remove(group.as_uuid(), id);
        }
    }

    fn remove_owner<'a>(&'a self, index: &'a Index, owner: Uuid) -> Dropping<'a> {
        index.refuse_older(owner, || {
            let sequence = self.next();
            self.unnamed.fetch_max(sequence, Ordering::Release);
            sequence
        });
        self.stats.add(Count::Invalidation);
        Dropping { cache: self, index, owner, first: SessionId::MIN }
    }

    fn next(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn stripe(&self, id: SessionId) -> MutexGuard<'_, Stripe> {
        lock(&self.stripes[id.spread() % STRIPES])
    }
}

/// A write of this node in flight: what is shown of its session meanwhile is remembered.
#[must_use = "the write is in flight for as long as this lives"]
pub(crate) struct Writing<'a> {
    cache: &'a Cache,
    id: SessionId,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.cache.stripe(self.id).end_write(self.id);
    }
}

/// The sessions of a user or a group, which are dropped step by step. An owner may have any number
/// of them, and a thread of the runtime must not stall.
#[must_use = "the owner's sessions are dropped when the last step is done"]
pub(crate) struct Dropping<'a> {
    cache: &'a Cache,
    index: &'a Index,
    owner: Uuid,
    first: SessionId,
}

impl Dropping<'_> {
    /// Drops some of the sessions. Returns whether there may be more.
    pub(crate) fn step(&mut self) -> bool {
        let ids = self.index.list(self.owner, self.first, DROPPED_MAX);
        ids.iter().for_each(|&id| self.cache.remove(id));
        match ids.last() {
            // The first is dropped again, if it is there again.
            Some(&last) if ids.len() == DROPPED_MAX => {
                self.first = last;
                true
            }
            _ => false,
        }
    }
}

/// A stripe is consistent after every statement, so a panic elsewhere does not spoil it.
fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("stats", &self.stats())
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}
