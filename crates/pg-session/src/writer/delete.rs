//! Combined deletes of single sessions: logouts.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::in_flight::Keys;
use super::queue::Job;
use crate::core::Core;
use crate::error::Error;
use crate::id::SessionId;
use crate::postgres::delete::Gone;
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

    async fn commit(batch: &mut Vec<Self>, core: &Core) -> Result<Vec<Self>, Failure> {
        let ids: Vec<SessionId> = batch.iter().map(|job| job.id).collect();
        let gone = core.database.delete(&ids).await?;
        // Before the answers: a logout that was acknowledged is over on this node.
        ids.iter().chain(gone.iter().map(|gone| &gone.id)).for_each(|&id| core.cache.remove(id));
        let gone: HashMap<SessionId, Gone> = gone.into_iter().map(|gone| (gone.id, gone)).collect();
        for job in batch.drain(..) {
            let session = gone.get(&job.id).and_then(|row| gone.get(&row.session));
            let _ = job.reply.send(Ok(session.is_some_and(|session| session.live)));
        }
        Ok(Vec::new())
    }

    async fn find_locked(batch: &[Self], core: &Core) -> Result<Keys<Self>, Failure> {
        let ids: Vec<SessionId> = batch.iter().map(|job| job.id).collect();
        Ok(core.database.locked_sessions(&ids).await?.into_iter().collect())
    }

    fn fail(self, error: Error, core: &Core) {
        // Reading it again costs a query; serving it after a delete that did happen would cost the promise.
        core.cache.remove(self.id);
        let _ = self.reply.send(Err(error));
    }
}
