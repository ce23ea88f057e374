//! The guard of a lock that is held.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::check_lease;
use super::command::LeaseCommand;
use super::error::LockError;
use super::fence::Fence;
use super::lease_state::LeaseState;
use super::loss::Loss;
use crate::error::Error;

/// A lock that is held, until it is released, dropped or lost.
///
/// A task renews it each third of its lease. **A lease can be lost at any time.** The database may be out of reach
/// until it ends, or the process may be stopped for longer. A client may take the lock by force, or the lock's
/// session may end. So stop work when [`lost`](Lease::lost) resolves, or send the [`fence`](Lease::fence) to a
/// resource that refuses lower ones. What must not be done twice does both.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn write_report(_: pg_session::Fence) {}
/// # async fn f(sessions: &pg_session::SessionManager) -> Result<(), pg_session::LockError> {
/// let lease = sessions.locks().lock("nightly-report").wait(Duration::from_secs(5)).await?;
/// tokio::select! {
///     () = write_report(lease.fence()) => lease.release().await?,
///     loss = lease.lost() => eprintln!("stopped: {loss}"),
/// }
/// # Ok(()) }
/// ```
///
/// Dropping it releases the lock in the background; if that fails, the lock frees itself when the lease ends.
/// [`release`](Lease::release) does it now, and says whether the lock was held to the end.
#[must_use = "dropping the lease releases the lock"]
pub struct Lease {
    state: Arc<LeaseState>,
    orders: mpsc::Sender<LeaseCommand>,
    fence: Fence,
}

impl Lease {
    pub(super) fn new(state: Arc<LeaseState>, orders: mpsc::Sender<LeaseCommand>, fence: Fence) -> Self {
        Self { state, orders, fence }
    }

    /// The fencing token of this acquisition, to be checked by what the lock protects.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Whether the lease is still held, by the clock read now. Once it is lost it stays lost.
    ///
    /// **True is true of this moment only**: nothing keeps the process from being stopped before the next line.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state.is_held()
    }

    /// How long the lease lasts if no renewal succeeds any more; zero if it is lost. Counted from
    /// before the last renewal was sent, less a hundredth for clocks that differ in speed. It never
    /// ends later than in the database.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.state.remaining()
    }

    /// Waits until the lease is lost, and says why; at once if it is lost already. To select on beside the work.
    ///
    /// Resolves when the lease ends on this node, which is before it ends in the database. It
    /// resolves with the next renewal if the database says that the lock is no longer this lease's.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; any number of tasks may wait.
    pub async fn lost(&self) -> Loss {
        self.state.lost().await
    }

    /// Renews now, for `lease` from now, and for as much at each renewal from now on. A lease that lasts longer
    /// already is not shortened.
    ///
    /// # Errors
    /// [`LockError::Expired`] and [`LockError::NotHeld`] if the lease is lost.
    /// [`LockError::Failed`] for a lease that is not between 100 ms and 24 h, and if the database
    /// did not answer. Then the renewals go on with the new length until the lease ends.
    ///
    /// # Cancel safety
    /// Dropping the future does not undo the extension.
    pub async fn extend(&self, lease: Duration) -> Result<(), LockError> {
        check_lease(lease)?;
        self.ask(|reply| LeaseCommand::Extend(lease, reply)).await
    }

    /// Releases the lock and wakes its waiters on every node.
    ///
    /// # Errors
    /// [`LockError::Expired`] and [`LockError::NotHeld`] if the lease was lost before: **the work may have overlapped
    /// with another holder's.** [`LockError::Failed`] if the database could not be reached, or with
    /// [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) if it did not answer: trying goes on in the
    /// background, and the lock frees itself when its lease ends.
    ///
    /// # Cancel safety
    /// Dropping the future releases the lock in the background.
    pub async fn release(self) -> Result<(), LockError> {
        self.ask(LeaseCommand::Release).await
    }

    /// An order that the keeper does not answer was overtaken by the lease's loss.
    async fn ask(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<(), LockError>>) -> LeaseCommand,
    ) -> Result<(), LockError> {
        let (reply, outcome) = oneshot::channel();
        if self.orders.send(order(reply)).await.is_ok()
            && let Ok(outcome) = outcome.await
        {
            return outcome;
        }
        Err(match self.state.loss() {
            Some(Loss::Gone) => LockError::NotHeld,
            Some(Loss::Shutdown) => Error::shutting_down().into(),
            Some(Loss::Expired) | None => LockError::Expired,
        })
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("fence", &self.fence).field("remaining", &self.remaining()).finish()
    }
}
