//! The coherence protocol of pg-session as a model: a database, nodes, and every order of their steps.
//!
//! `README.md` says what is modelled and how to read a story. Each part has the name of the library's, and each step
//! the name of the function that takes it, so that the two can be laid side by side:
//!
//! ```text
//! Database   the row, commits in an order, what was acknowledged when
//! Node       Cache     one stripe, one slot            crates/pg-session/src/cache
//!            Reading   get, and the loader             manager/get.rs, loader.rs
//!            Writing   update and delete               writer/
//!            Listening   notifications, barriers, loss   invalidation/, crates/pg-listen
//! Gaps       between a commit and its notification  postgres/update_call.rs, writer/notices.rs
//! World      all of it, and what may happen next
//! Guard      what can be taken away;  Broken  what is broken then;  Tally  what was seen on the way
//! ```

pub mod cache;
pub mod database;
pub mod gap;
pub mod guard;
pub mod listening;
pub mod node;
pub mod pins;
pub mod policy;
pub mod promise;
pub mod reading;
pub mod registry;
pub mod servers;
pub mod tally;
pub mod version;
pub mod world;
pub mod writing;
