//! What the tasks of one node share, and the tasks themselves.
//!
//! A task is started by the `spawn` function of what it does. That function takes the [`Core`] and the [`Tasks`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::cache::{Cache, Capacity, Ticket};
use crate::config::Config;
use crate::contention::{Contention, NotifyPolicy};
use crate::events::EventSender;
use crate::failpoints::{Guard, Probes};
use crate::id::{Scope, SessionId, UserId};
use crate::notification::ServerId;
use crate::pins::{Life, Pins};
use crate::postgres::Database;
use crate::postgres::failure::Failure;
use crate::session::record::Policy;
use crate::signing::KeyUses;
use crate::version::Version;

/// What every read, write and lock of a node works with.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) policy: Arc<Policy>,
    pub(crate) cache: Cache,
    pub(crate) pins: Arc<Pins>,
    pub(crate) events: EventSender,
    pub(crate) database: Database,
    pub(crate) failpoints: Probes,
    pub(crate) counters: Counters,
    pub(crate) key_uses: KeyUses,
    /// The server that the last proof came from. 0 before the first, and since another server has answered.
    server: AtomicI64,
    /// The server that the listener is connected to, by the last proof. 0 before the first proof of a connection.
    listening_to: AtomicI64,
    pub(crate) unnotified: Unnotified,
    pub(crate) contention: Contention,
    /// Another server has answered: trust is to end.
    pub(crate) another_server: Notify,
}

impl Core {
    pub(crate) fn new(config: Config, database: Database, notify_policy: NotifyPolicy) -> Arc<Self> {
        let policy = Arc::clone(&database.policy);
        let failpoints = Probes::default();
        let capacity = Capacity {
            sessions_max: config.cache_sessions_max,
            bytes_max: config.cache_bytes(),
            session_bytes_max: config.session_bytes_max,
        };
        let cache = Cache::new(capacity, config.cache_ttl, failpoints.clone());
        let cache = cache.observing(config.observed_hits_interval);
        Arc::new(Self {
            config,
            events: EventSender::default(),
            pins: Arc::new(Pins::new(Arc::clone(&policy))),
            policy,
            cache,
            database,
            failpoints,
            counters: Counters::default(),
            key_uses: KeyUses::default(),
            server: AtomicI64::new(0),
            listening_to: AtomicI64::new(0),
            unnotified: Unnotified::default(),
            contention: Contention::new(notify_policy),
            another_server: Notify::new(),
        })
    }

    /// Whether what `server` has answered may enter the cache: the listener receives what that server commits.
    ///
    /// The pool leads to another server for a while after a failover, or if a pooler is redirected. The first answer from
    /// there begins an epoch and ends trust. Nothing enters the cache until the next proof names a server.
    pub(crate) fn is_proved(&self, server: ServerId) -> bool {
        let proved = self.server.load(Ordering::Acquire);
        if proved == server.0 || !self.failpoints.holds(Guard::ServerIdentity) {
            return true;
        }
        let is_first = proved != 0
            && self.server.compare_exchange(proved, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if is_first {
            self.contention.unregistered();
            self.cache.begin_epoch();
            self.another_server.notify_one();
        }
        false
    }

    /// The ticket with which the answer of a statement may enter the cache. `server` is `None` if it had no row.
    pub(crate) fn checked(&self, ticket: Ticket, server: Option<ServerId>) -> Ticket {
        if server.is_some_and(|server| self.is_proved(server)) { ticket } else { ticket.void() }
    }

    /// Drops the sessions of the scope from memory. Other tasks run between the steps.
    pub(crate) async fn drop_sessions(&self, scope: Scope) {
        let mut dropping = match scope {
            Scope::User(user) => self.cache.remove_user(user),
            Scope::Group(group) => self.cache.remove_group(group),
            Scope::All => return self.cache.remove_all(),
        };
        while dropping.step() {
            tokio::task::yield_now().await;
        }
    }

    /// Whether a revocation that `server` has made counts. On another server than the listener's it
    /// may have ended a copy of the session. Other nodes still serve the session itself.
    ///
    /// While the listener is not connected, nothing contradicts the pool: after a failover, it leads to the new primary.
    ///
    /// # Errors
    /// A failure with the kind [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown).
    pub(crate) fn check_revocation(&self, server: ServerId) -> Result<(), Failure> {
        let listening_to = ServerId(self.listening_to.load(Ordering::Acquire));
        if self.is_proved(server) || listening_to == ServerId(0) || listening_to.is_same_run(server) {
            return Ok(());
        }
        Err(Failure::revoked_elsewhere())
    }

    /// The user of a session, as far as the node knows it without a query.
    pub(crate) fn known_user(&self, id: SessionId) -> Option<UserId> {
        let in_memory = self.cache.peek(id).map(|slot| slot.record.row.user_id);
        in_memory.or_else(|| self.pins.user_of(id)).flatten()
    }

    /// The node is about to end these sessions.
    pub(crate) fn note_users(&self, ids: &[SessionId]) {
        if self.events.has_readers() {
            for &id in ids {
                self.known_user(id).into_iter().for_each(|user| self.events.ending(id, user));
            }
        }
    }

    /// Gives the pins of changed sessions the ends that the memory knows. That settles no doubt. Returns the pinned sessions
    /// to look up: the memory holds an older version or none, or there is another reason.
    pub(crate) fn inform_pins(&self, changed: &[(SessionId, Version)]) -> Vec<SessionId> {
        let is_known = |id: SessionId, version: Version| {
            // Before the look, so that a later answer counts.
            let question = self.pins.question();
            let known = self.cache.peek(id).filter(|slot| {
                slot.epoch == self.cache.epoch()
                    && slot.record.row.version >= version
                    && !slot.record.row.rotated
            });
            known.is_some_and(|slot| self.pins.lives_until(id, question, Life::of(&slot.record)))
        };
        let pinned = self.pins.pinned(changed, |(id, _)| id);
        pinned.into_iter().filter(|&(id, version)| !is_known(id, version)).map(|(id, _)| id).collect()
    }

    /// The listener has lost its connection.
    pub(crate) fn stop_listening(&self) {
        self.listening_to.store(0, Ordering::Release);
        // The server may have crashed.
        self.contention.unregistered();
        self.cache.stop_listening();
    }

    /// A proof came from `server`. Returns the server of the proof before, if there was one.
    pub(crate) fn set_proved(&self, server: ServerId) -> Option<ServerId> {
        self.listening_to.store(server.0, Ordering::Release);
        let before = self.server.swap(server.0, Ordering::AcqRel);
        (before != 0).then_some(ServerId(before))
    }
}

/// The sessions of updates whose outcome is unknown: they may be committed, and no other node may know of it.
/// `writer::notices` notifies about them.
#[derive(Debug, Default)]
pub(crate) struct Unnotified {
    pending: Mutex<Pending>,
    added: Notify,
}

/// What is to be notified.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    /// With the version that the update leads to.
    pub(crate) sessions: BTreeMap<SessionId, Version>,
    /// There were too many: every node is to drop all.
    pub(crate) all: bool,
}

impl Pending {
    /// Sessions that are remembered one by one.
    const SESSIONS_MAX: usize = 16_384;

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && !self.all
    }
}

impl Unnotified {
    pub(crate) fn add(&self, id: SessionId, version: Version) {
        let mut pending = self.pending();
        if pending.sessions.len() >= Pending::SESSIONS_MAX {
            *pending = Pending { all: true, ..Pending::default() };
        }
        let known = pending.sessions.entry(id).or_insert(version);
        *known = version.max(*known);
        drop(pending);
        self.added.notify_one();
    }

    /// Waits for the next addition. One that came since the last wait counts.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    pub(crate) fn snapshot(&self) -> Pending {
        self.pending().clone()
    }

    /// A notification ordered all nodes to drop everything.
    pub(crate) fn settle_all(&self) {
        self.pending().all = false;
    }

    /// The version of the session was notified, behind the commit of its update.
    pub(crate) fn settle(&self, id: SessionId, version: Version) {
        let mut pending = self.pending();
        if pending.sessions.get(&id).is_some_and(|&known| known <= version) {
            pending.sessions.remove(&id);
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the node has done since its start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) updates: Counter,
    pub(crate) update_statements: Counter,
    pub(crate) creates: Counter,
    pub(crate) create_statements: Counter,
    pub(crate) rotations: Counter,
    pub(crate) rotation_statements: Counter,
    pub(crate) evictions: Counter,
    pub(crate) loads: Counter,
    pub(crate) load_statements: Counter,
    pub(crate) lost_versions: Counter,
    pub(crate) touch_failures: Counter,
    pub(crate) observer_compared: Counter,
    pub(crate) observer_stale: Counter,
    pub(crate) observer_skipped: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Returns the count before.
    pub(crate) fn add(&self, count: usize) -> u64 {
        self.0.fetch_add(count as u64, Ordering::Relaxed)
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The node's tasks, in the order in which they end.
pub(crate) struct Tasks {
    /// The writer's: first, so that what they have acknowledged can still be received and touched.
    pub(crate) writing: TaskGroup,
    /// Loader, invalidation, resync, touches and clean-up.
    pub(crate) serving: TaskGroup,
    /// The tasks that renew locks: stopped first, so that holders can end their work, and waited for last.
    pub(crate) locking: TaskGroup,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { writing: TaskGroup::new(), serving: TaskGroup::new(), locking: TaskGroup::new() }
    }
}

/// Tasks that are stopped together.
pub(crate) struct TaskGroup {
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// Stops the tasks when the last clone of the manager is dropped.
    _guard: DropGuard,
}

impl TaskGroup {
    fn new() -> Self {
        let stop = CancellationToken::new();
        Self { tasks: TaskTracker::new(), stop: stop.clone(), _guard: stop.drop_guard() }
    }

    /// Starts a task, given the token that stops it.
    pub(crate) fn spawn<F>(&self, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task(self.stop.clone()));
    }
}
