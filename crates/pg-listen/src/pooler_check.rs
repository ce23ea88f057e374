//! Whether a connection is PostgreSQL's own: a mark in its startup packet that only a direct connection keeps.
//!
//! Behind a pooler in transaction mode, LISTEN takes effect on a connection that the next client gets. A barrier may
//! even come back. It is sent and returns within one transaction, over the same server connection. Notifications of
//! other clients do not come. So a returned barrier would prove nothing. Nothing sent after the startup tells such a
//! connection from a good one.
//!
//! A startup packet is never shared. It sets a parameter that no other client can know, and the statement that listens first
//! asks for it. A pooler refuses such a packet, or drops the parameter, and then PostgreSQL does not know it.

use tokio_postgres::Config;
use tokio_postgres::error::{DbError, SqlState};
use uuid::Uuid;

/// What the parameters of all connections begin with.
const PREFIX: &str = "pg_listen.direct_";

/// The mark of one connection.
#[derive(Debug)]
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new() -> Self {
        Self(format!("{PREFIX}{}", Uuid::new_v4().simple()))
    }

    /// Puts it into the startup packet, behind what the user's own options are.
    pub(crate) fn put_on(&self, config: &mut Config) {
        let users = config.get_options().map(|options| format!("{options} ")).unwrap_or_default();
        config.options(format!("{users}-c {}=on", self.0));
    }

    /// The statement that fails where the mark is not. `pg_stat_statements` replaces a constant in
    /// a SELECT, so it has one entry for all connections. It would keep each SHOW.
    pub(crate) fn check(&self) -> String {
        format!("SELECT pg_catalog.current_setting('{}')", self.0)
    }
}

/// Whether this error shows a pooler: it refused the startup packet, or the mark is missing.
///
/// pgbouncer refuses a startup parameter with 08P01. RDS Proxy refuses command-line options with 0A000, which PostgreSQL
/// itself never does.
pub(crate) fn names_a_pooler(error: &DbError) -> bool {
    let refused = match *error.code() {
        SqlState::PROTOCOL_VIOLATION => error.message().contains("startup parameter"),
        SqlState::FEATURE_NOT_SUPPORTED => error.message().contains("option"),
        _ => false,
    };
    let unmarked = *error.code() == SqlState::UNDEFINED_OBJECT && error.message().contains(PREFIX);
    refused || unmarked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_follows_the_users_options() {
        let mark = Mark::new();
        let mut config = Config::new();
        mark.put_on(&mut config);
        assert_eq!(config.get_options(), Some(format!("-c {}=on", mark.0).as_str()));
        config.options("-c statement_timeout=5s");
        mark.put_on(&mut config);
        assert_eq!(config.get_options(), Some(format!("-c statement_timeout=5s -c {}=on", mark.0).as_str()));
    }

    #[test]
    fn no_two_connections_have_the_same_mark() {
        assert_ne!(Mark::new().0, Mark::new().0);
    }
}
