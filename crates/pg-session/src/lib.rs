//! Distributed web sessions on PostgreSQL: memory-speed reads with a stated revocation bound.
//!
//! A *node* is one process with one [`SessionManager`]. It reads sessions from its own memory and
//! writes them to PostgreSQL. LISTEN/NOTIFY tells it what other nodes change.
//!
//! After a change is acknowledged, no node serves the old state later than
//! [`Config::trust_window`] (6 s by default), whatever fails. A node that cannot prove that it
//! receives notifications reads from PostgreSQL. If PostgreSQL does not answer, the read fails.
//!
//! In a web application, use the layer of [`pg-session-tower`] or the middleware of
//! [`pg-session-actix`]. They set the cookie and call this crate.
//!
//! # Create, read, change, delete
//!
//! ```no_run
//! use pg_session::{Config, Migrations, SessionManager, UserId};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = Config::default();
//! config.migrations = Migrations::Apply; // creates the tables
//! let sessions = SessionManager::connect("postgres://localhost/app", config).await?;
//!
//! let id = sessions.create(UserId::from(42)).set("role", "admin").await?.id();
//!
//! if let Some(mut session) = sessions.get(id).await? { // from memory
//!     session.set("theme", "dark")?;
//!     sessions.save(&mut session).await?; // writes only what changed
//! }
//! sessions.delete(id).await?; // on all nodes
//! # Ok(()) }
//! ```
//!
//! [`get`](SessionManager::get) returns `Ok(None)` for unknown, expired and deleted sessions.
//! A [`Session`] is a snapshot of one [`Version`] with the caller's own changes.
//!
//! # Log in with a new id
//!
//! Rotate the id at each login and each change of privilege. An id that was planted or stolen
//! before the login is worthless after it.
//!
//! ```no_run
//! # use pg_session::SessionManager;
//! # async fn example(sessions: &SessionManager) -> Result<(), Box<dyn std::error::Error>> {
//! let mut visitor = sessions.create_anonymous().set("cart", &["milk"]).await?;
//! let old_id = visitor.id();
//!
//! sessions.rotate(&mut visitor).user(42).keep(["cart"]).await?;
//!
//! // Requests in flight can read the retired id for the grace period. It shows the old state.
//! if let Some(old) = sessions.get(old_id).await? {
//!     assert!(old.is_retired() && old.user_id().is_none());
//! }
//! # Ok(()) }
//! ```
//!
//! # Errors
//!
//! [`Error`] is opaque. Branch on its [`kind`](Error::kind). A save returns [`UpdateError`], which
//! names the outcomes that a caller handles.
//!
//! ```no_run
//! # use pg_session::{Session, SessionManager, UpdateError};
//! # type Outcome = Result<(), UpdateError>;
//! # async fn example(sessions: &SessionManager, session: &mut Session) -> Outcome {
//! match sessions.save(session).check_attributes().await {
//!     Ok(()) => {}
//!     Err(UpdateError::Conflict { keys }) => println!("changed by another request: {keys:?}"),
//!     Err(UpdateError::NotFound) => println!("logged out"),
//!     Err(UpdateError::Rotated) => println!("retry with the new cookie"),
//!     Err(UpdateError::Failed(error)) if error.is_outcome_unknown() => {
//!         println!("load the session again to see whether the change was made");
//!     }
//!     Err(error) => return Err(error),
//! }
//! # Ok(()) }
//! ```
//!
//! # Types
//!
//! | type | purpose |
//! |---|---|
//! | [`SessionManager`] | the entry point; one for each process, cheap to clone |
//! | [`Config`], [`Builder`] | settings; an existing pool; another address for the listener |
//! | [`Session`] | a snapshot with attributes; [`set`](Session::set) changes are saved by `save` |
//! | [`Create`], [`Get`], [`Save`], [`Rotate`] | builders; awaiting one sends it |
//! | [`SessionId`], [`UserId`], [`GroupId`], [`Version`] | identifiers |
//! | [`Handle`] | the public name of a session, for operators and logs |
//! | [`Error`], [`ErrorKind`], [`UpdateError`], [`LockError`] | failures |
//! | [`Signer`], [`KeyRing`], [`SigningKey`], [`TokenError`] | signed tokens for cookies |
//! | [`Lock`], [`Lease`], [`Fence`] | locks with leases and fencing tokens |
//! | [`Pin`], [`Closed`], [`Cause`] | sockets and streams that end with their session |
//! | [`Events`], [`Event`] | what a node does and observes |
//! | [`Status`], [`Metrics`], [`ShutdownReport`], [`CleanupReport`] | what a node reports |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `deadpool` | off | `Builder::pool`: the node uses the application's own pool of `deadpool-postgres` |
//! | `metrics` | off | `Metrics::record`: hands the numbers of a node to the facade `metrics` |
//! | `shared-listener` | off | `Builder::listener`: the node uses the application's own listener of `pg-listen` |
//! | `testing` | off | hooks for this crate's own tests; **no promise of stability** |
//!
//! # More
//!
//! [Configuration], [operations], [checked updates], [security], [architecture], [examples].
//!
//! [`pg-session-tower`]: https://docs.rs/pg-session-tower
//! [`pg-session-actix`]: https://docs.rs/pg-session-actix
//! [Configuration]: https://github.com/pg-session/pg-session/blob/main/docs/configuration.md
//! [operations]: https://github.com/pg-session/pg-session/blob/main/docs/operations.md
//! [checked updates]: https://github.com/pg-session/pg-session/blob/main/docs/checked-updates.md
//! [security]: https://github.com/pg-session/pg-session/blob/main/SECURITY.md
//! [architecture]: https://github.com/pg-session/pg-session/blob/main/ARCHITECTURE.md
//! [examples]: https://github.com/pg-session/pg-session/tree/main/crates/pg-session/examples

// Layer 0, pure: no I/O, no async.
mod assurance;
mod cause;
mod clock;
mod config;
mod ending;
mod error;
mod failpoints;
mod handle;
mod id;
mod label;
mod lock_key;
mod notification;
mod retry;
mod session;
mod shared_settings;
mod spans;
mod version;
// Layer 1: the node's memory, what clients hold, and the only SQL.
mod cache;
mod events;
mod pins;
mod postgres;
mod signing;
// Layer 2: reading, writing, invalidating.
mod cleanup;
mod contention;
mod core;
mod hit;
mod invalidation;
mod loader;
mod lock;
mod observer;
mod pinning;
mod writer;
// Layer 3: what the application calls.
mod manager;

pub use assurance::AssuranceLevel;
pub use cache::CacheStats;
pub use cause::Cause;
pub use cleanup::CleanupReport;
pub use config::{Config, ListenerPath, Migrations, SessionLimit, StatementMode};
pub use error::{Error, ErrorKind, UpdateError};
pub use events::{Event, Events};
pub use handle::Handle;
pub use id::{GroupId, SessionId, UserId};
pub use loader::LoadStats;
pub use lock::{Fence, Lease, LockError, Loss};
pub use manager::{
    AllSessions, AuditConnection, AuditEntry, AuditLog, Builder, Create, Everywhere, Get, GroupSessions,
    HeldLock, LabelSessions, Lock, LockHolder, Locks, Metric, MetricKind, Metrics, NodeInfo, Page,
    Revocation, Revoked, Rotate, Save, SessionManager, ShutdownReport, Status, UserSessions,
};
pub use observer::ObserverStats;
#[cfg(feature = "shared-listener")]
pub use pg_listen;
pub use pins::{Closed, Guarded, Pin};
pub use postgres::connect_options::ConnectOptions;
pub use postgres::doctor::{Finding, Severity};
pub use session::{IdleLimit, Session};
pub use signing::{
    KeyError, KeyId, KeyRing, MessageTooLong, Purpose, SessionToken, Signer, SigningKey, TokenError,
    Verified, VersionedId,
};
pub use version::Version;
pub use writer::WriteStats;

/// Statements that end sessions inside the application's own transaction, for any driver: SQL text and parameters.
///
/// The sessions end with the COMMIT: all nodes are notified, also the one that commits. After a ROLLBACK nothing has
/// happened. To see the change on this node at once, await [`SessionManager::catch_up`] after the COMMIT.
///
/// The transaction must be `READ COMMITTED`, PostgreSQL's default. It holds locks of the sessions until it ends. The page
/// [SQL] has the rights and the functions.
///
/// ```
/// use pg_session::{Config, UserId, sql};
///
/// # fn main() -> Result<(), pg_session::Error> {
/// let others = sql::end_user(UserId::from(42)).cause(sql::Cause::Credential);
/// let statement = others.statement(&Config::default())?;
/// // With tokio-postgres: transaction.query_typed or execute(statement.text(), …)
/// assert_eq!(statement.parameters()[0].as_deref(), Some("70677365-7373-8000-8000-00000000002a"));
/// # Ok(()) }
/// ```
///
/// [SQL]: https://github.com/pg-session/pg-session/blob/main/docs/sql.md
pub mod sql {
    pub use crate::cause::Cause;
    pub use crate::postgres::contract::{
        EndSessions, EndSessionsOf, Statement, end, end_all, end_group, end_label, end_user,
    };
}

/// What the library's own tests reach into. **Not part of the API**: no promise of stability.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::failpoints::{Gate, Guard, Point, Probes};
    pub use crate::postgres::micro::{Batch, session, session_of};

    /// Whether a node would act on this payload of a notification, for the fuzz target.
    #[must_use]
    pub fn parse_notification(payload: &str) -> bool {
        crate::notification::Notification::parse(payload).is_ok()
    }
}
