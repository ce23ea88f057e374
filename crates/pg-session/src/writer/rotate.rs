//! Combined rotations: logins, mostly.

use uuid::Uuid;

use super::create::{count_evicted, refused};
use super::request::{Executed, Keys, Outcome, Pending, Request};
use super::update::{current_or_gone, remove_if_unknown};
use crate::cache::Ticket;
use crate::cause::Cause;
use crate::core::Core;
use crate::error::{Error, UpdateError};
use crate::events::Event;
use crate::failpoints::Point;
use crate::id::{SessionId, UserId};
use crate::postgres::failure::Failure;
use crate::postgres::rotate::{Rotated, Successor};
use crate::postgres::row_locks::Parts;
use crate::session::attributes::Attributes;
use crate::session::record::{Record, SharedRecord};
use crate::session::request::Rotation;

impl Request for Rotation {
    type Key = Uuid;
    type Written = (Attributes, Rotated);
    type Answer = SharedRecord;
    type Error = UpdateError;

    const KIND: &'static str = "rotate";

    const COMMITTED: Option<Point> = Some(Point::Rotated);

    /// I7: as for creates, one for each user. Each takes its user's lock: logins with a cap must not miss the session.
    fn conflict_keys(&self, _core: &Core) -> (Uuid, Option<Uuid>) {
        (self.id().expose(), self.user_id().map(UserId::as_uuid))
    }

    fn written_id(&self) -> Option<SessionId> {
        Some(self.new_id)
    }

    fn base_id(&self) -> Option<SessionId> {
        Some(self.id())
    }

    /// The session is rotated as it is now.
    fn rebase(&mut self, current: Option<Record>, core: &Core) -> Result<(), UpdateError> {
        self.base = SharedRecord::new(current_or_gone(self.id(), current, core)?);
        Ok(())
    }

    async fn execute(batch: &mut [Pending<Self>], core: &Core) -> Result<Executed<Self>, Failure> {
        let rotations: Vec<&Self> = batch.iter().map(|pending| &pending.request).collect();
        let attributes: Vec<Attributes> = rotations.iter().map(|rotation| rotation.attributes()).collect();
        let (rotated, server) = core.database.rotate(&rotations, &attributes).await?;
        core.counters.rotation_statements.add(1);
        Ok((attributes.into_iter().zip(rotated).collect(), server))
    }

    fn settle(&self, (attributes, rotated): Self::Written, ticket: Ticket, core: &Core) -> Outcome<Self> {
        match rotated {
            Rotated::Done(successor) => {
                core.counters.rotations.add(1);
                let Successor { row, last_accessed_at, retired, evicted } = *successor;
                // Before the answer: a caller that knows of the rotation reads no older state of an old id here.
                let successor = Some((row.id, row.user_id));
                for (id, version) in retired {
                    core.cache.invalidate(id, version);
                    core.pins.end(id, Some(Cause::Rotated), successor);
                }
                core.pins.end(self.id(), Some(Cause::Rotated), successor);
                count_evicted(core, row.user_id, &evicted);
                let policy = std::sync::Arc::clone(&core.policy);
                let record = SharedRecord::new(Record::new(policy, row, attributes, last_accessed_at));
                core.cache.publish(ticket, &record);
                let (from, to) = (self.id().handle(), row.id.handle());
                core.events.send(|| Event::Rotated { from, to, user: row.user_id });
                Outcome::Done(record)
            }
            Rotated::NotFound => {
                core.cache.remove(self.id());
                Outcome::Failed(UpdateError::NotFound)
            }
            Rotated::AlreadyDone { found } => {
                core.cache.invalidate(self.id(), found);
                Outcome::Failed(UpdateError::Rotated)
            }
            Rotated::Refused => Outcome::Failed(refused(core, self.cap).into()),
            Rotated::VersionConflict => Outcome::Conflict,
        }
    }

    async fn find_locked(batch: &[Pending<Self>], core: &Core) -> Result<Keys<Self>, Failure> {
        let ids: Vec<SessionId> = batch.iter().map(|pending| pending.request.id()).collect();
        let locked = core.database.locked_sessions(&ids, Parts::Moved).await?;
        let configured = core.config.sessions_max();
        let users = batch.iter().filter_map(|Pending { request, .. }| {
            request.user_id().map(|user| (user, request.sessions_max(configured)))
        });
        let blocked = core.database.blocked_users(users).await?;
        let is_blocked = |rotation: &Self| {
            locked.contains(&rotation.id()) || rotation.user_id().is_some_and(|user| blocked.contains(&user))
        };
        let rotations = batch.iter().map(|pending| &pending.request).filter(|rotation| is_blocked(rotation));
        Ok(rotations.map(|rotation| rotation.id().expose()).collect())
    }

    fn failed(&self, error: &Error, core: &Core) {
        remove_if_unknown(self.id(), error, core);
    }
}
