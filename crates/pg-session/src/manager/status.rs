//! How the node is doing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::SessionManager;
use crate::cache::CacheStats;
use crate::clock::wall_now;
use crate::error::{Error, ErrorKind};
use crate::events::Events;
use crate::invalidation::trust::TrustState;
use crate::loader::LoadStats;
use crate::observer::ObserverStats;
use crate::writer::WriteStats;

/// The node at one moment. As JSON, for a health check; durations are texts like `5s 200ms`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// How long the node may answer from memory without a further proof. `None`: it reads from the database.
    #[serde(with = "humantime_serde")]
    pub trusted_for: Option<Duration>,
    /// Why not: the last error of the listener or of the pool's notification, for people to read. `None` while it is trusted.
    pub trust_error: Option<String>,
    /// Why the node's own pool could not connect, if its last attempt failed, for people to read. Open connections may still
    /// serve. Always `None` with an application's pool.
    pub connect_error: Option<String>,
    /// The cache's counters.
    pub cache: CacheStats,
    /// The loader's counters.
    pub loads: LoadStats,
    /// The writer's counters.
    pub writes: WriteStats,
    /// Sessions whose last access waits to be written.
    pub touches_waiting: usize,
    /// Locks that this node holds, waits for, or gives back.
    pub locks: usize,
    /// Sessions that are pinned on this node; see [`Pin`](crate::Pin).
    pub pins: usize,
    /// Answers from memory that were compared with the database afterwards.
    pub observer: ObserverStats,
    /// Flushes of last accesses that failed since the manager's start; what they could not write waits.
    pub touch_failures: u64,
}

impl SessionManager {
    /// How the node is doing. Cheap enough for a health check per second.
    #[must_use]
    pub fn status(&self) -> Status {
        let node = &self.0;
        let left = node.trust.until().nanos().saturating_sub(node.core.policy.clock.now().nanos());
        let trusted_for = (left > 0).then(|| Duration::from_nanos(left));
        Status {
            trusted_for,
            trust_error: trusted_for.is_none().then(|| node.trust_error()),
            connect_error: node.core.database.connect_error(),
            cache: node.core.cache.stats(),
            loads: node.loader.stats(),
            writes: node.writer.stats(),
            touches_waiting: node.touches.waiting_count(),
            locks: node.locks.count(),
            pins: node.core.pins.count(),
            observer: ObserverStats::of(&node.core.counters),
            touch_failures: node.touches.failure_count(),
        }
    }

    /// What this node does and observes from here on, as a stream of [`Event`](crate::Event)s. They are ends of
    /// sessions on any node, with their causes; creates and rotations of this node; and its trust.
    ///
    /// It is bounded: a reader that is 1 024 events behind loses the oldest, and gets their number. While the node is not trusted,
    /// ends are missed. **An audit needs [`audit`](SessionManager::audit), which misses none.**
    #[must_use]
    pub fn events(&self) -> Events {
        self.0.core.events.subscribe()
    }

    /// Waits until the node is in sync and serves from memory. While the listener cannot connect, this waits;
    /// [`Status::trust_error`] has the reason.
    ///
    /// # Errors
    /// [`ErrorKind::ShuttingDown`] if the node will never be trusted again: it was shut down, or the listener that it
    /// shares has ended, or its tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_until_trusted(&self) -> Result<(), Error> {
        let mut changes = self.0.trust.watch();
        let is_settled =
            |state: &TrustState| state.ended.is_some() || self.0.core.policy.clock.now() < state.until;
        // An error means that the sender is gone, which `self` keeps.
        let ended = changes.wait_for(is_settled).await.ok().and_then(|state| state.ended);
        ended.map_or(Ok(()), |ended| Err(ended.error()))
    }

    /// The time by the database's clock, as this node knows it: at most a round trip ahead, never behind. It costs no query.
    /// Compare a session's times with it, not with the clock of the machine.
    #[must_use]
    pub fn database_time(&self) -> SystemTime {
        self.0.core.policy.clock.database_now().into()
    }

    /// A time by this machine's clock as a time by the database's clock. For times that other libraries made from the
    /// machine's clock. The difference of the clocks counts in whole seconds, so a time survives the way there and back.
    ///
    /// A time that is out of range comes back as it is.
    #[must_use]
    pub fn to_database_time(&self, node_time: SystemTime) -> SystemTime {
        moved(node_time, wall_now(), self.database_time())
    }

    /// The reverse of [`to_database_time`](SessionManager::to_database_time).
    #[must_use]
    pub fn to_node_time(&self, database_time: SystemTime) -> SystemTime {
        moved(database_time, self.database_time(), wall_now())
    }

    /// Sends a notification through the pool and waits until this node's listener receives it. Then this node has handled
    /// every change that any node committed before this call.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the listener is not connected, or does not receive the notification within
    /// `trust_window`. [`ErrorKind::ShuttingDown`] as for [`wait_until_trusted`](SessionManager::wait_until_trusted).
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn catch_up(&self) -> Result<(), Error> {
        let node = &self.0;
        let (mut changes, mut attempts) = (node.trust.watch(), node.prover.watch());
        if let Some(ended) = node.trust.ended() {
            return Err(ended.error());
        }
        if !node.listener.status().is_connected() {
            return Err(not_proved("the listener is not connected; it is being replaced", None));
        }
        let asked = node.core.policy.clock.now();
        node.prover.want();
        let outcome = async {
            tokio::select! {
                proved = changes.wait_for(|state| state.proved >= asked) => proved.map(|_| None).ok(),
                failed = attempts.wait_for(|attempts| attempts.failed.is_some_and(|failed| failed >= asked)) => {
                    failed.map(|attempts| Some(attempts.error.clone())).ok()
                }
            }
        };
        match tokio::time::timeout(node.core.config.trust_window, outcome).await {
            Ok(Some(None)) => Ok(()),
            Ok(Some(Some(cause))) => {
                Err(not_proved("no notification could be sent through the pool and received", cause))
            }
            Ok(None) | Err(_) => {
                Err(not_proved("the listener did not receive a notification that the pool sent", None))
            }
        }
    }
}

fn not_proved(what: &str, cause: Option<Arc<Error>>) -> Error {
    let error = Error::new(ErrorKind::Unavailable, what.to_owned());
    match cause {
        Some(cause) => error.with_source(cause.to_string()),
        None => error,
    }
}

/// Adds the difference of two clocks that were read at the same time, to the nearest second.
fn moved(time: SystemTime, from: SystemTime, to: SystemTime) -> SystemTime {
    let seconds =
        |difference: Duration| Duration::from_secs((difference + Duration::from_millis(500)).as_secs());
    let moved = match to.duration_since(from) {
        Ok(later) => time.checked_add(seconds(later)),
        Err(earlier) => time.checked_sub(seconds(earlier.duration())),
    };
    moved.unwrap_or(time)
}
