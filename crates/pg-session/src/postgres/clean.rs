//! Clean-up: frees the space of what has already ended. Nothing depends on it: an expired session is never returned,
//! updated or extended, cleaned up or not.
//!
//! Each statement takes a small batch. It skips sessions that another client has locked, also by an
//! attribute or a lock of theirs. It does nothing while another node is cleaning. Deletions are
//! notified like any other, so that the nodes free their memory, too.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::failure::Failure;
use super::notify::deleted;
use super::row_locks::{locked_attributes, locked_moved};
use super::{Database, Dialect, Sql, unexpected, waits_at_most_until_deleted};
use crate::cause::Cause;
use crate::ending;

/// What one statement cleaned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cleaned {
    /// Rows deleted.
    pub(crate) rows: u64,
    /// Whether this node was the cluster's cleaner for the statement.
    pub(crate) leader: bool,
}

/// One page of the walk over all sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) cleaned: Cleaned,
    /// Where the next page begins; `None` after the last one.
    pub(crate) next: Option<Uuid>,
}

/// One cleaner at a time in the cluster. Its lock ends with the statement's transaction, so neither
/// a pooler nor a dead node can keep it.
fn leader(dialect: &Dialect<'_>, cause: Cause) -> String {
    let channel = dialect.channel();
    let brief = waits_at_most_until_deleted(&dialect.row_lock_wait(), &ending::literal(cause));
    format!(
        "SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('{channel}/clean', 0)) AS mine
         WHERE {brief}"
    )
}

/// Whether nothing alive points at the session `s`. Until then, a clean-up leaves a session to the
/// next one. So the trigger takes only sessions that ended by themselves, which need no
/// notification.
fn without_retired_ids(dialect: &Dialect<'_>) -> String {
    let (sessions, now) = (dialect.names.sessions(), dialect.now);
    format!(
        "NOT EXISTS (SELECT FROM {sessions} r WHERE r.rotated_to = s.id AND r.expires_at::pg_catalog.timestamptz > {now})"
    )
}

/// Those of the locked sessions whose attributes, labels and locks are free as well: the trigger deletes them.
fn free(dialect: &Dialect<'_>) -> String {
    let of = "SELECT d.id FROM to_evict d";
    let (attributes, moved) = (locked_attributes(dialect, of), locked_moved(dialect, of));
    format!("({of} EXCEPT ({attributes} UNION ALL {moved}))")
}

/// Sessions past their absolute limit, oldest first, by the index on `expires_at`.
pub(super) fn expired_sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let (now, leader) = (dialect.now, leader(dialect, Cause::Expired));
    let alone = without_retired_ids(dialect);
    let (free, notified) = (free(dialect), deleted(dialect, "SELECT id FROM gone", "'x'"));
    let visible = dialect.visible();
    Sql {
        text: format!(
            "WITH leader AS MATERIALIZED ({leader}
             ), to_evict AS MATERIALIZED (
                 SELECT s.id FROM {sessions} s
                 WHERE (SELECT mine FROM leader) AND s.expires_at::pg_catalog.timestamptz <= {now} AND {alone}
                 ORDER BY s.expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
             ), gone AS (
                 DELETE FROM {sessions} s USING {free} d WHERE s.id = d.id RETURNING s.id
             ), notified AS MATERIALIZED ({notified})
             SELECT (SELECT pg_catalog.count(*) FROM gone) AS rows, (SELECT mine FROM leader) AS leader,
                    (SELECT pg_catalog.count(*) FROM notified) AS notified, {visible} AS visible"
        ),
        types: vec![Type::INT8],
    }
}

/// Idle sessions of one page of the primary key: an index on `last_accessed_at` would cost every touch its HOT update.
pub(super) fn idle_sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let (live, leader) = (dialect.live("s"), leader(dialect, Cause::Idle));
    let alone = without_retired_ids(dialect);
    let (free, notified) = (free(dialect), deleted(dialect, "SELECT id FROM gone", "'i'"));
    let visible = dialect.visible();
    Sql {
        text: format!(
            "WITH leader AS MATERIALIZED ({leader}
             ), page AS MATERIALIZED (
                 SELECT s.id, {live} AS live FROM {sessions} s WHERE s.id > $1 ORDER BY s.id LIMIT $2
             ), to_evict AS MATERIALIZED (
                 SELECT s.id FROM {sessions} s JOIN page p ON p.id = s.id
                 WHERE (SELECT mine FROM leader) AND NOT p.live AND NOT {live} AND {alone}
                 ORDER BY s.id FOR UPDATE OF s SKIP LOCKED
             ), gone AS (
                 DELETE FROM {sessions} s USING {free} d WHERE s.id = d.id RETURNING s.id
             ), notified AS MATERIALIZED ({notified})
             SELECT (SELECT pg_catalog.count(*) FROM gone) AS rows, (SELECT mine FROM leader) AS leader,
                    (SELECT pg_catalog.count(*) FROM notified) AS notified, (SELECT p.id FROM page p ORDER BY p.id DESC LIMIT 1) AS last,
                    (SELECT pg_catalog.count(*) FROM page) AS page, {visible} AS visible"
        ),
        types: vec![Type::UUID, Type::INT8],
    }
}

/// Attributes past their own expiry. The exception to "every change of an attribute bumps its
/// session's version". No reader has seen these since they expired, and an update of such a key
/// treats it as absent.
pub(super) fn attributes_sql(dialect: &Dialect<'_>) -> Sql {
    let attributes = dialect.names.attributes();
    let (now, leader, visible) = (dialect.now, leader(dialect, Cause::Expired), dialect.visible());
    Sql {
        text: format!(
            "WITH leader AS MATERIALIZED ({leader}
             ), to_evict AS MATERIALIZED (
                 SELECT a.session_id, a.key FROM {attributes} a
                 WHERE (SELECT mine FROM leader) AND a.expires_at IS NOT NULL AND a.expires_at <= {now}
                 ORDER BY a.expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
             ), gone AS (
                 DELETE FROM {attributes} a USING to_evict d WHERE a.session_id = d.session_id AND a.key = d.key
                 RETURNING 1
             )
             SELECT (SELECT pg_catalog.count(*) FROM gone) AS rows, (SELECT mine FROM leader) AS leader, {visible} AS visible"
        ),
        types: vec![Type::INT8],
    }
}

impl Database {
    pub(crate) async fn clean_expired(&self, rows_max: i64) -> Result<Cleaned, Failure> {
        let rows = self.call(&self.texts.clean_expired, &[&rows_max]).rows().await?;
        cleaned(&rows)
    }

    pub(crate) async fn clean_attributes(&self, rows_max: i64) -> Result<Cleaned, Failure> {
        let rows = self.call(&self.texts.clean_attributes, &[&rows_max]).rows().await?;
        cleaned(&rows)
    }

    /// Cleans the page of `rows_max` sessions after `after`.
    pub(crate) async fn clean_idle(&self, after: Uuid, rows_max: i64) -> Result<Page, Failure> {
        let rows = self.call(&self.texts.clean_idle, &[&after, &rows_max]).rows().await?;
        let cleaned = cleaned(&rows)?;
        let read = || {
            let row = &rows[0];
            let full = row.try_get::<_, i64>("page")? == rows_max;
            Ok::<_, tokio_postgres::Error>(if full { row.try_get("last")? } else { None })
        };
        Ok(Page { cleaned, next: read().map_err(unexpected)? })
    }
}

fn cleaned(rows: &[tokio_postgres::Row]) -> Result<Cleaned, Failure> {
    super::same_length(rows, 1)?;
    let read = || {
        let count: i64 = rows[0].try_get("rows")?;
        Ok::<_, tokio_postgres::Error>(Cleaned {
            rows: count.unsigned_abs(),
            leader: rows[0].try_get("leader")?,
        })
    };
    read().map_err(unexpected)
}
