//! The library's cache, compiled from its own files with shuttle's locks and atomics. A scheduler decides before each
//! of them which thread runs next. quick_cache has the same scheduler inside.
//!
//! The model in the parent folder covers the order of calls. Here the question is whether the locks inside one call
//! are enough. Shuttle and not loom: quick_cache supports shuttle only, and loom could not finish so many schedules.
//!
//! Shuttle's atomics are sequentially consistent, so this shows nothing about `Ordering`.

#![forbid(unsafe_code)]
#![allow(dead_code, unused_imports, unreachable_pub, reason = "of the library only the cache is used")]
#![allow(clippy::all, reason = "the library's files are linted in the library")]

#[path = "../../../../crates/pg-session/src/cache/mod.rs"]
mod cache;
#[path = "../../../../crates/pg-session/src/cause.rs"]
mod cause;
#[path = "../../../../crates/pg-session/src/clock.rs"]
mod clock;
#[path = "../../../../crates/pg-session/src/ending.rs"]
mod ending;
#[path = "../../../../crates/pg-session/src/error.rs"]
mod error;
#[path = "../../../../crates/pg-session/src/failpoints.rs"]
mod failpoints;
#[path = "../../../../crates/pg-session/src/id.rs"]
mod id;
#[path = "../../../../crates/pg-session/src/label.rs"]
mod label;
#[path = "../../../../crates/pg-session/src/session/mod.rs"]
mod session;
#[path = "../../../../crates/pg-session/src/version.rs"]
mod version;

mod memory;

pub use self::id::SessionId;
pub use self::memory::{Memory, Missing, Ticket, id};
