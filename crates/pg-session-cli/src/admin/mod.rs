//! The commands that look at an application's sessions and end them.
//!
//! They print handles, never session ids, and values of attributes only with `--values`.

pub(crate) mod audit;
pub(crate) mod erase;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod list;
pub(crate) mod nodes;
mod receipt;
pub(crate) mod revoke;
pub(crate) mod row;
pub(crate) mod select;
pub(crate) mod show;
pub(crate) mod tail;
pub(crate) mod watch;
