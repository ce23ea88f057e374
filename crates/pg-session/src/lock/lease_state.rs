//! Whether a lease is still held: one atomic word, shared by the guard and its keeper.
//!
//! The word is the tick at which the lease ends, or [`LOST`]. It becomes `LOST` once, by the first
//! to notice: the keeper, or a guard that reads the clock. It never becomes anything else again. A
//! holder that has seen the loss never sees the contrary. A renewal whose answer comes too late
//! renews nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::loss::Loss;
use crate::clock::Tick;
use crate::session::record::Policy;

/// No lease ends at the clock's first nanosecond.
const LOST: u64 = 0;

#[derive(Debug)]
pub(super) struct LeaseState {
    policy: Arc<Policy>,
    until: AtomicU64,
    loss: watch::Sender<Option<Loss>>,
}

impl LeaseState {
    pub(super) fn new(policy: Arc<Policy>, until: Tick) -> Self {
        Self { policy, until: AtomicU64::new(until.nanos()), loss: watch::Sender::new(None) }
    }

    /// Whether the lease is held, by the clock read now: a process that was stopped finds out here.
    pub(super) fn is_held(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// How long it lasts without a renewal; zero if it is lost.
    pub(super) fn remaining(&self) -> Duration {
        loop {
            let until = self.until.load(Ordering::Acquire);
            if until == LOST {
                return Duration::ZERO;
            }
            let left = Tick::from_nanos(until).since(self.policy.clock.now());
            if !left.is_zero() {
                return left;
            }
            if self.replace(until, LOST) {
                self.loss.send_replace(Some(Loss::Expired));
            }
        }
    }

    /// A statement that was granted extends the lease to `until`. Returns whether it came in time.
    pub(super) fn renew(&self, until: Tick) -> bool {
        if !self.is_held() {
            return false;
        }
        let old = self.until.load(Ordering::Acquire);
        // Only the keeper renews, so a word that changed since is `LOST`.
        old != LOST && self.replace(old, until.nanos().max(old))
    }

    /// The lease is lost; the first reason counts.
    pub(super) fn lose(&self, loss: Loss) {
        if self.until.swap(LOST, Ordering::AcqRel) != LOST {
            self.loss.send_replace(Some(loss));
        }
    }

    /// Waits for the loss, at once if it has happened. The keeper reports it.
    pub(super) async fn lost(&self) -> Loss {
        let mut losses = self.loss.subscribe();
        // Before waiting: a process that was stopped must not wait for its keeper to be scheduled.
        self.is_held();
        let loss = losses.wait_for(Option::is_some).await;
        // The sender is in `self`: it cannot be gone.
        loss.ok().and_then(|loss| *loss).unwrap_or(Loss::Expired)
    }

    /// Why it was lost, if it was.
    pub(super) fn loss(&self) -> Option<Loss> {
        *self.loss.borrow()
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        self.until.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::Config;

    const SECOND: Duration = Duration::from_secs(1);

    fn state() -> (Arc<AtomicU64>, LeaseState) {
        let nanos = Arc::new(AtomicU64::new(1));
        let policy = Config::default().policy(Clock::manual(Arc::clone(&nanos)));
        (nanos, LeaseState::new(policy, Tick::ZERO.plus(SECOND)))
    }

    #[test]
    fn a_lease_is_lost_at_the_very_tick_of_its_end() {
        let (nanos, state) = state();
        nanos.store(999_999_999, Ordering::SeqCst);
        assert!(state.is_held());
        nanos.store(1_000_000_000, Ordering::SeqCst);
        assert!(!state.is_held());
        assert_eq!(state.loss(), Some(Loss::Expired));
    }

    #[test]
    fn what_was_lost_is_not_renewed() {
        let (nanos, state) = state();
        nanos.store(1_000_000_000, Ordering::SeqCst);
        assert!(!state.renew(Tick::ZERO.plus(SECOND * 2)), "the answer came too late");
        assert!(!state.is_held());
    }

    #[test]
    fn a_renewal_never_shortens() {
        let (_, state) = state();
        assert!(state.renew(Tick::ZERO.plus(SECOND / 2)));
        assert!(state.remaining() > SECOND / 2);
    }

    #[tokio::test]
    async fn the_first_reason_counts() {
        let (_, state) = state();
        state.lose(Loss::Gone);
        state.lose(Loss::Shutdown);
        assert_eq!(state.lost().await, Loss::Gone);
    }
}
