//! Writes that concern any number of sessions: given ones together, a user's, a group's, all; deleted or evicted.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::yield_now;
use uuid::Uuid;

use super::queue::Job;
use super::update::REBASE_ATTEMPTS_MAX;
use crate::core::Core;
use crate::error::{Error, ErrorKind};
use crate::id::{SessionId, UserId};
use crate::postgres::delete::Swept;
use crate::postgres::failure::{Failure, Verdict};
use crate::postgres::notify::Scope;

/// Sessions that are dropped from memory before other tasks run.
const FORGOTTEN_MAX: usize = 1_024;

/// The longest that a bulk write waits for each row.
const ROW_LOCK_WAIT_MAX: Duration = Duration::from_millis(80);

/// What to do with how many sessions.
#[derive(Clone, Debug)]
pub(crate) enum BulkDelete {
    /// Delete these, all or none.
    Delete(Vec<SessionId>),
    /// Delete all of these.
    DeleteAll(Scope),
    /// Delete all of a user's but this one.
    DeleteOthers(UserId, SessionId),
    /// Remove one attribute from all sessions of a user.
    RemoveAttribute(UserId, String),
    /// Drop them from every node's memory; the tables stay as they are.
    Evict(Scope),
}

pub(super) struct BulkDeleteJob {
    pub(super) sweep: BulkDelete,
    /// Times that it met a locked row.
    blocked: u32,
    /// Sessions that have lost the attribute.
    removed: u64,
    reply: oneshot::Sender<Result<u64, Error>>,
}

impl BulkDeleteJob {
    pub(super) fn new(sweep: BulkDelete, reply: oneshot::Sender<Result<u64, Error>>) -> Self {
        Self { sweep, blocked: 0, removed: 0, reply }
    }

    /// How long the next try waits for each row: longer each time, because many rows have many writers.
    fn row_lock_wait(&self, core: &Core) -> Duration {
        let first = core.config.row_lock_wait;
        first.saturating_mul(1 << self.blocked.min(16)).min(first.max(ROW_LOCK_WAIT_MAX))
    }

    async fn carry_out(&mut self, core: &Core) -> Result<u64, Failure> {
        let wait = self.row_lock_wait(core);
        match &self.sweep {
            BulkDelete::Delete(ids) => {
                let gone = core.database.delete(ids).await?;
                forget_each(&gone.iter().map(|row| row.id).collect::<Vec<_>>(), core).await;
                Ok(gone.iter().map(|row| u64::from(row.live)).sum())
            }
            BulkDelete::DeleteAll(whose) => count(&core.database.delete_all(*whose, wait).await?, core).await,
            BulkDelete::DeleteOthers(user, keep) => {
                count(&core.database.delete_others(*user, *keep, wait).await?, core).await
            }
            BulkDelete::RemoveAttribute(user, key) => {
                remove_attribute(*user, key, &mut self.removed, wait, core).await?;
                Ok(self.removed)
            }
            BulkDelete::Evict(whose) => core.database.notify_drop(*whose).await.map(|()| 0),
        }
    }

    /// Before the answer, whatever it is: what was acknowledged holds on this node, and what has failed may have
    /// happened. Other tasks run between the steps.
    async fn forget(&self, core: &Core) {
        let cache = &core.cache;
        let mut dropping = match &self.sweep {
            BulkDelete::Delete(ids) => return forget_each(ids, core).await,
            BulkDelete::RemoveAttribute(user, _) | BulkDelete::DeleteOthers(user, _) => {
                cache.remove_user(*user)
            }
            BulkDelete::DeleteAll(whose) | BulkDelete::Evict(whose) => match *whose {
                Scope::User(user) => cache.remove_user(user.into()),
                Scope::Group(group) => cache.remove_group(group.into()),
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
    for _ in 0..REBASE_ATTEMPTS_MAX {
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

impl Job for BulkDeleteJob {
    /// Sweeps of one user, of one group or of all are made one after the other.
    type Key = (u8, Uuid);

    fn key(&self) -> Self::Key {
        match &self.sweep {
            BulkDelete::Delete(ids) => (0, ids.first().map_or(Uuid::nil(), |id| id.expose())),
            BulkDelete::DeleteOthers(user, _) | BulkDelete::RemoveAttribute(user, _) => (1, user.as_uuid()),
            BulkDelete::DeleteAll(whose) | BulkDelete::Evict(whose) => match *whose {
                Scope::User(user) => (1, user),
                Scope::Group(group) => (2, group),
                Scope::All => (3, Uuid::nil()),
            },
        }
    }

    async fn commit(batch: &mut Vec<Self>, core: &Core) -> Result<Vec<Self>, Failure> {
        while let Some(job) = batch.last_mut() {
            let outcome = job.carry_out(core).await;
            // A blocked deletion changed nothing. A blocked removal may have changed the pages before.
            let changed_nothing = outcome.as_ref().is_err_and(|failure| failure.verdict == Verdict::Blocked)
                && !matches!(job.sweep, BulkDelete::RemoveAttribute(..));
            if !changed_nothing {
                job.forget(core).await;
            }
            job.blocked += 1;
            let count = outcome?;
            if let Some(job) = batch.pop() {
                let _ = job.reply.send(Ok(count));
            }
        }
        Ok(Vec::new())
    }

    fn patience(core: &Core) -> Duration {
        core.database.long_patience()
    }

    fn fail(self, error: Error, _: &Core) {
        let _ = self.reply.send(Err(error));
    }
}
