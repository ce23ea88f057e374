//! Writes that concern any number of sessions: given ones together, a user's, a group's, all; deleted or evicted.

use tokio::sync::oneshot;
use uuid::Uuid;

use super::Workshop;
use super::lane::Job;
use super::update::OVERTAKEN_MAX;
use crate::error::{Error, ErrorKind};
use crate::id::{SessionId, UserId};
use crate::postgres::delete::Swept;
use crate::postgres::failure::{Failure, Verdict};
use crate::postgres::notify::Whose;

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
                gone.iter().for_each(|row| workshop.cache.forget(row.id));
                Ok(gone.iter().map(|row| u64::from(row.live)).sum())
            }
            Sweep::DeleteAll(whose) => {
                workshop.database.delete_all(*whose).await.map(|gone| count(&gone, workshop))
            }
            Sweep::DeleteOthers(user, keep) => {
                workshop.database.delete_others(*user, *keep).await.map(|gone| count(&gone, workshop))
            }
            Sweep::RemoveAttribute(user, key) => remove_attribute(*user, key, workshop).await,
            Sweep::Evict(whose) => workshop.database.notify_drop(*whose).await.map(|()| 0),
        }
    }

    /// Before the answer: what was acknowledged holds on this node.
    fn forget(&self, workshop: &Workshop) {
        match &self.sweep {
            Sweep::Delete(ids) => ids.iter().for_each(|&id| workshop.cache.forget(id)),
            Sweep::RemoveAttribute(user, _) | Sweep::DeleteOthers(user, _) => workshop.cache.drop_user(*user),
            Sweep::DeleteAll(whose) | Sweep::Evict(whose) => match *whose {
                Whose::User(user) => workshop.cache.drop_user(user.into()),
                Whose::Group(group) => workshop.cache.drop_group(group.into()),
                Whose::All => workshop.cache.drop_all(),
            },
        }
    }
}

/// Drops what no notification of the owner covers.
fn count(swept: &Swept, workshop: &Workshop) -> u64 {
    swept.strangers.iter().for_each(|&id| workshop.cache.forget(id));
    swept.live
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
    /// They travel alone, so all are alike.
    type Key = ();

    fn key(&self) {}

    async fn commit(batch: &mut Vec<Self>, workshop: &Workshop) -> Result<Vec<Self>, Failure> {
        while let Some(job) = batch.last() {
            let count = job.carry_out(workshop).await?;
            job.forget(workshop);
            if let Some(job) = batch.pop() {
                let _ = job.reply.send(Ok(count));
            }
        }
        Ok(Vec::new())
    }

    fn fail(self, error: Error, workshop: &Workshop) {
        self.forget(workshop);
        let _ = self.reply.send(Err(error));
    }
}
