//! The node's memory of sessions: what is in it, and what may enter it.
//!
//! - I1 no entry is older than an invalidation handled after its fill began: installs need a [`Ticket`].
//! - I2 versions never go backwards: an install never replaces a higher version, and seeing a higher one removes a lower.
//!
//! Lock order: a stripe, then a shard of an index, then (inside quick_cache) a shard of the slots. No lock is held
//! across an `.await`; readers take none of these but the slot's shard, shared.
//!
//! Whether a hit may be *served* is not decided here but by the trust window; see `invalidation::trust`.

mod fill;
mod index;
mod stats;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::sync::Cache as Slots;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};
use uuid::Uuid;

use self::fill::Stripe;
pub(crate) use self::fill::Ticket;
use self::index::Index;
pub use self::stats::CacheStats;
pub(crate) use self::stats::Count;
use self::stats::Stats;
use crate::clock::DbTime;
use crate::id::{GroupId, SessionId, UserId};
use crate::probes::{Guard, Probes};
use crate::session::record::{Record, Revision, SharedRecord};
use crate::version::Version;

const STRIPES: usize = 1_024;

/// The sessions in memory.
pub(crate) struct Cache {
    slots: Slots<SessionId, Slot, UnitWeighter, DefaultHashBuilder, Collect>,
    stripes: Box<[Mutex<Stripe>]>,
    users: Index,
    groups: Index,
    /// Numbers the invalidations.
    sequence: AtomicU64,
    /// The sequence of the last invalidation that named no session.
    unnamed: AtomicU64,
    /// Odd while the node listens. Each loss and each start of listening adds one, so records of another epoch may
    /// have missed something.
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
    pub(crate) epoch: u64,
    /// Until when the record can be served without a look at its end, which would fetch another line of it from memory.
    pub(crate) until: DbTime,
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
    pub(crate) fn new(sessions_max: usize, lifetime: Duration, probes: Probes) -> Self {
        let weight_max = u64::try_from(sessions_max).unwrap_or(u64::MAX);
        Self {
            slots: Slots::with(
                sessions_max,
                weight_max,
                UnitWeighter,
                DefaultHashBuilder::default(),
                Collect,
            ),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            users: Index::new(),
            groups: Index::new(),
            sequence: AtomicU64::new(0),
            unnamed: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            lifetime,
            stats: Stats::default(),
            probes,
        }
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

    /// Whether nothing that this node has heard since `ticket` can concern `id`: a load that is under way may still
    /// be shared by a read that begins now.
    pub(crate) fn is_current(&self, ticket: Ticket, id: SessionId) -> bool {
        ticket.epoch == self.epoch()
            && self.unnamed.load(Ordering::Acquire) <= ticket.sequence
            && self.stripe(id).admits(ticket, id, Version::ABSENT)
    }

    /// Puts a record that was read under `ticket` into memory, if nothing came between. Returns whether it did.
    ///
    /// If the connection was lost since, it enters as what it is: an entry of an earlier epoch, to be verified before it
    /// is served. What is read while nobody listens is not kept, or a node that never hears would fill its memory with
    /// what it cannot serve.
    pub(crate) fn install(&self, ticket: Ticket, record: &SharedRecord) -> bool {
        let (id, version) = (record.row.id, record.row.version);
        let mut stripe = self.stripe(id);
        stripe.see(id, version);
        let old = self.slots.peek(&id);
        if let Some(old) = &old {
            record.access.inherit(&old.record.access);
        }
        // A newer version in memory refuses an older one. An entry of an earlier epoch does not: the database
        // may have been restored since. A record that its ticket admits is what the database holds now.
        if old.as_ref().is_some_and(|old| old.record.row.version > version && old.epoch >= ticket.epoch) {
            return self.count(Count::Refusal, false);
        }
        let admitted = !self.probes.holds(Guard::FillTicket)
            || (is_listening(ticket.epoch)
                && stripe.is_newest(id, version)
                && stripe.admits(ticket, id, version));
        if admitted && self.put(ticket, record) {
            return self.count(Count::Install, true);
        }
        // I2: whoever gets this record must not meet a lower version here afterwards.
        // Another content of the same version is of another history of the database: the next read asks.
        if old.is_some_and(|old| {
            let (old, new) = (old.record.row.revision(), record.row.revision());
            old.version < new.version || (old.version == new.version && old != new)
        }) {
            self.take(id);
        }
        self.count(Count::Refusal, false)
    }

    /// To be held from before a write's statement leaves until its outcome was published.
    pub(crate) fn begin_write(&self, id: SessionId) -> Writing<'_> {
        self.stripe(id).begin_write(id);
        Writing { cache: self, id }
    }

    /// Puts the outcome of an own commit into memory, if nothing came between; what is older goes in any case.
    pub(crate) fn publish(&self, ticket: Ticket, record: &SharedRecord) {
        let (id, version) = (record.row.id, record.row.version);
        // What is under way and older is refused from here on. What is in memory is served until it is replaced: the
        // caller has not been told of the commit yet.
        let mut stripe = self.stripe(id);
        stripe.note(id, version, self.next());
        if !self.probes.holds(Guard::PublishOrder) {
            self.put(ticket, record);
            return;
        }
        drop(stripe);
        self.install(ticket, record);
    }

    /// The database holds `version` of `id`: drops what is older, in memory and under way.
    pub(crate) fn invalidate(&self, id: SessionId, version: Version) {
        let mut stripe = self.stripe(id);
        // First the stripe, then the entry, both under the stripe's lock: an install comes either before both, and
        // its entry is dropped here, or after both, and its ticket is too old.
        stripe.note(id, version, self.next());
        if self.slots.peek(&id).is_some_and(|slot| slot.record.row.version < version) {
            self.take(id);
        }
        self.stats.add(Count::Invalidation);
    }

    /// `id` does not exist any more.
    pub(crate) fn forget(&self, id: SessionId) {
        self.invalidate(id, Version::DELETED);
    }

    /// The database, asked by a load, knows no living session `id`: what is in memory has ended, and so has what an
    /// update of this node has committed and not published yet. Whoever was told "gone" stays told so, although the
    /// delete itself has not been heard.
    pub(crate) fn discard(&self, id: SessionId) {
        let mut stripe = self.stripe(id);
        stripe.note(id, Version::DELETED, self.next());
        self.take(id);
    }

    pub(crate) fn drop_user(&self, user: UserId) {
        self.drop_owner(&self.users, user.as_uuid());
    }

    pub(crate) fn drop_group(&self, group: GroupId) {
        self.drop_owner(&self.groups, group.as_uuid());
    }

    /// Drops everything, in memory and under way.
    pub(crate) fn drop_all(&self) {
        let sequence = self.next();
        self.unnamed.fetch_max(sequence, Ordering::Release);
        for stripe in &self.stripes {
            // An install that holds the stripe finishes first, and is drained below.
            lock(stripe).note_all(self.next());
        }
        for (id, slot) in self.slots.drain() {
            self.unindex(id, &slot.record);
        }
        self.stats.add(Count::Invalidation);
    }

    /// The connection was lost, or events were: whatever is in memory, or on its way there, may be outdated until it is
    /// looked at again.
    pub(crate) fn stop_listening(&self) {
        self.epoch
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |epoch| {
                is_listening(epoch).then_some(epoch + 1)
            })
            .ok();
    }

    /// LISTEN is in force: what is read from here on may be kept.
    pub(crate) fn start_listening(&self) {
        self.epoch
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |epoch| {
                (!is_listening(epoch)).then_some(epoch + 1)
            })
            .ok();
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The ids that an earlier epoch left in memory.
    pub(crate) fn unverified(&self) -> Vec<SessionId> {
        let epoch = self.epoch();
        self.slots.iter().filter(|(_, slot)| slot.epoch != epoch).map(|(id, _)| id).collect()
    }

    /// Brings one unverified entry into `ticket`'s epoch, if the database, asked under that ticket, still holds its
    /// revision; drops it otherwise. `found` is the database's revision and last access, or `None` if the session ended.
    pub(crate) fn verify(&self, ticket: Ticket, id: SessionId, found: Option<(Revision, DbTime)>) {
        let stripe = self.stripe(id);
        let Some(slot) = self.slots.peek(&id) else { return };
        if slot.epoch >= ticket.epoch {
            return; // loaded, published or verified since
        }
        match found {
            Some((revision, last_accessed_at)) if revision == slot.record.row.revision() => {
                slot.record.access.confirm(last_accessed_at);
                // `drop_all` drains without the stripe's lock: what it takes out after our look must not come back.
                if stripe.admits(ticket, id, revision.version) {
                    self.put(ticket, &slot.record);
                }
            }
            _ => self.take(id),
        }
    }

    pub(crate) fn count(&self, count: Count, outcome: bool) -> bool {
        self.stats.add(count);
        outcome
    }

    pub(crate) fn stats(&self) -> CacheStats {
        self.stats.snapshot(self.slots.len())
    }

    /// Under the stripe's lock: index first, then slot, so that a drop of the owner finds the entry or refuses it.
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
            if let Some(user) = row.user_id {
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

    fn drop_owner(&self, index: &Index, owner: Uuid) {
        let ids = index.drop_owner(owner, || {
            let sequence = self.next();
            self.unnamed.fetch_max(sequence, Ordering::Release);
            sequence
        });
        for id in ids {
            self.forget(id);
        }
        self.stats.add(Count::Invalidation);
    }

    fn next(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn stripe(&self, id: SessionId) -> MutexGuard<'_, Stripe> {
        lock(&self.stripes[id.spread() % STRIPES])
    }
}

/// A write of this node under way: what is shown of its session meanwhile is remembered.
#[must_use = "the write is under way for as long as this lives"]
pub(crate) struct Writing<'a> {
    cache: &'a Cache,
    id: SessionId,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.cache.stripe(self.id).end_write(self.id);
    }
}

fn is_listening(epoch: u64) -> bool {
    epoch % 2 == 1
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
