//! Combined deletes of single sessions: logouts.

use std::collections::HashMap;

use super::request::{Executed, Keys, Outcome, Pending, Request};
use crate::cache::Ticket;
use crate::core::Core;
use crate::error::Error;
use crate::id::SessionId;
use crate::pins::Named;
use crate::postgres::delete::Gone;
use crate::postgres::failure::Failure;
use crate::postgres::row_locks::Parts;
use crate::session::request::DeleteSession;

impl Request for DeleteSession {
    type Key = SessionId;
    type Written = bool;
    type Answer = bool;
    type Error = Error;

    const KIND: &'static str = "delete";

    fn conflict_keys(&self, _: &Core) -> (SessionId, Option<SessionId>) {
        (self.id, None)
    }

    async fn execute(batch: &mut [Pending<Self>], core: &Core) -> Result<Executed<Self>, Failure> {
        let ids: Vec<SessionId> = batch.iter().map(|pending| pending.request.id).collect();
        let endings: Vec<_> =
            batch.iter().map(|Pending { request, .. }| (request.id, request.ending.clone())).collect();
        core.note_users(&ids);
        let ticket = core.cache.ticket();
        let asked = core.policy.clock.now();
        let (gone, server) = core.database.delete(&endings).await?;
        // Before the answers: a logout that was acknowledged is over on this node.
        ids.iter().chain(gone.iter().map(|gone| &gone.id)).for_each(|&id| core.cache.remove(id));
        core.check_revocation(server)?;
        let ticket = core.checked(ticket, Some(server));
        let until = asked.plus(core.config.cache_ttl);
        gone.iter().for_each(|gone| core.cache.remember_end(ticket, gone.id, until));
        let gone: HashMap<SessionId, Gone> = gone.into_iter().map(|gone| (gone.id, gone)).collect();
        let mut causes = HashMap::new();
        for (id, ending) in endings {
            match gone.get(&id) {
                Some(row) => _ = causes.entry(row.session).or_insert(ending.cause()),
                // It had ended before.
                None => core.pins.doubt(Named::Sessions(&[id]), None),
            }
        }
        // With all ids of these sessions. This node may not know yet that another one has rotated them.
        for row in gone.values() {
            core.pins.end(row.id, causes.get(&row.session).copied(), None);
        }
        let was_live = |id| gone.get(id).and_then(|row| gone.get(&row.session)).is_some_and(|row| row.live);
        Ok((ids.iter().map(was_live).collect(), None))
    }

    fn settle(&self, was_live: bool, _: Ticket, _: &Core) -> Outcome<Self> {
        Outcome::Done(was_live)
    }

    async fn find_locked(batch: &[Pending<Self>], core: &Core) -> Result<Keys<Self>, Failure> {
        let ids: Vec<SessionId> = batch.iter().map(|pending| pending.request.id).collect();
        Ok(core.database.locked_sessions(&ids, Parts::Deleted).await?.into_iter().collect())
    }

    /// Reading it again costs a query; serving it after a delete that did happen would cost the promise.
    fn failed(&self, _: &Error, core: &Core) {
        core.cache.remove(self.id);
        core.pins.doubt(Named::Sessions(&[self.id]), Some(self.ending.cause()));
    }
}
