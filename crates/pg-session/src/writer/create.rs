//! Combined creates.

use tracing::info;
use uuid::Uuid;

use super::request::{Executed, Keys, Outcome, Pending, Request};
use crate::cache::Ticket;
use crate::cause::Cause;
use crate::core::Core;
use crate::error::{Error, ErrorKind};
use crate::events::Event;
use crate::failpoints::Point;
use crate::id::{SessionId, UserId};
use crate::postgres::create::Created;
use crate::postgres::failure::Failure;
use crate::session::attributes::Attributes;
use crate::session::record::SharedRecord;
use crate::session::request::NewSession;

impl Request for NewSession {
    type Key = Uuid;
    type Written = (Attributes, Created);
    type Answer = SharedRecord;
    type Error = Error;

    const KIND: &'static str = "create";

    const COMMITTED: Option<Point> = Some(Point::Created);

    /// I7: one create per user in a statement, or both would count the same sessions.
    fn conflict_keys(&self, core: &Core) -> (Uuid, Option<Uuid>) {
        let is_limited = self.sessions_max(core.config.sessions_max()).is_some();
        let user = self.user_id.filter(|_| is_limited);
        (user.map_or(self.id.expose(), UserId::as_uuid), None)
    }

    /// A caller that lists the user's sessions knows the id from the commit on, and may change the session.
    fn written_id(&self) -> Option<SessionId> {
        Some(self.id)
    }

    async fn execute(batch: &mut [Pending<Self>], core: &Core) -> Result<Executed<Self>, Failure> {
        let now = core.policy.clock.database_now();
        let sessions: Vec<&Self> = batch.iter().map(|pending| &pending.request).collect();
        let attributes: Vec<Attributes> = sessions.iter().map(|session| session.attributes(now)).collect();
        let (created, server) = core.database.create(&sessions, &attributes).await?;
        core.counters.create_statements.add(1);
        Ok((attributes.into_iter().zip(created).collect(), server))
    }

    fn settle(&self, (attributes, created): Self::Written, ticket: Ticket, core: &Core) -> Outcome<Self> {
        match created {
            Created::Made { created_at, expires_at, evicted } => {
                core.counters.creates.add(1);
                count_evicted(core, self.user_id, &evicted);
                let record = self.record(&core.policy, attributes, created_at, expires_at);
                core.cache.publish(ticket, &record);
                core.events.send(|| Event::Created { session: self.id.handle(), user: self.user_id });
                Outcome::Done(record)
            }
            Created::Refused => Outcome::Failed(refused(core, self.cap)),
        }
    }

    /// It may have failed because the session exists, and the notification of that may be on its way.
    fn failed(&self, _: &Error, core: &Core) {
        core.cache.forget_end(self.id);
    }

    async fn find_locked(batch: &[Pending<Self>], core: &Core) -> Result<Keys<Self>, Failure> {
        let configured = core.config.sessions_max();
        let users = batch.iter().filter_map(|Pending { request, .. }| {
            request.user_id.map(|user| (user, request.sessions_max(configured)))
        });
        Ok(core.database.blocked_users(users).await?.into_iter().map(UserId::as_uuid).collect())
    }
}

/// A create or a rotation has ended the least recently used sessions of its user, to keep the limit.
pub(super) fn count_evicted(core: &Core, user: Option<UserId>, sessions: &[SessionId]) {
    let (Some(user), Some(first)) = (user, sessions.first()) else { return };
    for &id in sessions {
        core.events.ending(id, user);
        core.cache.remove(id);
        core.pins.end(id, Some(Cause::Cap), None);
    }
    core.counters.evictions.add(sessions.len());
    info!(
        %user,
        sessions = sessions.len(),
        first = ?first,
        "ended the least recently used sessions of a user at sessions_per_user_max, or at the cap of the login"
    );
}

/// The policy lets the user have no other session.
pub(super) fn refused(core: &Core, cap: Option<u32>) -> Error {
    let (sessions_max, setting) = match cap {
        Some(cap) => (cap, "the cap of this login"),
        None => (core.config.sessions_per_user_max, "sessions_per_user_max"),
    };
    let message = format!(
        "the user already has {sessions_max} live sessions ({setting}); delete one, or set on_session_limit to \
         evict_least_recently_used"
    );
    Error::new(ErrorKind::SessionLimit, message)
}
