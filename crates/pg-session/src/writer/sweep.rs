//! Writes that concern any number of sessions: given ones together, a user's, a group's, all; deleted or evicted.

use tokio::sync::oneshot;

use super::Workshop;
use super::lane::Job;
use crate::error::Error;
use crate::id::SessionId;
use crate::postgres::failure::Failure;
use crate::postgres::notify::Drop;

/// What to do with how many sessions.
#[derive(Clone, Debug)]
pub(crate) enum Sweep {
    /// Delete these, all or none.
    Delete(Vec<SessionId>),
    /// Delete all of these.
    DeleteAll(Drop),
    /// Drop them from every node's memory; the tables stay as they are.
    Evict(Drop),
}

pub(super) struct SweepJob {
    pub(super) sweep: Sweep,
    pub(super) reply: oneshot::Sender<Result<u64, Error>>,
}

impl SweepJob {
    async fn carry_out(&self, workshop: &Workshop) -> Result<u64, Failure> {
        match &self.sweep {
            Sweep::Delete(ids) => {
                let deleted = workshop.database.delete(ids).await?;
                // A set of sessions in memory is bounded by `usize`, which fits.
                Ok(u64::try_from(deleted.len()).unwrap_or(u64::MAX))
            }
            Sweep::DeleteAll(whose) => workshop.database.delete_all(*whose).await,
            Sweep::Evict(whose) => workshop.database.notify_drop(*whose).await.map(|()| 0),
        }
    }

    /// Before the answer: what was acknowledged holds on this node.
    fn forget(&self, workshop: &Workshop) {
        match &self.sweep {
            Sweep::Delete(ids) => ids.iter().for_each(|&id| workshop.cache.forget(id)),
            Sweep::DeleteAll(whose) | Sweep::Evict(whose) => match *whose {
                Drop::User(user) => workshop.cache.drop_user(user.into()),
                Drop::Group(group) => workshop.cache.drop_group(group.into()),
                Drop::All => workshop.cache.drop_all(),
            },
        }
    }
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
