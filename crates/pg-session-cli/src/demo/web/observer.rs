//! [`Observer`]: what a node has received from PostgreSQL, and how long ago.
//!
//! The library says how long its trust lasts and how many changes it has handled. When that moved is received by looking often.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pg_session::SessionManager;
use serde::Serialize;

/// The interval of the polls. The page shows times that are at most this much too small.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

pub(super) struct Observer {
    manager: SessionManager,
    received: Mutex<Received>,
}

#[derive(Clone, Copy, Default)]
struct Received {
    /// The last proof that nothing is missing.
    barrier: Option<Instant>,
    /// The last change of a session.
    change: Option<Instant>,
    changes: u64,
}

/// What the strip shows of a node.
#[derive(Serialize, Debug)]
pub(super) struct Observation {
    /// Whether it answers from memory.
    trusted: bool,
    hits: u64,
    misses: u64,
    /// Sessions in memory.
    sessions: usize,
    barrier_ms_ago: Option<u128>,
    change_ms_ago: Option<u128>,
    changes: u64,
}

impl Observer {
    pub(super) fn new(manager: SessionManager) -> Arc<Self> {
        Arc::new(Self { manager, received: Mutex::default() })
    }

    /// Polls until the future is dropped.
    pub(super) async fn run(&self) {
        let mut interval = tokio::time::interval(POLL_INTERVAL);
        loop {
            interval.tick().await;
            self.poll();
        }
    }

    pub(super) fn observation(&self) -> Observation {
        self.poll();
        let status = self.manager.status();
        let received = *self.received();
        let ago = |at: Option<Instant>| at.map(|at| at.elapsed().as_millis());
        Observation {
            trusted: status.trusted_for.is_some(),
            hits: status.cache.hits,
            misses: status.cache.misses,
            sessions: status.cache.sessions,
            barrier_ms_ago: ago(received.barrier),
            change_ms_ago: ago(received.change),
            changes: received.changes,
        }
    }

    fn poll(&self) {
        let status = self.manager.status();
        let now = Instant::now();
        let mut received = self.received();
        // Trust counts from the moment at which the proved beat was sent.
        if let Some(left) = status.trusted_for {
            let ago = self.manager.config().trust_window.saturating_sub(left);
            received.barrier = now.checked_sub(ago);
        }
        if status.cache.invalidations != received.changes {
            received.changes = status.cache.invalidations;
            received.change = Some(now);
        }
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
