//! Ending the node: takes no new work, finishes what is queued, and says what it could not finish.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::SessionManager;
use crate::core::TaskGroup;

/// What a shutdown left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a report may say that writes were left behind"]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Writes that were still queued at the deadline. Their callers get an error.
    pub writes_left: usize,
    /// Sessions whose last access was not written.
    pub touches_left: usize,
    /// Locks whose guards were not dropped, or that could not be given back. They end with their leases.
    pub locks_left: usize,
    /// Whether every task ended in time.
    pub all_tasks_ended: bool,
}

impl ShutdownReport {
    /// Whether nothing was left behind.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.writes_left == 0 && self.touches_left == 0 && self.locks_left == 0 && self.all_tasks_ended
    }
}

impl SessionManager {
    /// Ends the node within `deadline`. New work is refused with
    /// [`ErrorKind::ShuttingDown`](crate::ErrorKind::ShuttingDown), and queued writes are
    /// committed. Last accesses are flushed, and the listening connection is closed. Holders of
    /// locks are notified first, by [`Lease::lost`](crate::Lease::lost); what they release or drop
    /// until the deadline is free at once. Calling it again, on any clone, waits for the same end.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the shutdown.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let deadline = Instant::now() + deadline;
        let tasks = &self.0.tasks;
        tasks.locking.stop.cancel();
        let written = end(&tasks.writing, deadline).await;
        let served = end(&tasks.serving, deadline).await;
        self.0.core.events.end();
        if written && served {
            self.leave_registry(deadline).await;
        }
        let unlocked = end(&tasks.locking, deadline).await;
        let closed = !self.0.owns_listener || timeout_at(deadline, self.0.listener.shutdown()).await.is_ok();
        self.0.core.database.close();
        ShutdownReport {
            writes_left: self.0.writer.waiting(),
            touches_left: self.0.touches.waiting_count(),
            locks_left: self.0.locks.count(),
            all_tasks_ended: written && served && unlocked && closed,
        }
    }

    /// Removes the node's row. Trust has ended, so `everywhere()` need not wait for this node. If the row stays, other nodes
    /// remove it later, and verify what they have in memory. That is necessary if this node still owes them a notification.
    async fn leave_registry(&self, deadline: Instant) {
        let node = &self.0;
        let owes = !node.core.unnotified.snapshot().is_empty();
        if owes || node.prover.registration().is_none() || node.trust.ended().is_none() {
            return;
        }
        match timeout_at(deadline, node.core.database.leave(node.prover.node())).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => {
                debug!(error = %failure.error, "the node's row in the registry is left behind");
            }
            Err(_) => debug!("the node's row in the registry is left behind"),
        }
    }
}

async fn end(group: &TaskGroup, deadline: Instant) -> bool {
    group.stop.cancel();
    group.tasks.close();
    timeout_at(deadline, group.tasks.wait()).await.is_ok()
}
