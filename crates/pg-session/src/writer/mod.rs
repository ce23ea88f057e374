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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

pub(crate) use self::bulk::BulkDelete;
use self::bulk::BulkDeleteJob;
pub(crate) use self::create::CreateJob;
use self::delete::DeleteJob;
use self::queue::{Job, QueueBounds, WriteQueue, lane};
pub(crate) use self::rotate::RotateJob;
pub(crate) use self::update::UpdateJob;
use crate::cache::Cache;
use crate::config::Config;
use crate::error::{Error, ErrorKind, UpdateError};
use crate::failpoints::Probes;
use crate::id::{SessionId, UserId};
use crate::postgres::Database;
use crate::session::record::{Policy, SharedRecord};

/// The lanes' sending halves.
pub(crate) struct Writer {
    updates: WriteQueue<UpdateJob>,
    creates: WriteQueue<CreateJob>,
    rotations: WriteQueue<RotateJob>,
    deletes: WriteQueue<DeleteJob>,
    sweeps: WriteQueue<BulkDeleteJob>,
    /// Sweeps that change no row: they need no lock, and wait for none.
    evictions: WriteQueue<BulkDeleteJob>,
    context: Arc<WriteContext>,
}

/// What every lane works with.
pub(crate) struct WriteContext {
    policy: Arc<Policy>,
    cache: Arc<Cache>,
    database: Arc<Database>,
    probes: Probes,
    /// Whether `create` has a limit to keep.
    limited: bool,
    /// Whether updates that failed their check are notified.
    tells_conflicts: bool,
    /// How long a write waits for a locked row.
    row_lock_wait: Duration,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    updates: AtomicU64,
    update_statements: AtomicU64,
    creates: AtomicU64,
    create_statements: AtomicU64,
    rotations: AtomicU64,
    rotation_statements: AtomicU64,
    evictions: AtomicU64,
}

impl WriteContext {
    /// A create or a rotation has ended the least recently used sessions of its user, to keep the limit.
    fn evicted(&self, user: Option<UserId>, sessions: &[SessionId]) {
        let (Some(user), Some(first)) = (user, sessions.first()) else { return };
        sessions.iter().for_each(|&id| self.cache.remove(id));
        self.counters.evictions.fetch_add(sessions.len() as u64, Ordering::Relaxed);
        info!(
            %user,
            sessions = sessions.len(),
            first = ?first,
            "ended the least recently used sessions of a user at sessions_per_user_max"
        );
    }
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
    /// Starts the lanes; they stop with `stop`, after finishing what was queued.
    pub(crate) fn start(
        config: &Config,
        policy: Arc<Policy>,
        cache: Arc<Cache>,
        database: Arc<Database>,
        probes: Probes,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let limited = config.sessions_per_user_max > 0;
        let tells_conflicts = config.notify_conflicts;
        let context = Arc::new(WriteContext {
            policy,
            cache,
            database,
            probes,
            limited,
            tells_conflicts,
            row_lock_wait: config.row_lock_wait,
            counters: Counters::default(),
        });
        let bounds = QueueBounds {
            queue_max: config.write_queue_max,
            batch_max: config.write_batch_max,
            statements_max: config.write_concurrency,
        };
        // Each is a statement over any number of rows. The deletion of all sessions waits for every row, beside the others.
        let alone = QueueBounds { batch_max: 1, statements_max: bounds.statements_max.max(2), ..bounds };
        Self {
            updates: open(bounds, &context, tasks, stop),
            creates: open(bounds, &context, tasks, stop),
            rotations: open(bounds, &context, tasks, stop),
            deletes: open(bounds, &context, tasks, stop),
            sweeps: open(alone, &context, tasks, stop),
            evictions: open(alone, &context, tasks, stop),
            context,
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
        let Counters {
            updates,
            update_statements,
            creates,
            create_statements,
            rotations,
            rotation_statements,
            evictions,
        } = &self.context.counters;
        WriteStats {
            updates: updates.load(Ordering::Relaxed),
            update_statements: update_statements.load(Ordering::Relaxed),
            creates: creates.load(Ordering::Relaxed),
            create_statements: create_statements.load(Ordering::Relaxed),
            rotations: rotations.load(Ordering::Relaxed),
            rotation_statements: rotation_statements.load(Ordering::Relaxed),
            evictions: evictions.load(Ordering::Relaxed),
            waiting: self.waiting(),
        }
    }
}

fn open<J: Job>(
    bounds: QueueBounds,
    context: &Arc<WriteContext>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> WriteQueue<J> {
    let (lane, work) = lane(bounds, context);
    tasks.spawn(work.run(stop.clone()));
    lane
}

/// The task that had the job is gone: the runtime is being shut down.
fn vanished() -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "the runtime ended while the write was under way; it may or may not have been committed",
    )
}
