//! Writes that concern any number of sessions: given ones together, a user's, a group's, all; deleted or evicted.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::yield_now;
use uuid::Uuid;

use super::Workshop;
use super::lane::Job;
use super::update::OVERTAKEN_MAX;
use crate::error::{Error, ErrorKind};
use crate::id::{SessionId, UserId};
use crate::postgres::delete::Swept;
use crate::postgres::failure::{Failure, Verdict};
use crate::postgres::notify::Whose;

/// Sessions that are dropped from memory before other tasks run.
const FORGOTTEN_MAX: usize = 1_024;

/// The longest that a bulk write waits for each row.
const ROW_LOCK_WAIT_MAX: Duration = Duration::from_millis(80);

/// What to do with how many sessions.
#[derive(Clone, Debug)]
pub(crate) enum Sweep {
    /// Delete these, all or none.
    Delete(Vec<SessionId>),
    /// Delete all of these.
    DeleteAll(Whose),
    /// Delete all of a user's but this one.
    DeleteOthers(UserId, SessionId),
    /// Remove one attribute from all sessions of a user.
    RemoveAttribute(UserId, String),
    /// Drop them from every node's memory; the tables stay as they are.
    Evict(Whose),
}

pub(super) struct SweepJob {
    pub(super) sweep: Sweep,
    /// Times that it met a locked row.
    blocked: u32,
    /// Sessions that have lost the attribute.
    removed: u64,
    reply: oneshot::Sender<Result<u64, Error>>,
}

impl SweepJob {
    pub(super) fn new(sweep: Sweep, reply: oneshot::Sender<Result<u64, Error>>) -> Self {
        Self { sweep, blocked: 0, removed: 0, reply }
    }

    /// How long the next try waits for each row: longer each time, because many rows have many writers.
    fn row_lock_wait(&self, workshop: &Workshop) -> Duration {
        let first = workshop.row_lock_wait;
        first.saturating_mul(1 << self.blocked.min(16)).min(first.max(ROW_LOCK_WAIT_MAX))
    }

    async fn carry_out(&mut self, workshop: &Workshop) -> Result<u64, Failure> {
        let wait = self.row_lock_wait(workshop);
        match &self.sweep {
            Sweep::Delete(ids) => {
                let gone = workshop.database.delete(ids).await?;
                forget_each(&gone.iter().map(|row| row.id).collect::<Vec<_>>(), workshop).await;
                Ok(gone.iter().map(|row| u64::from(row.live)).sum())
            }
            Sweep::DeleteAll(whose) => {
                count(&workshop.database.delete_all(*whose, wait).await?, workshop).await
            }
            Sweep::DeleteOthers(user, keep) => {
                count(&workshop.database.delete_others(*user, *keep, wait).await?, workshop).await
            }
            Sweep::RemoveAttribute(user, key) => {
                remove_attribute(*user, key, &mut self.removed, wait, workshop).await?;
                Ok(self.removed)
            }
            Sweep::Evict(whose) => workshop.database.notify_drop(*whose).await.map(|()| 0),
        }
    }

    /// Before the answer, whatever it is: what was acknowledged holds on this node, and what has failed may have
    /// happened. Other tasks run between the steps.
    async fn forget(&self, workshop: &Workshop) {
        let cache = &workshop.cache;
        let mut dropping = match &self.sweep {
            Sweep::Delete(ids) => return forget_each(ids, workshop).await,
            Sweep::RemoveAttribute(user, _) | Sweep::DeleteOthers(user, _) => cache.drop_user(*user),
            Sweep::DeleteAll(whose) | Sweep::Evict(whose) => match *whose {
                Whose::User(user) => cache.drop_user(user.into()),
                Whose::Group(group) => cache.drop_group(group.into()),
                Whose::All => return cache.drop_all(),
            },
        };
        while dropping.step() {
            yield_now().await;
        }
    }
}

/// Drops what no notification of the owner covers.
async fn count(swept: &Swept, workshop: &Workshop) -> Result<u64, Failure> {
    forget_each(&swept.strangers, workshop).await;
    Ok(swept.live)
}

async fn forget_each(ids: &[SessionId], workshop: &Workshop) {
    for some in ids.chunks(FORGOTTEN_MAX) {
        some.iter().for_each(|&id| workshop.cache.forget(id));
        yield_now().await;
    }
}

/// Page by page, and again until no session of the user was overtaken by another update.
async fn remove_attribute(
    user: UserId,
    key: &str,
    sessions: &mut u64,
    wait: Duration,
    workshop: &Workshop,
) -> Result<(), Failure> {
    for _ in 0..OVERTAKEN_MAX {
        let mut overtaken = 0;
        let mut page = Some(Uuid::nil());
        while let Some(after) = page {
            let removed = workshop.database.remove_attribute(user.as_uuid(), key, after, wait).await?;
            *sessions += removed.sessions;
            overtaken += removed.overtaken;
            page = removed.next;
        }
        if overtaken == 0 {
            return Ok(());
        }
    }
    let error = Error::new(
        ErrorKind::Contention,
        "other updates of the user's sessions kept coming, and some may still have the attribute; try again",
    );
    Err(Failure { error, verdict: Verdict::Refused })
}

impl Job for SweepJob {
    /// Sweeps of one user, of one group or of all are made one after the other.
    type Key = (u8, Uuid);

    fn key(&self) -> Self::Key {
        match &self.sweep {
            Sweep::Delete(ids) => (0, ids.first().map_or(Uuid::nil(), |id| id.expose())),
            Sweep::DeleteOthers(user, _) | Sweep::RemoveAttribute(user, _) => (1, user.as_uuid()),
            Sweep::DeleteAll(whose) | Sweep::Evict(whose) => match *whose {
                Whose::User(user) => (1, user),
                Whose::Group(group) => (2, group),
                Whose::All => (3, Uuid::nil()),
            },
        }
    }

    async fn commit(batch: &mut Vec<Self>, workshop: &Workshop) -> Result<Vec<Self>, Failure> {
        while let Some(job) = batch.last_mut() {
            let outcome = job.carry_out(workshop).await;
            // A blocked deletion changed nothing. A blocked removal may have changed the pages before.
            let changed_nothing = outcome.as_ref().is_err_and(|failure| failure.verdict == Verdict::Blocked)
                && !matches!(job.sweep, Sweep::RemoveAttribute(..));
            if !changed_nothing {
                job.forget(workshop).await;
            }
            job.blocked += 1;
            let count = outcome?;
            if let Some(job) = batch.pop() {
                let _ = job.reply.send(Ok(count));
            }
        }
        Ok(Vec::new())
    }

    fn patience(workshop: &Workshop) -> Duration {
        workshop.database.long_patience()
    }

    fn fail(self, error: Error, _: &Workshop) {
        let _ = self.reply.send(Err(error));
    }
}
