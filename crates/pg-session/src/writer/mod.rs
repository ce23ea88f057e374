//! The write lane: concurrent writes of a node, combined into few statements and few commits.
//!
//! A commit costs a disk flush, and one that notifies holds a lock of the whole cluster through it. So the writes that
//! are queued at the same time share a statement ([`lane`]); each still succeeds or fails alone. After the commit the
//! outcome goes into the cache, and only then to the caller: a caller that knows of a write reads it on this node.
//!
//! Updates, creates, rotations, deletes and what concerns any number of sessions (a user's, all) have a lane each. Last
//! accesses are gathered by [`touch`].

mod batcher;
mod blocked;
mod bulk;
mod create;
mod delete;
mod in_flight;
mod queue;
mod rotate;
pub(crate) mod touch;
mod update;

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::info;

pub(crate) use self::bulk::BulkDelete;
use self::bulk::BulkDeleteJob;
pub(crate) use self::create::CreateJob;
use self::delete::DeleteJob;
use self::queue::{Job, QueueBounds, WriteQueue, lane};
pub(crate) use self::rotate::RotateJob;
pub(crate) use self::update::UpdateJob;
use crate::core::{Core, Stage, Tasks};
use crate::error::{Error, ErrorKind, UpdateError};
use crate::id::{SessionId, UserId};
use crate::session::record::SharedRecord;

/// The lanes' sending halves.
pub(crate) struct Writer {
    updates: WriteQueue<UpdateJob>,
    creates: WriteQueue<CreateJob>,
    rotations: WriteQueue<RotateJob>,
    deletes: WriteQueue<DeleteJob>,
    sweeps: WriteQueue<BulkDeleteJob>,
    /// Sweeps that change no row: they need no lock, and wait for none.
    evictions: WriteQueue<BulkDeleteJob>,
    core: Arc<Core>,
}

/// A create or a rotation has ended the least recently used sessions of its user, to keep the limit.
fn count_evicted(core: &Core, user: Option<UserId>, sessions: &[SessionId]) {
    let (Some(user), Some(first)) = (user, sessions.first()) else { return };
    sessions.iter().for_each(|&id| core.cache.remove(id));
    core.counters.evictions.add(sessions.len());
    info!(
        %user,
        sessions = sessions.len(),
        first = ?first,
        "ended the least recently used sessions of a user at sessions_per_user_max"
    );
}

/// What the writer has done since the manager's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct WriteStats {
    /// Updates that were committed.
    pub updates: u64,
    /// Statements, and so commits, that carried them.
    pub update_statements: u64,
    /// Sessions that were created.
    pub creates: u64,
    /// Statements, and so commits, that carried them.
    pub create_statements: u64,
    /// Sessions that were rotated.
    pub rotations: u64,
    /// Statements, and so commits, that carried them.
    pub rotation_statements: u64,
    /// Sessions that creates and rotations ended to keep [`Config::sessions_per_user_max`].
    pub evictions: u64,
    /// Writes that wait for a statement now.
    pub waiting: usize,
}

impl Writer {
    /// Starts a task for each queue. When they are stopped, they finish what was queued.
    pub(crate) fn spawn(core: &Arc<Core>, tasks: &Tasks) -> Self {
        let config = &core.config;
        let bounds = QueueBounds {
            queue_max: config.write_queue_max,
            batch_max: config.write_batch_max,
            statements_max: config.write_concurrency,
        };
        // Each is a statement over any number of rows. The deletion of all sessions waits for every row, beside the others.
        let alone = QueueBounds { batch_max: 1, statements_max: bounds.statements_max.max(2), ..bounds };
        Self {
            updates: open(bounds, core, &tasks.writing),
            creates: open(bounds, core, &tasks.writing),
            rotations: open(bounds, core, &tasks.writing),
            deletes: open(bounds, core, &tasks.writing),
            sweeps: open(alone, core, &tasks.writing),
            evictions: open(alone, core, &tasks.writing),
            core: Arc::clone(core),
        }
    }

    /// Writes an update. Dropping the future does not undo it.
    pub(crate) async fn update(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<SharedRecord, UpdateError>>) -> UpdateJob,
    ) -> Result<SharedRecord, UpdateError> {
        let (reply, outcome) = oneshot::channel();
        let job = make(reply);
        self.updates.push(job)?;
        outcome.await.unwrap_or_else(|_| Err(vanished().into()))
    }

    /// Creates a session. Dropping the future does not undo it.
    pub(crate) async fn create(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<SharedRecord, Error>>) -> CreateJob,
    ) -> Result<SharedRecord, Error> {
        let (reply, outcome) = oneshot::channel();
        self.creates.push(make(reply))?;
        outcome.await.unwrap_or_else(|_| Err(vanished()))
    }

    /// Rotates a session. Dropping the future does not undo it.
    pub(crate) async fn rotate(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<SharedRecord, UpdateError>>) -> RotateJob,
    ) -> Result<SharedRecord, UpdateError> {
        let (reply, outcome) = oneshot::channel();
        self.rotations.push(make(reply))?;
        outcome.await.unwrap_or_else(|_| Err(vanished().into()))
    }

    /// Deletes a session; answers whether it was alive. Dropping the future does not undo it.
    pub(crate) async fn delete(&self, id: SessionId) -> Result<bool, Error> {
        let (reply, outcome) = oneshot::channel();
        self.deletes.push(DeleteJob { id, reply })?;
        outcome.await.unwrap_or_else(|_| Err(vanished()))
    }

    /// Carries out a sweep; answers how many living sessions were deleted. Dropping the future does not undo it.
    pub(crate) async fn sweep(&self, sweep: BulkDelete) -> Result<u64, Error> {
        let (reply, outcome) = oneshot::channel();
        let lane = if matches!(sweep, BulkDelete::Evict(_)) { &self.evictions } else { &self.sweeps };
        lane.push(BulkDeleteJob::new(sweep, reply))?;
        outcome.await.unwrap_or_else(|_| Err(vanished()))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.updates.waiting()
            + self.creates.waiting()
            + self.rotations.waiting()
            + self.deletes.waiting()
            + self.sweeps.waiting()
            + self.evictions.waiting()
    }

    pub(crate) fn stats(&self) -> WriteStats {
        let counters = &self.core.counters;
        WriteStats {
            updates: counters.updates.get(),
            update_statements: counters.update_statements.get(),
            creates: counters.creates.get(),
            create_statements: counters.create_statements.get(),
            rotations: counters.rotations.get(),
            rotation_statements: counters.rotation_statements.get(),
            evictions: counters.evictions.get(),
            waiting: self.waiting(),
        }
    }
}

fn open<J: Job>(bounds: QueueBounds, core: &Arc<Core>, stage: &Stage) -> WriteQueue<J> {
    let (queue, batcher) = lane(bounds, core);
    stage.spawn(|stop| batcher.run(stop));
    queue
}

/// The task that had the job is gone: the runtime is being shut down.
fn vanished() -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "the runtime ended while the write was under way; it may or may not have been committed",
    )
}
