//! (under construction)

// Floor 0, pure: no I/O, no async.
mod clock;
mod config;
mod error;
mod id;
mod probes;
mod session;
mod version;
// Floor 1: the node's memory, and the only SQL.
mod cache;
mod postgres;
// Floor 2: reading, writing, hearing.
mod cleaner;
mod invalidation;
mod loader;
mod writer;
// Floor 3: what the application calls.
mod manager;

pub use cache::CacheStats;
pub use cleaner::CleanUp;
pub use config::{Config, Migrations, SessionLimit, Statements};
pub use error::{Error, ErrorKind, UpdateError};
pub use id::{GroupId, SessionId, UserId};
pub use loader::LoadStats;
pub use manager::{
    Builder, Create, DELETE_MANY_MAX, Get, LISTED_MAX, SessionManager, ShutdownReport, Status, Trusted,
    Update,
};
pub use postgres::migrate::sql_for as migrations_sql;
pub use session::{IdleLimit, Session};
pub use version::Version;
pub use writer::WriteStats;

/// What the library's own tests reach into. **Not part of the API**: no promise of stability.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::probes::{Gate, Guard, Point, Probes};
}
