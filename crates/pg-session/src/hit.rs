//! What the memory may answer, and when.
//!
//! I3 rests on the order of the steps: the end of trust, the memory, the clock; see `invalidation::trust`.

use crate::cache::Slot;
use crate::clock::DbTime;
use crate::core::Core;
use crate::failpoints::Guard;
use crate::id::SessionId;
use crate::invalidation::trust::Trust;
use crate::session::record::SharedRecord;

/// The record in memory, if it may be served, and the time by which that was judged.
#[inline]
pub(crate) fn hit(core: &Core, trust: &Trust, id: SessionId) -> Option<(SharedRecord, DbTime)> {
    let trusted_until = trust.until();
    // Taken apart at once: moving the slot as a whole costs as much as the comparisons.
    let Slot { record, epoch, until } = core.cache.get(id)?;
    let tick = core.policy.clock.now();
    let now = core.policy.clock.database_at(tick);
    let trusted = tick < trusted_until || !core.failpoints.holds(Guard::TrustWindow);
    let verified = epoch == core.cache.epoch() || !core.failpoints.holds(Guard::Revalidation);
    let live = now < until || record.lives_on(now) || !core.failpoints.holds(Guard::Expiry);
    (trusted && verified && live).then_some((record, now))
}

/// Whether the memory says that the session has ended, and may be believed.
pub(crate) fn is_known_ended(core: &Core, trust: &Trust, id: SessionId) -> bool {
    let trusted_until = trust.until();
    let Some(known_until) = core.cache.ended(id) else { return false };
    core.policy.clock.now() < trusted_until.min(known_until)
}
