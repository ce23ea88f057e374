//! Combined deletes of single sessions: logouts.

use std::collections::HashSet;

use tokio::sync::oneshot;

use super::Workshop;
use super::lane::Job;
use crate::error::Error;
use crate::id::SessionId;
use crate::postgres::failure::Failure;

/// One session to be ended.
pub(super) struct DeleteJob {
    pub(super) id: SessionId,
    pub(super) reply: oneshot::Sender<Result<bool, Error>>,
}

impl Job for DeleteJob {
    type Key = SessionId;

    fn key(&self) -> SessionId {
        self.id
    }

    async fn commit(batch: &mut Vec<Self>, workshop: &Workshop) -> Result<Vec<Self>, Failure> {
        let ids: Vec<SessionId> = batch.iter().map(|job| job.id).collect();
        let deleted: HashSet<SessionId> = workshop.database.delete(&ids).await?.into_iter().collect();
        for job in batch.drain(..) {
            // Before the answer: a logout that was acknowledged is over on this node.
            workshop.cache.forget(job.id);
            let _ = job.reply.send(Ok(deleted.contains(&job.id)));
        }
        Ok(Vec::new())
    }

    fn fail(self, error: Error, workshop: &Workshop) {
        // Reading it again costs a query; serving it after a delete that did happen would cost the promise.
        workshop.cache.forget(self.id);
        let _ = self.reply.send(Err(error));
    }
}
