//! The task behind a guard: renews, extends, reports the loss, frees.
//!
//! All renewals of a lease go through here, one at a time. They are sent a third of the lease after
//! the one before. One that fails, or has no answer within as much, is sent again until the lease
//! ends. A renewal without an answer counts as not made. If it was made, it only lengthened what is
//! then freed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::blocked::BlockedStatement;
use super::command::LeaseCommand;
use super::error::{LockError, failed};
use super::fence::Fence;
use super::lease::Lease;
use super::lease_row::LeaseRow;
use super::lease_state::LeaseState;
use super::loss::Loss;
use crate::clock::Tick;
use crate::error::Error;
use crate::postgres::failure::{Failure, Verdict};
use crate::postgres::lock::{Freed, Needs};
use crate::retry::{RELEASE, RENEWAL_PAUSE_PART};

/// A renewal each third of the lease: two may fail before the lease ends.
const RENEWALS_PER_LEASE: u32 = 3;
/// This part of each lease is given up, for clocks that differ in speed and timers that fire late.
const MARGIN_PART: u32 = 100;

/// When a lease ends that was asked for by a statement sent at `sent`.
pub(super) fn end_of(sent: Tick, lease: Duration) -> Tick {
    sent.plus(lease - lease / MARGIN_PART)
}

pub(super) struct Keeper {
    row: LeaseRow,
    state: Arc<LeaseState>,
    orders: mpsc::Receiver<LeaseCommand>,
    lease: Duration,
    /// When the next renewal is due.
    next: Tick,
}

/// Why holding ended.
enum Ending {
    Dropped,
    Released(oneshot::Sender<Result<(), LockError>>),
    Lost(Loss),
}

impl Keeper {
    /// For a lease that was granted to a statement sent at `sent`.
    pub(super) fn new(row: LeaseRow, fence: Fence, lease: Duration, sent: Tick) -> (Lease, Self) {
        let state = Arc::new(LeaseState::new(Arc::clone(&row.core.policy), end_of(sent, lease)));
        // One order at a time: a guard has one owner, and `extend` waits for its answer.
        let (sender, orders) = mpsc::channel(1);
        let guard = Lease::new(Arc::clone(&state), sender, fence);
        let next = sent.plus(lease / RENEWALS_PER_LEASE);
        (guard, Self { row, state, orders, lease, next })
    }

    /// Keeps the lease until it is released, dropped or lost; then frees what may be left of it.
    pub(super) async fn run(mut self) {
        match self.hold().await {
            Ending::Dropped => self.row.free(self.lease).await,
            Ending::Released(reply) => self.release(reply).await,
            Ending::Lost(loss) => {
                let lock = self.row.key.name();
                warn!(lock, %loss, "a lock was lost before its holder released it");
                // From here on an order is answered by the loss.
                self.orders.close();
                if loss == Loss::Expired {
                    // An unanswered renewal may have been made. No waiter should wait for its end.
                    self.row.free(self.lease).await;
                }
            }
        }
    }

    async fn hold(&mut self) -> Ending {
        let stop = self.row.stop.clone();
        loop {
            let remaining = self.state.remaining();
            if remaining.is_zero() {
                return Ending::Lost(self.state.loss().unwrap_or(Loss::Expired));
            }
            let now = self.row.core.policy.clock.now();
            tokio::select! {
                order = self.orders.recv() => match order {
                    None => return Ending::Dropped,
                    Some(LeaseCommand::Release(reply)) => return Ending::Released(reply),
                    Some(LeaseCommand::Extend(lease, reply)) => {
                        self.lease = lease;
                        let _ = reply.send(self.renew().await);
                    }
                },
                () = sleep(self.next.since(now).min(remaining)) => {
                    if self.next <= self.row.core.policy.clock.now() {
                        // The loop's head looks at what became of it.
                        let _ = self.renew().await;
                    }
                }
                () = stop.cancelled() => return self.wind_down(remaining).await,
            }
        }
    }

    /// Renews once; a loss is reported before this returns.
    async fn renew(&mut self) -> Result<(), LockError> {
        let remaining = self.state.remaining();
        if remaining.is_zero() {
            return Err(LockError::Expired);
        }
        let clock = &self.row.core.policy.clock;
        let timeout = (self.lease / RENEWALS_PER_LEASE).min(remaining);
        let LeaseRow { core, key, owner, .. } = &self.row;
        let mut blocked = BlockedStatement::new(&self.row, Needs::Lock, timeout);
        let (sent, outcome) = loop {
            let sent = clock.now();
            let outcome = core.database.renew_lock(key, *owner, self.lease, timeout).await;
            if !outcome.as_ref().is_err_and(|failure| failure.verdict == Verdict::Blocked) {
                break (sent, outcome);
            }
            if let Err(failure) = blocked.until_free().await {
                break (sent, Err(failure));
            }
        };
        drop(blocked);
        let outcome = match outcome {
            Ok(true) if self.state.renew(end_of(sent, self.lease)) => {
                self.next = sent.plus(self.lease / RENEWALS_PER_LEASE);
                return Ok(());
            }
            Ok(true) => Err(LockError::Expired),
            Ok(false) => {
                self.state.lose(Loss::Gone);
                Err(LockError::NotHeld)
            }
            Err(failure) => {
                debug!(lock = key.name(), error = %failure.error, "a lock could not be renewed, trying again");
                Err(failed(failure))
            }
        };
        self.next = clock.now().plus((self.lease / RENEWAL_PAUSE_PART).min(RELEASE.max));
        outcome
    }

    /// The node is going down. The holder is notified. The lock stays taken while the holder ends
    /// its work, for as long as the lease lasts. Freeing it at once would let the next holder in
    /// beside this one.
    async fn wind_down(&mut self, remaining: Duration) -> Ending {
        self.state.lose(Loss::Shutdown);
        let wound_down = tokio::time::timeout(remaining, async {
            loop {
                match self.orders.recv().await {
                    None => return Ending::Dropped,
                    Some(LeaseCommand::Release(reply)) => return Ending::Released(reply),
                    Some(LeaseCommand::Extend(_, reply)) => {
                        let _ = reply.send(Err(Error::shutting_down().into()));
                    }
                }
            }
        });
        wound_down.await.unwrap_or(Ending::Lost(Loss::Shutdown))
    }

    /// Returns what the first try says; if that does not say that the lock is free, goes on trying.
    async fn release(&mut self, reply: oneshot::Sender<Result<(), LockError>>) {
        // A lease that a shutdown ended was the holder's until now.
        let held = self.state.is_held() || self.state.loss() == Some(Loss::Shutdown);
        let answer = match self.row.release().await {
            Ok(Freed::Live) if held => Ok(()),
            Ok(Freed::Live | Freed::Expired) => Err(LockError::Expired),
            Ok(Freed::NotOwned) => Err(LockError::NotHeld),
            Err(failure) => {
                let _ = reply.send(Err(failed(failure)));
                self.row.free(self.lease).await;
                return;
            }
        };
        let _ = reply.send(answer);
    }
}

impl Drop for Keeper {
    /// Whatever ends the task ends the lease: a guard without a keeper must not believe that it is renewed.
    fn drop(&mut self) {
        self.state.lose(Loss::Expired);
    }
}

impl LeaseRow {
    /// Frees the lock, once its row can be written.
    async fn release(&self) -> Result<Freed, Failure> {
        let Self { core, key, owner, .. } = self;
        let mut blocked = BlockedStatement::new(self, Needs::Lock, core.database.blocked_max());
        loop {
            match core.database.release_lock(key, *owner).await {
                Err(failure) if failure.verdict == Verdict::Blocked => blocked.until_free().await?,
                outcome => return outcome,
            }
        }
    }

    /// Gives back what is or may be taken, for at most `lease`, after which it is free anyway.
    pub(super) async fn free(&self, lease: Duration) {
        let Self { core, stop, key, .. } = self;
        let end = core.policy.clock.now().plus(lease);
        let mut pause = RELEASE.first;
        loop {
            let failure = match self.release().await {
                Ok(freed) => return debug!(lock = key.name(), ?freed, "gave a lock back"),
                Err(failure) => failure,
            };
            if stop.is_cancelled() || core.policy.clock.now() >= end {
                let lock = key.name();
                return info!(lock, error = %failure.error, "a lock could not be given back, it ends with its lease");
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => {}
            }
            pause = RELEASE.after(pause);
        }
    }
}
