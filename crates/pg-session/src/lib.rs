#![doc = include_str!("../README.md")]
//!
//! # How it works
//!
//! A node is one process with one [`SessionManager`]. It has three lanes.
//!
//! ```text
//! READ   get ── memory ── hit, and the node is trusted ──────────────────▶ Session
//!                 └ otherwise: loader (one query for all who wait) ── PostgreSQL
//!                              └ may enter the memory only with its fill ticket
//! WRITE  Session with changes ── update ── writer (combines what waits) ── one statement, one commit
//!                                                                           └ NOTIFY inside, memory afterwards
//! HEAR   NOTIFY ── invalidation ── drops from memory what is older than what it names
//!        barrier returned ── trusted for another `trust_window`;  connection lost ── not trusted
//! ```
//!
//! **Reading.** [`SessionManager::get`] answers from memory if the node can prove that it hears the database, and asks
//! the database otherwise. What it hands out is a [`Session`]: a snapshot of one [`Version`], shared by all requests of
//! the node, with the request's own changes on top. Absence is `None`, for unknown, expired and revoked alike.
//!
//! **Writing.** [`create`](SessionManager::create), [`update`](SessionManager::update) and
//! [`delete`](SessionManager::delete) return when PostgreSQL has committed. From then on this node shows the new state,
//! and the others do so within milliseconds. An update may be checked against the session's version or against the
//! versions of the attributes that it changes ([which one](https://github.com/pg-session/pg-session/blob/main/docs/checked-updates.md));
//! [`modify`](SessionManager::modify) loads, changes, checks and retries.
//! What an update cannot do is bring back a session that was ended: that is [`UpdateError::NotFound`].
//!
//! **Signing in.** A session may be [of nobody](SessionManager::create_anonymous) at first. With each change of privilege it
//! goes on under a new id ([`rotate`](SessionManager::rotate)), with the attributes that are to stay. For a short grace the old id
//! answers requests that were under way, with the user and the attributes from before.
//!
//! **Hearing.** Each node listens on a connection of its own. Notifications name what changed and to which version; a
//! barrier, sent every third of [`Config::trust_window`] and heard again, proves that nothing is missing. A node that
//! lost its connection serves nothing from memory until it listens again, and then only sessions whose versions it has
//! compared with the database's. [`SessionManager::status`] says how it stands.
//!
//! **Ending.** [`SessionManager::shutdown`] takes no new work, commits what is queued, writes the last accesses, and
//! says what it could not finish.
//!
//! Errors are one opaque [`Error`] with a [`kind`](Error::kind) to branch on and a message that says what to do.

// Floor 0, pure: no I/O, no async.
mod clock;
mod config;
mod error;
mod id;
mod probes;
mod session;
mod version;
// Floor 1: the node's memory, what clients hold, and the only SQL.
mod cache;
mod cookie;
mod postgres;
// Floor 2: reading, writing, hearing.
mod cleaner;
mod invalidation;
mod loader;
mod lock;
mod writer;
// Floor 3: what the application calls.
mod manager;

pub use cache::CacheStats;
pub use cleaner::CleanUp;
pub use config::{Config, Migrations, SessionLimit, Statements};
pub use cookie::{
    KEYS_MAX, KeyError, KeyId, KeyRing, MESSAGE_BYTES_MAX, MessageTooLong, Purpose, Rejected,
    SESSION_TOKEN_CHARS, SIGNING_KEY_BYTES_MAX, SIGNING_KEY_BYTES_MIN, SessionToken, Signer, SigningKey,
    Verified, VersionedId,
};
pub use error::{Error, ErrorKind, UpdateError};
pub use id::{GroupId, SessionId, UserId};
pub use loader::LoadStats;
pub use lock::{Fence, Lease, LockError, Loss};
pub use manager::{
    Builder, Create, DELETE_MANY_MAX, Get, LISTED_MAX, Lock, LockHolder, Rotate, SessionManager,
    ShutdownReport, Status, Trusted, Update,
};
pub use pg_listen;
pub use postgres::migrate::{sql_after as migrations_sql_after, sql_for as migrations_sql};
pub use session::{IdleLimit, Session};
pub use version::Version;
pub use writer::WriteStats;

/// What the library's own tests reach into. **Not part of the API**: no promise of stability.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::postgres::micro::{Batch, session};
    pub use crate::probes::{Gate, Guard, Point, Probes};

    /// Whether a node would act on this payload of a notification, for the fuzz target.
    #[must_use]
    pub fn parse_notification(payload: &str) -> bool {
        crate::invalidation::message::Message::parse(payload).is_ok()
    }
}

/// The pages of `docs/`, so that `cargo test --doc` compiles their code.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../docs/checked-updates.md")]
    mod checked_updates {}
    #[doc = include_str!("../../../docs/coming-from-go-pg-session.md")]
    mod coming_from_go_pg_session {}
    #[doc = include_str!("../../../docs/configuration.md")]
    mod configuration {}
    #[doc = include_str!("../../../docs/security.md")]
    mod security {}
}
