//! The trust window: how long this node may answer from memory without a new proof that it receives
//! every notification.
//!
//! A tick with the beat sent at `s` proves that every change committed before `s` has been handled here; see
//! [`proof`](super::proof). So until `s + trust_window`, a hit is at most `trust_window` behind an acknowledged
//! change.
//!
//! I3: a read that starts at t sees every change acknowledged before t − trust_window, or fails. The reader takes
//! [`Trust::until`] *before* it looks into the cache, and the clock *after*:
//!
//! ```text
//! until ── lookup ── clock      the entry contains all changes before until − window, and now < until
//! ```
//!
//! In another order, a thread may pause between clock and lookup, or between lookup and `until`. It
//! would judge an old entry by a new proof.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Tick;
use crate::error::{Error, ErrorKind};
use crate::pins::Pins;

/// Until when hits may be served.
#[derive(Debug)]
pub(crate) struct Trust {
    /// They rest on the same proofs.
    pins: Arc<Pins>,
    until: AtomicU64,
    window: Duration,
    /// Wakes the tasks that wait for trust or for a proof.
    changed: watch::Sender<TrustState>,
}

/// What the last event has brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrustState {
    /// Until when hits may be served.
    pub(crate) until: Tick,
    /// When the last proved beat was sent. Unlike trust, it is not lost with the connection.
    pub(crate) proved: Tick,
    /// Why there will never be trust again.
    pub(crate) ended: Option<Ended>,
}

/// Why a node stopped receiving notifications for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// The manager was shut down.
    Stopped,
    /// The application shut its listener down.
    ListenerClosed,
    /// The tokio runtime that ran the node's tasks ended.
    RuntimeGone,
}

impl Ended {
    /// The error of a call that can only wait in vain.
    pub(crate) fn error(self) -> Error {
        let message = match self {
            Self::Stopped => return Error::shutting_down(),
            Self::ListenerClosed => {
                "the listener given to `listener` was shut down, so this node is never trusted again; connect a manager \
                 with a running listener"
            }
            Self::RuntimeGone => {
                "the tokio runtime in which this manager was connected has ended, and its tasks with it; keep that runtime \
                 for as long as the manager, and connect a manager in each test that has a runtime of its own"
            }
        };
        Error::new(ErrorKind::ShuttingDown, message)
    }
}

impl Trust {
    /// Untrusted until the first proof.
    pub(crate) fn new(window: Duration, pins: Arc<Pins>) -> Self {
        Self {
            pins,
            until: AtomicU64::new(0),
            window,
            changed: watch::Sender::new(TrustState { until: Tick::ZERO, proved: Tick::ZERO, ended: None }),
        }
    }

    #[inline]
    pub(crate) fn until(&self) -> Tick {
        // Acquire: who sees the new end also sees the cache as the invalidation task had left it.
        Tick::from_nanos(self.until.load(Ordering::Acquire))
    }

    /// A tick with the beat of `as_of` was received, and everything before it was handled.
    pub(crate) fn prove(&self, as_of: Tick) {
        let until = as_of.plus(self.window);
        self.pins.prove(until);
        self.set(until, Some(as_of));
    }

    /// Something may have been missed.
    pub(crate) fn revoke(&self) {
        self.set(Tick::ZERO, None);
    }

    fn set(&self, until: Tick, proved: Option<Tick>) {
        self.until.store(until.nanos(), Ordering::Release);
        self.changed.send_modify(|state| {
            *state = TrustState { until, proved: proved.unwrap_or(state.proved), ..*state };
        });
    }

    /// Ends trust for good; wakes everyone who waits for it.
    pub(crate) fn end(&self, ended: Ended) {
        self.revoke();
        self.pins.close();
        self.changed.send_modify(|state| state.ended = Some(ended));
    }

    /// Why there will never be trust again, if it has ended.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.changed.borrow().ended
    }

    /// Each change.
    pub(crate) fn watch(&self) -> watch::Receiver<TrustState> {
        self.changed.subscribe()
    }
}
