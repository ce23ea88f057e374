//! Proves that this node receives what its pool commits: a random number, sent through the pool, that comes back.
//!
//! The listener's own barrier proves that its connection delivers everything that was committed *on its server*. It says
//! nothing about the server that the pool writes to. After a failover, a redirected pooler or a mistake in `listen_on`,
//! these are two servers or two databases, and the node would trust a listener that never receives a revocation.
//!
//! So the number takes the way of a write: `pg_notify` in a transaction of its own, on a connection of the pool.
//! PostgreSQL delivers notifications in the order of their commits. When the number is received, the node has handled
//! every change that was committed before it was sent.
//!
//! ```text
//! prover        as_of ── pg_notify(number) through the pool
//! invalidation                 … all earlier notifications … number ── trusted until as_of + trust_window
//! ```
//!
//! Any role can send notifications on the channel. Only the number that is awaited now counts, and it has 122 random bits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::trust::Trust;
use crate::clock::Tick;
use crate::core::{Core, Tasks};
use crate::error::Error;
use crate::notification::ServerId;

/// Proofs each trust window: two may be lost before trust ends.
pub(crate) const PROOFS_PER_WINDOW: u32 = 3;
/// The shortest wait for a number to come back.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// Sends the numbers, and recognises the one that comes back.
pub(crate) struct Prover {
    core: Arc<Core>,
    trust: Arc<Trust>,
    interval: Duration,
    wait: Duration,
    /// Asks for a proof now.
    wanted: Notify,
    /// Whether LISTEN is in force. Each change ends the attempt in flight: its number may have been committed before.
    listening: watch::Sender<bool>,
    pending: Mutex<Option<Pending>>,
    /// Whether the memory is to be verified after the next proof.
    unverified: AtomicBool,
    /// Asks for that.
    resync: Arc<Notify>,
    attempts: watch::Sender<Attempts>,
}

struct Pending {
    number: Uuid,
    as_of: Tick,
}

/// The attempts so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempts {
    /// When the last attempt began that failed.
    pub(crate) failed: Option<Tick>,
    /// Why, if the number could not be sent; otherwise it was committed and not received.
    pub(crate) error: Option<Arc<Error>>,
    /// Numbers in a row that were committed and not received.
    pub(crate) unreceived: u64,
    /// Whether the last number was committed, and is not received yet.
    pub(crate) committed: bool,
}

impl Prover {
    /// Starts the task.
    pub(crate) fn spawn(
        core: &Arc<Core>,
        tasks: &Tasks,
        trust: &Arc<Trust>,
        resync: &Arc<Notify>,
    ) -> Arc<Self> {
        let trust_window = core.config.trust_window;
        let interval = trust_window / PROOFS_PER_WINDOW;
        let prover = Arc::new(Self {
            core: Arc::clone(core),
            trust: Arc::clone(trust),
            interval,
            // One that takes longer than the rest of the window cannot renew the trust in time.
            wait: (trust_window - interval).max(WAIT_MIN),
            wanted: Notify::new(),
            listening: watch::Sender::new(false),
            pending: Mutex::default(),
            unverified: AtomicBool::new(false),
            resync: Arc::clone(resync),
            attempts: watch::Sender::default(),
        });
        tasks.serving.spawn(|stop| Arc::clone(&prover).run(stop));
        prover
    }

    /// While the node listens, sends a number at each interval and when one is asked for, until stopped.
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut listening = self.listening.subscribe();
        loop {
            tokio::select! {
                // An error means that the sender is gone, which `self` keeps.
                _ = listening.wait_for(|listening| *listening) => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                proved = self.prove(&mut listening) => if !proved { continue },
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = self.wanted.notified() => {}
                _ = listening.changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// LISTEN is in force on a new connection, or the connection is lost.
    pub(crate) fn set_listening(&self, listening: bool) {
        if listening {
            self.unverified.store(true, Ordering::Relaxed);
        }
        self.listening.send_replace(listening);
    }

    /// Asks for a proof that begins after this call.
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Each attempt that failed.
    pub(crate) fn watch(&self) -> watch::Receiver<Attempts> {
        self.attempts.subscribe()
    }

    /// A number was received. The invalidation task calls this after it has handled all earlier notifications.
    ///
    /// `server` is where the pool led to. If it is another one than at the proof before, what is in memory is verified before
    /// it is served.
    pub(crate) fn received(&self, number: Uuid, server: ServerId) {
        let proved = self.pending().take_if(|pending| pending.number == number);
        let Some(Pending { as_of, .. }) = proved else { return };
        if self.core.set_proved(server) != Some(server) {
            self.core.cache.begin_epoch();
            self.unverified.store(true, Ordering::Relaxed);
        }
        if self.unverified.swap(false, Ordering::Relaxed) {
            self.resync.notify_one();
        }
        self.trust.prove(as_of);
    }

    /// One attempt. Returns false if the listener's connection changed meanwhile: the number may have been committed before
    /// LISTEN was in force.
    async fn prove(&self, listening: &mut watch::Receiver<bool>) -> bool {
        let number = Uuid::new_v4();
        // Before the number is sent, so never later than its commit.
        let as_of = self.core.policy.clock.now();
        let mut changes = self.trust.watch();
        *self.pending() = Some(Pending { number, as_of });
        // Not dropped half-way: its connection would go back to the pool with an answer that may never come.
        if let Err(failure) = self.core.database.notify_proof(number, self.wait).await {
            self.failed(as_of, Some(Arc::new(failure.into_read_error())));
            return true;
        }
        self.attempts.send_modify(|attempts| attempts.committed = true);
        tokio::select! {
            _ = changes.wait_for(|state| state.proved >= as_of) => {
                self.attempts.send_modify(|attempts| {
                    (attempts.unreceived, attempts.committed, attempts.error) = (0, false, None);
                });
            }
            _ = listening.changed() => return false,
            () = tokio::time::sleep(self.wait) => self.failed(as_of, None),
        }
        true
    }

    fn failed(&self, as_of: Tick, error: Option<Arc<Error>>) {
        self.attempts.send_modify(|attempts| {
            attempts.failed = Some(as_of);
            attempts.unreceived += u64::from(error.is_none());
            attempts.error = error;
        });
        let unreceived = self.attempts.borrow().unreceived;
        // A listener that is not connected is reported as lost.
        if unreceived.is_power_of_two() && self.attempts.borrow().error.is_none() {
            warn!(
                unreceived,
                "the listener did not receive what the pool committed; the node reads from the database until it does. \
                 If this lasts, `listen_on` and the pool reach different databases or servers"
            );
        } else {
            debug!(unreceived, "no proof of the listener's connection");
        }
    }

    fn pending(&self) -> MutexGuard<'_, Option<Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
