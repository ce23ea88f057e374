//! [`Ear`]: what a node has received from PostgreSQL, and how long ago.
//!
//! The library says how long its trust lasts and how many changes it has handled. When that moved is seen by looking often.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pg_session::SessionManager;
use serde::Serialize;

/// How often it is looked: what the page shows is at most this much too young.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(super) struct Ear {
    manager: SessionManager,
    heard: Mutex<Heard>,
}

#[derive(Clone, Copy, Default)]
struct Heard {
    /// The last proof that nothing is missing.
    barrier: Option<Instant>,
    /// The last change of a session.
    change: Option<Instant>,
    changes: u64,
}

/// What the strip shows of a node.
#[derive(Serialize, Debug)]
pub(super) struct Hearing {
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

impl Ear {
    pub(super) fn new(manager: SessionManager) -> Arc<Self> {
        Arc::new(Self { manager, heard: Mutex::default() })
    }

    /// Looks until it is dropped.
    pub(super) async fn listen(&self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            self.look();
        }
    }

    pub(super) fn hearing(&self) -> Hearing {
        self.look();
        let status = self.manager.status();
        let heard = *self.heard();
        let ago = |at: Option<Instant>| at.map(|at| at.elapsed().as_millis());
        Hearing {
            trusted: status.trusted_for.is_some(),
            hits: status.cache.hits,
            misses: status.cache.misses,
            sessions: status.cache.sessions,
            barrier_ms_ago: ago(heard.barrier),
            change_ms_ago: ago(heard.change),
            changes: heard.changes,
        }
    }

    fn look(&self) {
        let status = self.manager.status();
        let now = Instant::now();
        let mut heard = self.heard();
        // Trust counts from the moment at which the barrier was sent that came back.
        if let Some(left) = status.trusted_for {
            let ago = self.manager.config().trust_window.saturating_sub(left);
            heard.barrier = now.checked_sub(ago);
        }
        if status.cache.invalidations != heard.changes {
            heard.changes = status.cache.invalidations;
            heard.change = Some(now);
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
