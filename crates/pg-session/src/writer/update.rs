//! Combined updates.

use super::request::{Executed, Keys, Outcome, Pending, Request};
use crate::cache::Ticket;
use crate::contention::Ordered;
use crate::core::Core;
use crate::error::{Error, ErrorKind, UpdateError};
use crate::failpoints::{Guard, Point};
use crate::id::SessionId;
use crate::notification::CHANGED_ENTRIES_MAX;
use crate::pins::Named;
use crate::postgres::failure::Failure;
use crate::postgres::update::NotifyOrder;
use crate::session::attributes::Attributes;
use crate::session::record::{Record, SharedRecord};
use crate::session::request::{Applied, UpdateRequest};

impl Request for UpdateRequest {
    type Key = SessionId;
    type Written = (Attributes, Option<Applied>);
    type Answer = SharedRecord;
    type Error = UpdateError;

    const KIND: &'static str = "update";

    const COMMITTED: Option<Point> = Some(Point::Committed);

    fn conflict_keys(&self, _: &Core) -> (SessionId, Option<SessionId>) {
        (self.id(), None)
    }

    fn written_id(&self) -> Option<SessionId> {
        Some(self.id())
    }

    fn base_id(&self) -> Option<SessionId> {
        Some(self.id())
    }

    fn notifies_conflict(&self, current: &Record) -> bool {
        self.notify && self.conflict(current).is_some()
    }

    fn rebase(&mut self, current: Option<Record>, core: &Core) -> Result<(), UpdateError> {
        let current = current_or_gone(self.id(), current, core)?;
        let version = current.row.version;
        let failed = if current.row.rotated {
            Some(UpdateError::Rotated)
        } else {
            self.conflict(&current).map(|keys| UpdateError::Conflict { keys })
        };
        if let Some(error) = failed {
            // The caller will load again: not the version that has just lost.
            core.cache.invalidate(self.id(), version);
            return Err(error);
        }
        current.access.inherit(&self.base.access);
        self.base = SharedRecord::new(current);
        Ok(())
    }

    async fn execute(batch: &mut [Pending<Self>], core: &Core) -> Result<Executed<Self>, Failure> {
        let requests: Vec<&Self> = batch.iter().map(|pending| &pending.request).collect();
        let after: Vec<Attributes> = requests.iter().map(|request| request.attributes()).collect();
        let ordered = core.contention.start(core.policy.clock.now());
        let (applied, server) =
            core.database.update(&requests, &after, order(&requests, &ordered, core)).await?;
        drop(ordered);
        let notified =
            requests.iter().zip(&applied).filter(|(request, applied)| request.notify && applied.is_some());
        core.contention.sent(notified.count().div_ceil(CHANGED_ENTRIES_MAX));
        core.counters.update_statements.add(1);
        Ok((after.into_iter().zip(applied).collect(), server))
    }

    fn settle(&self, (attributes, applied): Self::Written, ticket: Ticket, core: &Core) -> Outcome<Self> {
        let Some(applied) = applied else { return Outcome::Conflict };
        core.counters.updates.add(1);
        let record = self.record(attributes, applied);
        core.cache.publish(ticket, &record);
        if !self.row.is_empty() {
            // Before the answer, as for an end: this node's pins end at the new limit, also if its listener is lost.
            let unknown = core.inform_pins(&[(record.row.id, record.row.version)]);
            core.pins.doubt(Named::Sessions(&unknown), None);
        }
        Outcome::Done(record)
    }

    async fn find_locked(batch: &[Pending<Self>], core: &Core) -> Result<Keys<Self>, Failure> {
        let ids: Vec<SessionId> = batch.iter().map(|pending| pending.request.id()).collect();
        Ok(core.database.locked_rows(&ids).await?.into_iter().collect())
    }

    fn failed(&self, error: &Error, core: &Core) {
        remove_if_unknown(self.id(), error, core);
        let is_unknown = error.kind() == ErrorKind::OutcomeUnknown;
        if is_unknown && self.notify && core.failpoints.holds(Guard::Notices) {
            core.unnotified.add(self.id(), self.base().version.next());
        }
    }
}

/// When the statement notifies.
///
/// An update that moves a session to another group never commits first. Other nodes find the session by the group that they
/// know, until they are notified of the move. So the end of the new group would drop nothing there:
///
/// ```text
/// this node     moves X to G ── COMMIT ············································ NOTIFY X
/// another node                           ends G, with X ── NOTIFY G ── acknowledged
/// third node    has X without a group                          finds no session of G ── serves X
/// ```
fn order(requests: &[&UpdateRequest], ordered: &Ordered<'_>, core: &Core) -> NotifyOrder {
    let joins = requests.iter().any(|request| request.joins_group());
    if joins && core.failpoints.holds(Guard::MoveInside) { NotifyOrder::Inside } else { ordered.order }
}

/// After a conflict: the session, or the answer that it has ended.
pub(super) fn current_or_gone(
    id: SessionId,
    current: Option<Record>,
    core: &Core,
) -> Result<Record, UpdateError> {
    current.ok_or_else(|| {
        core.cache.remove(id);
        UpdateError::NotFound
    })
}

/// A write whose outcome is unknown may have been committed: what is in memory may be outdated.
pub(super) fn remove_if_unknown(id: SessionId, error: &Error, core: &Core) {
    if error.kind() == ErrorKind::OutcomeUnknown {
        core.cache.remove(id);
    }
}
