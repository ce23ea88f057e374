//! Taking a lock: asks, waits for a release or for the holder's end, asks again, until the wait is over.
//!
//! Runs in a task of its own, so that dropping the caller's future cannot cut a statement in two. A lock that was
//! taken for a caller that has stopped waiting is given back. All tries of one attempt carry one owner id. So they
//! take the lock once, with one fence.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::blocked::BlockedStatement;
use super::error::{LockError, failed};
use super::fence::Fence;
use super::lease::Lease;
use super::lease_row::LeaseRow;
use super::renewal::{Keeper, end_of};
use super::waiters::{Place, Waiters};
use crate::clock::Tick;
use crate::error::Error;
use crate::failpoints::Guard;
use crate::postgres::failure::{Failure, Verdict};
use crate::postgres::lock::{Acquired, Needs};
use crate::retry::{LOCK_FREE_WAKES, LOCK_PAUSE, LOCK_TRIES_MAX, LOCK_WAKE_PAUSE};

type Reply = oneshot::Sender<Result<Lease, LockError>>;

pub(super) struct Attempt {
    row: LeaseRow,
    waiters: Arc<Waiters>,
    label: Option<String>,
    lease: Duration,
    wait: Duration,
    /// Whether a try was not answered, so that the lock may be taken.
    in_doubt: bool,
}

/// A lease that was granted to a statement sent at `sent`.
struct Grant {
    fence: Fence,
    sent: Tick,
}

/// Why it was not granted, and how long to wait before asking again.
struct Refusal {
    error: LockError,
    pause: Option<Duration>,
}

impl Attempt {
    pub(super) fn new(
        row: LeaseRow,
        waiters: Arc<Waiters>,
        label: Option<String>,
        lease: Duration,
        wait: Duration,
    ) -> Self {
        Self { row, waiters, label, lease, wait, in_doubt: false }
    }

    /// Takes the lock, answers, and keeps what it took.
    pub(super) async fn run(mut self, mut reply: Reply) {
        match self.take(&mut reply).await {
            Ok(Grant { fence, sent }) => {
                let (guard, keeper) = Keeper::new(self.row, fence, self.lease, sent);
                // If the caller does not wait any more, the guard is dropped here, and the renewal task releases the lock.
                let _ = reply.send(Ok(guard));
                keeper.run().await;
            }
            Err(error) => {
                let _ = reply.send(Err(error));
                if self.in_doubt {
                    self.row.free(self.lease).await;
                }
            }
        }
    }

    async fn take(&mut self, reply: &mut Reply) -> Result<Grant, LockError> {
        let place = self.waiters.enter(self.row.key.topic());
        if self.wait.is_zero() {
            return self.ask(&place, reply).await.map_err(|refusal| refusal.error);
        }
        let stop = self.row.stop.clone();
        let mut over = std::pin::pin!(sleep(self.wait));
        let turn = tokio::select! {
            turn = place.turn() => turn,
            () = &mut over => None,
            () = reply.closed() => return Err(Error::shutting_down().into()),
            () = stop.cancelled() => return Err(Error::shutting_down().into()),
        };
        let mut wakes = 0;
        loop {
            // Asks once more at the end of the wait: a release may just have been missed.
            let last = turn.is_none() || over.is_elapsed();
            let refusal = match self.ask(&place, reply).await {
                Ok(grant) => return Ok(grant),
                Err(refusal) => refusal,
            };
            let Some(pause) = refusal.pause.filter(|_| !last) else { return Err(refusal.error) };
            tokio::select! {
                () = woken(&place, pause, &mut wakes) => {}
                () = &mut over => {}
                // The caller does not read the answer.
                () = reply.closed() => return Err(refusal.error),
                () = stop.cancelled() => return Err(Error::shutting_down().into()),
            }
        }
    }

    /// Asks the database, again if another transaction got in the way.
    async fn ask(&mut self, place: &Place, reply: &mut Reply) -> Result<Grant, Refusal> {
        let LeaseRow { core, key, owner, stop, .. } = &self.row;
        let clock = &core.policy.clock;
        let blocked_max = core.database.blocked_max();
        let mut blocked = BlockedStatement::new(&self.row, Needs::SessionAndLock, blocked_max);
        let _statement = tokio::select! {
            statement = timeout(blocked_max, place.statement()) => {
                statement.map_err(|_| refusal(Failure::blocked(blocked_max)))?
            }
            () = abandoned(reply, stop) => return Err(given_up()),
        };
        let mut tries = 0;
        while tries < LOCK_TRIES_MAX {
            let sent = clock.now();
            match core.database.acquire_lock(key, *owner, self.label.as_deref(), self.lease).await {
                Ok(Acquired::Taken { fence }) => {
                    if clock.now() < end_of(sent, self.lease) {
                        let fence = if core.failpoints.holds(Guard::Fence) { fence } else { 1 };
                        return Ok(Grant { fence: Fence::new(fence), sent });
                    }
                    // The answer took as long as the lease. It is ours in the database: the next try prolongs it.
                    self.in_doubt = true;
                }
                Ok(Acquired::Held { until, left }) => {
                    let error = LockError::Held { until: until.into() };
                    return Err(Refusal { error, pause: Some(left) });
                }
                Ok(Acquired::SessionGone) => {
                    return Err(Refusal { error: LockError::SessionGone, pause: None });
                }
                Ok(Acquired::Moved) => {}
                Err(failure) if failure.verdict == Verdict::Blocked => {
                    tokio::select! {
                        free = blocked.until_free() => free.map_err(refusal)?,
                        () = abandoned(reply, stop) => return Err(given_up()),
                    }
                    continue;
                }
                Err(failure) => {
                    self.in_doubt |= failure.verdict == Verdict::Unknown;
                    return Err(refusal(failure));
                }
            }
            tries += 1;
        }
        let error = LockError::Held { until: clock.database_now().into() };
        Err(Refusal { error, pause: Some(LOCK_PAUSE) })
    }
}

/// Ends when the caller is gone, or the node shuts down.
async fn abandoned(reply: &mut Reply, stop: &CancellationToken) {
    tokio::select! {
        () = reply.closed() => {}
        () = stop.cancelled() => {}
    }
}

fn given_up() -> Refusal {
    Refusal { error: Error::shutting_down().into(), pause: None }
}

/// What the server refuses it will refuse again; everything else may pass.
fn refusal(failure: Failure) -> Refusal {
    let pause = (failure.verdict != Verdict::Refused).then_some(LOCK_PAUSE);
    Refusal { error: failed(failure), pause }
}

/// Waits for a release, for the holder's end, or for the time to look anyway.
async fn woken(place: &Place, pause: Duration, wakes: &mut u32) {
    tokio::select! {
        () = sleep(pause.min(place.poll())) => {}
        () = place.released() => {
            *wakes += 1;
            if *wakes > LOCK_FREE_WAKES {
                sleep(LOCK_WAKE_PAUSE).await;
            }
        }
    }
}
