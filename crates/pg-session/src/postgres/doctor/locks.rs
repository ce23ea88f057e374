//! Clients that have locked a table, so that nodes and the other checks would wait for them.

use std::time::Duration;

use super::{Check, Finding};
use crate::error::Error;
use crate::postgres::Database;
use crate::postgres::failure::{Failure, Verdict};
use crate::postgres::names::{Names, literal};

/// How long a lock is held without a finding. Migrations and vacuum lock tables for a moment.
const HELD_MAX: Duration = Duration::from_millis(500);
/// How long a check waits for a lock that came later.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(1);
/// For a lock whose holder is not known.
const LOOK: &str = "SELECT pid, relation::pg_catalog.regclass, mode FROM pg_catalog.pg_locks WHERE locktype = 'relation' \
     AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock');";

impl Database {
    /// A lock that is held at the first look and at the second one.
    pub(super) async fn check_locks(&self) -> Result<Vec<Finding>, Error> {
        let check = Check::fault("lock", sql(&self.names));
        let first = self.run_check(&check).await?;
        if first.is_empty() {
            return Ok(first);
        }
        tokio::time::sleep(HELD_MAX).await;
        let mut second = self.run_check(&check).await?;
        second.retain(|finding| first.contains(finding));
        Ok(second)
    }
}

/// A check that has waited for a lock.
pub(super) fn of_failure(failure: &Failure) -> Option<Finding> {
    (failure.verdict == Verdict::Blocked).then(|| {
        let message = "a check waited too long for a table that another client has locked".to_owned();
        let fix = format!(
            "{LOOK} -- End the client with pg_terminate_backend, or with ROLLBACK PREPARED if it has no pid."
        );
        Check::fault("lock", String::new()).finding(message, fix)
    })
}

/// The locks that keep nodes from reading or writing. A client that waits for one keeps others waiting, too. It locks no table itself.
fn sql(names: &Names) -> String {
    let tables = names.written().into_iter().chain([names.audit(), names.migrations()]);
    let tables = tables.map(|table| format!("pg_catalog.to_regclass({})", literal(&table)));
    let tables = tables.collect::<Vec<_>>().join(", ");
    format!(
        "SELECT pg_catalog.format('process %s %s, so nodes wait for it', l.pid, pg_catalog.string_agg(
                    pg_catalog.format('%s %s on %s', CASE WHEN l.granted THEN 'holds' ELSE 'waits for' END, l.mode,
                        l.relation::pg_catalog.regclass), ', ' ORDER BY l.relation, l.mode)),
                pg_catalog.format('SELECT pg_terminate_backend(%s);', l.pid)
         FROM pg_catalog.pg_locks l
         WHERE l.locktype = 'relation' AND l.pid IS NOT NULL AND l.pid <> pg_catalog.pg_backend_pid()
           AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
           AND l.relation = ANY (ARRAY[{tables}]::pg_catalog.oid[])
           AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
         GROUP BY l.pid ORDER BY pg_catalog.bool_or(l.granted) DESC, l.pid"
    )
}
