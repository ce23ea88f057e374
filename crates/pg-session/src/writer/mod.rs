//! Concurrent writes of a node, combined into few statements and few commits.
//!
//! A commit costs a disk flush, and one that notifies holds a lock of the whole cluster through it.
//! So the writes that are queued at the same time share a statement ([`queue`]); each still
//! succeeds or fails alone. After the commit the outcome goes into the cache, and only then to the
//! caller. So a caller that knows of a write reads it on this node.
//!
//! Updates, creates, rotations, deletes and what concerns any number of sessions (a user's, all) have a queue each. Last
//! accesses are gathered by [`touch`].

mod batcher;
mod blocked;
mod bulk;
mod commit;
mod create;
mod delete;
mod in_flight;
mod notices;
mod queue;
mod request;
mod rotate;
pub(crate) mod touch;
mod update;

use std::sync::Arc;

use self::batcher::QueueBounds;
use self::bulk::BulkRequest;
use self::queue::WriteQueue;
use crate::config::Config;
use crate::core::{Core, Tasks};
use crate::ending::Ending;
use crate::error::Error;
use crate::session::request::{BulkChange, DeleteSession, NewSession, Rotation, UpdateRequest};

/// The queues of the node's writes, one for each kind.
pub(crate) struct Writer {
    pub(crate) updates: WriteQueue<UpdateRequest>,
    pub(crate) creates: WriteQueue<NewSession>,
    pub(crate) rotations: WriteQueue<Rotation>,
    pub(crate) deletes: WriteQueue<DeleteSession>,
    bulk_changes: WriteQueue<BulkRequest>,
    /// Bulk changes that change no row: they need no lock, and wait for none.
    evictions: WriteQueue<BulkRequest>,
    core: Arc<Core>,
}

/// What the writer has done since the manager's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
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
    pub(crate) fn spawn(core: &Arc<Core>, tasks: &Tasks) -> Self {
        let Config { write_queue_max, write_batch_max, write_concurrency, .. } = core.config;
        let bounds = QueueBounds {
            queue_max: write_queue_max,
            batch_max: write_batch_max,
            statements_max: write_concurrency,
        };
        // Each is a statement over any number of rows. The deletion of all sessions waits for every row, beside the others.
        let alone = QueueBounds { batch_max: 1, statements_max: bounds.statements_max.max(2), ..bounds };
        notices::spawn(core, tasks);
        Self {
            updates: WriteQueue::spawn(bounds, core, tasks),
            creates: WriteQueue::spawn(bounds, core, tasks),
            rotations: WriteQueue::spawn(bounds, core, tasks),
            deletes: WriteQueue::spawn(bounds, core, tasks),
            bulk_changes: WriteQueue::spawn(alone, core, tasks),
            evictions: WriteQueue::spawn(alone, core, tasks),
            core: Arc::clone(core),
        }
    }

    /// Changes any number of sessions; returns how many living ones. Dropping the future does not undo it.
    pub(crate) async fn change_all(&self, change: BulkChange, ending: Ending) -> Result<u64, Error> {
        let is_eviction = matches!(change, BulkChange::Evict(_));
        let queue = if is_eviction { &self.evictions } else { &self.bulk_changes };
        queue.submit(BulkRequest::new(change, ending)).await
    }

    pub(crate) fn waiting(&self) -> usize {
        self.updates.waiting()
            + self.creates.waiting()
            + self.rotations.waiting()
            + self.deletes.waiting()
            + self.bulk_changes.waiting()
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
