//! Writes that concern any number of sessions: given ones together, a user's, a group's, all; deleted or evicted.

use std::time::Duration;

use tokio::task::yield_now;
use uuid::Uuid;

use super::request::{Executed, Outcome, Pending, Request};
use crate::cache::Ticket;
use crate::core::Core;
use crate::error::{Error, ErrorKind};
use crate::id::{Scope, SessionId, UserId};
use crate::postgres::delete::Swept;
use crate::postgres::failure::{Failure, Verdict};
use crate::retry::{BULK_ROW_WAIT_MAX, REBASES_MAX};
use crate::session::request::BulkChange;

/// Sessions that are dropped from memory before other tasks run.
const FORGOTTEN_MAX: usize = 1_024;

pub(crate) struct BulkRequest {
    change: BulkChange,
    /// Times that it was sent.
    tries: u32,
    /// Sessions that have lost the attribute.
    removed: u64,
}

impl BulkRequest {
    pub(crate) fn new(change: BulkChange) -> Self {
        Self { change, tries: 0, removed: 0 }
    }

    /// How long the next try waits for each row: longer each time, because many rows have many writers.
    fn row_lock_wait(&self, core: &Core) -> Duration {
        let first = core.config.row_lock_wait;
        first.saturating_mul(1 << self.tries.min(16)).min(first.max(BULK_ROW_WAIT_MAX))
    }

    async fn carry_out(&mut self, core: &Core) -> Result<u64, Failure> {
        let wait = self.row_lock_wait(core);
        match &self.change {
            BulkChange::Delete(ids) => {
                let gone = core.database.delete(ids).await?;
                forget_each(&gone.iter().map(|row| row.id).collect::<Vec<_>>(), core).await;
                Ok(gone.iter().map(|row| u64::from(row.live)).sum())
            }
            BulkChange::DeleteAll(whose) => count(&core.database.delete_all(*whose, wait).await?, core).await,
            BulkChange::DeleteOthers(user, keep) => {
                count(&core.database.delete_others(*user, *keep, wait).await?, core).await
            }
            BulkChange::RemoveAttribute(user, key) => {
                remove_attribute(*user, key, &mut self.removed, wait, core).await?;
                Ok(self.removed)
            }
            BulkChange::Evict(scope) => core.database.notify_drop(*scope).await.map(|()| 0),
        }
    }

    /// Before the answer, whatever it is: what was acknowledged holds on this node, and what has failed may have
    /// happened. Other tasks run between the steps.
    async fn forget(&self, core: &Core) {
        let cache = &core.cache;
        let mut dropping = match &self.change {
            BulkChange::Delete(ids) => return forget_each(ids, core).await,
            BulkChange::RemoveAttribute(user, _) | BulkChange::DeleteOthers(user, _) => {
                cache.remove_user(*user)
            }
            BulkChange::DeleteAll(scope) | BulkChange::Evict(scope) => match *scope {
                Scope::User(user) => cache.remove_user(user),
                Scope::Group(group) => cache.remove_group(group),
                Scope::All => return cache.remove_all(),
            },
        };
        while dropping.step() {
            yield_now().await;
        }
    }
}

/// Drops what no notification of the owner covers.
async fn count(swept: &Swept, core: &Core) -> Result<u64, Failure> {
    forget_each(&swept.other_users, core).await;
    Ok(swept.live)
}

async fn forget_each(ids: &[SessionId], core: &Core) {
    for some in ids.chunks(FORGOTTEN_MAX) {
        some.iter().for_each(|&id| core.cache.remove(id));
        yield_now().await;
    }
}

/// Page by page, and again until no session of the user was overtaken by another update.
async fn remove_attribute(
    user: UserId,
    key: &str,
    sessions: &mut u64,
    wait: Duration,
    core: &Core,
) -> Result<(), Failure> {
    for _ in 0..REBASES_MAX {
        let mut conflicts = 0;
        let mut page = Some(Uuid::nil());
        while let Some(after) = page {
            let removed = core.database.remove_attribute(user.as_uuid(), key, after, wait).await?;
            *sessions += removed.sessions;
            conflicts += removed.conflicts;
            page = removed.next;
        }
        if conflicts == 0 {
            return Ok(());
        }
    }
    let error = Error::new(
        ErrorKind::Contention,
        "other updates of the user's sessions kept coming, and some may still have the attribute; try again",
    );
    Err(Failure { error, verdict: Verdict::Refused })
}

impl Request for BulkRequest {
    /// Changes of one user, of one group or of all are made one after the other.
    type Key = (u8, Uuid);
    type Written = u64;
    /// How many living sessions were changed.
    type Answer = u64;
    type Error = Error;

    fn conflict_keys(&self, _: &Core) -> (Self::Key, Option<Self::Key>) {
        let key = match &self.change {
            BulkChange::Delete(ids) => (0, ids.first().map_or(Uuid::nil(), |id| id.expose())),
            BulkChange::DeleteOthers(user, _) | BulkChange::RemoveAttribute(user, _) => (1, user.as_uuid()),
            BulkChange::DeleteAll(scope) | BulkChange::Evict(scope) => match *scope {
                Scope::User(user) => (1, user.as_uuid()),
                Scope::Group(group) => (2, group.as_uuid()),
                Scope::All => (3, Uuid::nil()),
            },
        };
        (key, None)
    }

    /// The batch is one request: each is a statement over any number of rows.
    async fn execute(batch: &mut [Pending<Self>], core: &Core) -> Result<Executed<Self>, Failure> {
        let mut counts = Vec::with_capacity(batch.len());
        for Pending { request, .. } in batch {
            let outcome = request.carry_out(core).await;
            // A blocked deletion changed nothing. A blocked removal may have changed the pages before.
            let changed_nothing = outcome.as_ref().is_err_and(|failure| failure.verdict == Verdict::Blocked)
                && !matches!(request.change, BulkChange::RemoveAttribute(..));
            if !changed_nothing {
                request.forget(core).await;
            }
            request.tries += 1;
            counts.push(outcome?);
        }
        Ok((counts, None))
    }

    fn settle(&self, count: u64, _: Ticket, _: &Core) -> Outcome<Self> {
        Outcome::Done(count)
    }

    fn blocked_max(core: &Core) -> Duration {
        core.database.long_patience()
    }
}
