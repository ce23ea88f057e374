//! Locks across nodes: leases on the database's clock, with fencing tokens, and holders that learn of a loss.
//!
//! Each acquisition is one task with an owner id of its own, from the first statement to the last:
//!
//! ```text
//! waiting ──taken──▶ held ⟲ renewed ──released, dropped, stopped──▶ freeing ──▶ end
//!    │                 └──deadline passed, not ours any more──▶ lost ──▶ freeing ──▶ end
//!    └──held by another until the wait's end, session gone, failure, caller gone──▶ (freeing) ──▶ end
//! ```
//!
//! - [`attempt`] waits and takes. [`waiters`] holds this node's waiters. [`renewal`] renews and frees. [`lease`] is the
//!   guard, which shares [`lease_state`] with the renewal.
//! - A statement whose row another transaction has locked holds no connection; see [`blocked`].
//! - The lease's end on this node is counted from *before* the statement that granted it was sent.
//!   So it comes before its end in the database, whatever the network did.
//! - An outcome that is not known is never a success. What may have been taken is given back.
//! - I8: the fence that a holder gets is higher than that of every holder before it.
//! - I9: a node holds or waits for at most [`LOCKS_MAX`] locks; for each name, one waiter of a node asks the database.
//!
//! No fairness is promised: waiters of one node take turns in their order, nodes race.

mod attempt;
mod blocked;
mod command;
mod error;
mod fence;
mod lease;
mod lease_row;
mod lease_state;
mod loss;
mod renewal;
pub(crate) mod waiters;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

use self::attempt::Attempt;
use self::blocked::RETRIES_MAX;
pub use self::error::LockError;
pub use self::fence::Fence;
pub use self::lease::Lease;
use self::lease_row::LeaseRow;
pub use self::loss::Loss;
use self::waiters::Waiters;
use crate::config::HumanDuration;
use crate::core::{Core, TaskGroup, Tasks};
use crate::error::{Error, ErrorKind};
use crate::id::SessionId;
use crate::lock_key::{LockKey, check_text};
use crate::postgres::lock::Holding;
use crate::spans;

/// Locks that one node may hold or wait for at once.
pub(crate) const LOCKS_MAX: usize = 10_000;
/// The shortest lease: below it, a third of it is not enough for a round trip under load.
pub(crate) const LEASE_MIN: Duration = Duration::from_millis(100);
/// The longest lease. The lock of a crashed holder is taken until its lease ends.
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The longest wait for a lock.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The locks of one node.
pub(crate) struct Locks {
    core: Arc<Core>,
    waiters: Arc<Waiters>,
    slots: Arc<Semaphore>,
    /// Of statements whose rows were locked.
    retries: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What is asked for.
pub(crate) struct Request {
    pub(crate) key: LockKey,
    pub(crate) label: Option<String>,
    pub(crate) lease: Duration,
    pub(crate) wait: Duration,
}

impl Locks {
    /// Each lock has a task of its own. It gives back what it holds when it is stopped.
    pub(crate) fn new(core: &Arc<Core>, tasks: &Tasks, waiters: Arc<Waiters>) -> Self {
        let TaskGroup { tasks, stop, .. } = &tasks.locking;
        Self {
            core: Arc::clone(core),
            waiters,
            slots: Arc::new(Semaphore::new(LOCKS_MAX)),
            retries: Arc::new(Semaphore::new(RETRIES_MAX)),
            tasks: tasks.clone(),
            stop: stop.clone(),
        }
    }

    /// Takes the lock. If the future is dropped, what was taken or may have been taken is given back.
    pub(crate) async fn acquire(&self, request: Request) -> Result<Lease, LockError> {
        check(&request)?;
        if request.key.has_no_session() {
            return Err(LockError::SessionGone);
        }
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| overloaded())?;
        let (reply, outcome) = oneshot::channel();
        let row = LeaseRow {
            core: Arc::clone(&self.core),
            stop: self.stop.clone(),
            key: request.key,
            owner: Uuid::new_v4(),
            retries: Arc::clone(&self.retries),
        };
        let waiters = Arc::clone(&self.waiters);
        let attempt = Attempt::new(row, waiters, request.label, request.lease, request.wait);
        self.tasks.spawn(async move {
            attempt.run(reply).await;
            drop(slot);
        });
        outcome.instrument(spans::lock_wait()).await.unwrap_or_else(|_| Err(vanished().into()))
    }

    /// Who has the lock.
    pub(crate) async fn holder(&self, key: &LockKey) -> Result<Option<Holding>, Error> {
        self.core.database.lock_holder(key).await.map_err(|failure| failure.into_read_error())
    }

    /// The held locks of all nodes, at most `count`.
    pub(crate) async fn held(&self, count: u32) -> Result<Vec<(Option<SessionId>, String, Holding)>, Error> {
        self.core.database.held_locks(count).await.map_err(|failure| failure.into_read_error())
    }

    /// Locks that are held, waited for or being given back.
    pub(crate) fn count(&self) -> usize {
        LOCKS_MAX - self.slots.available_permits()
    }
}

fn check(request: &Request) -> Result<(), Error> {
    if let Some(label) = &request.label {
        check_text("a lock's label", label)?;
    }
    check_lease(request.lease)?;
    if request.wait > WAIT_MAX {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "`wait` of a lock is {}; choose at most {}",
                HumanDuration(request.wait),
                HumanDuration(WAIT_MAX)
            ),
        ));
    }
    Ok(())
}

fn check_lease(lease: Duration) -> Result<(), Error> {
    if (LEASE_MIN..=LEASE_MAX).contains(&lease) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!(
            "`lease` of a lock is {}; choose between {} and {}",
            HumanDuration(lease),
            HumanDuration(LEASE_MIN),
            HumanDuration(LEASE_MAX)
        ),
    ))
}

fn overloaded() -> Error {
    Error::new(
        ErrorKind::Overloaded,
        format!("this node holds or waits for {LOCKS_MAX} locks; release some, or wait for fewer at once"),
    )
}

/// The task is gone: the runtime is being shut down.
fn vanished() -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "the runtime ended while the lock was being taken; if it was, it frees itself when its lease ends",
    )
}
