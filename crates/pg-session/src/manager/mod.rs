//! [`SessionManager`]: one per process, cheap to clone, the way to everything.
//!
//! The manager owns the lanes and tasks; each verb has a file of its own.

#[macro_use]
mod awaited;

mod all;
mod audit;
mod builder;
mod cleanup;
mod create;
mod delete;
mod everywhere;
mod get;
#[cfg(feature = "testing")]
mod let_pass;
mod list;
mod listening;
mod lock;
mod metrics;
mod modify;
mod nodes;
mod pin;
mod receipt;
mod revoked;
mod rotate;
mod save;
mod shutdown;
mod status;
mod touch;

use std::sync::Arc;

pub use self::all::AllSessions;
pub use self::audit::{AuditConnection, AuditEntry, AuditLog};
use self::builder::BARRIERS_PER_WINDOW;
pub use self::builder::Builder;
pub use self::create::Create;
pub use self::everywhere::{Everywhere, Revocation};
pub use self::get::Get;
pub use self::list::{GroupSessions, LabelSessions, Page, UserSessions};
pub use self::lock::{HeldLock, Lock, LockHolder, Locks};
pub use self::metrics::{Metric, MetricKind, Metrics};
use self::modify::KeyedQueue;
pub use self::nodes::NodeInfo;
pub use self::revoked::Revoked;
pub use self::rotate::Rotate;
pub use self::save::Save;
pub use self::shutdown::ShutdownReport;
pub use self::status::Status;
use crate::cleanup::Cleaner;
use crate::config::Config;
use crate::core::{Core, TaskGroup, Tasks};
use crate::error::Error;
#[cfg(feature = "testing")]
use crate::failpoints::Probes;
use crate::invalidation::proof::Prover;
use crate::invalidation::pulse;
use crate::invalidation::trust::{Ended, Trust};
use crate::loader::Loader;
use crate::lock::Locks as NodeLocks;
use crate::observer::Observer;
use crate::writer::Writer;
use crate::writer::touch::TouchBuffer;

/// The sessions of an application, on this node.
///
/// Make one per process with [`connect`](SessionManager::connect) or
/// [`builder`](SessionManager::builder) and clone it freely. Clones share the memory, the
/// connections and the tasks. End it with [`shutdown`](SessionManager::shutdown), which writes what
/// is still queued. Dropping the last clone stops the tasks without waiting for them.
#[derive(Clone)]
pub struct SessionManager(Arc<Node>);

/// Everything that one node has.
struct Node {
    core: Arc<Core>,
    trust: Arc<Trust>,
    prover: Arc<Prover>,
    loader: Arc<Loader>,
    writer: Writer,
    touches: Arc<TouchBuffer>,
    cleaner: Arc<Cleaner>,
    turns: KeyedQueue,
    locks: NodeLocks,
    observer: Observer,
    listener: pg_listen::Listener,
    owns_listener: bool,
    tasks: Tasks,
}

impl SessionManager {
    /// Connects to PostgreSQL and starts the node.
    ///
    /// `url` is a connection string as libpq takes it (`postgres://user@host/database` or
    /// `host=… user=…`). Returns when the tables were checked and the node is in sync. If it is not
    /// in sync after the longest of `query_timeout`, `connect_timeout` and 2 s, it returns, too.
    /// Then it serves from the database until it is.
    ///
    /// # Errors
    /// - [`Config`](crate::ErrorKind::Config): a setting or a connection string is wrong, also the listener's.
    /// - [`Schema`](crate::ErrorKind::Schema), [`Permission`](crate::ErrorKind::Permission): tables are missing or may
    ///   not be used.
    /// - [`Unavailable`](crate::ErrorKind::Unavailable): PostgreSQL cannot be reached, or no server answers at the
    ///   address in [`listen_on`](Builder::listen_on).
    ///
    /// Nothing is left running then. An outage of the listener alone is no error: [`Status::trust_error`] has its cause.
    pub async fn connect(url: &str, config: Config) -> Result<Self, Error> {
        Self::builder(config).url(url)?.connect().await
    }

    /// For what [`connect`](SessionManager::connect) does not offer: an existing pool, another server for the
    /// listener.
    pub fn builder(config: Config) -> Builder {
        Builder::new(config)
    }

    /// The settings that the node runs with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.core.config
    }

    /// Test hooks of this node; see [`testing`](crate::testing).
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn probes(&self) -> &Probes {
        &self.0.core.failpoints
    }
}

impl Node {
    /// Sends barriers over an application's listener. Its own may be too rare to find a half-open connection
    /// within this node's trust window.
    fn send_barriers(&self) {
        let TaskGroup { tasks, stop, .. } = &self.tasks.serving;
        let interval = self.core.config.trust_window / BARRIERS_PER_WINDOW;
        tasks.spawn(pulse(self.listener.clone(), interval, stop.clone()));
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.tasks.writing.stop.is_cancelled() {
            return Err(Ended::Stopped.error());
        }
        match self.trust.ended() {
            Some(ended @ Ended::RuntimeGone) => Err(ended.error()),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for SessionManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionManager").field("status", &self.status()).finish_non_exhaustive()
    }
}
