//! Writes that concern any number of sessions: given ones together, a user's, a group's, all; deleted or evicted.

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
    pub(super) reply: oneshot::Sender<Result<u64, Error>>,
}

impl SweepJob {
    async fn carry_out(&self, workshop: &Workshop) -> Result<u64, Failure> {
        match &self.sweep {
            Sweep::Delete(ids) => {
                let gone = workshop.database.delete(ids).await?;
                forget_each(&gone.iter().map(|row| row.id).collect::<Vec<_>>(), workshop).await;
                Ok(gone.iter().map(|row| u64::from(row.live)).sum())
            }
            Sweep::DeleteAll(whose) => count(&workshop.database.delete_all(*whose).await?, workshop).await,
            Sweep::DeleteOthers(user, keep) => {
                count(&workshop.database.delete_others(*user, *keep).await?, workshop).await
            }
            Sweep::RemoveAttribute(user, key) => remove_attribute(*user, key, workshop).await,
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
async fn remove_attribute(user: UserId, key: &str, workshop: &Workshop) -> Result<u64, Failure> {
    let mut sessions = 0;
    for _ in 0..OVERTAKEN_MAX {
        let mut overtaken = 0;
        let mut page = Some(Uuid::nil());
        while let Some(after) = page {
            let removed = workshop.database.remove_attribute(user.as_uuid(), key, after).await?;
            sessions += removed.sessions;
            overtaken += removed.overtaken;
            page = removed.next;
        }
        if overtaken == 0 {
            return Ok(sessions);
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
        while let Some(job) = batch.last() {
            let outcome = job.carry_out(workshop).await;
            job.forget(workshop).await;
            let count = outcome?;
            if let Some(job) = batch.pop() {
                let _ = job.reply.send(Ok(count));
            }
        }
        Ok(Vec::new())
    }

    fn fail(self, error: Error, _: &Workshop) {
        let _ = self.reply.send(Err(error));
    }
}
