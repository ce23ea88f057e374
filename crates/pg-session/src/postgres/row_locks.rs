//! Finds the rows that other transactions have locked, so that the writes of other rows need not wait for them.
//!
//! `SKIP LOCKED` locks the free rows until the query ends, and leaves out the others. A row that was deleted meanwhile looks
//! locked. Its write is tried again soon.

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::admission::lock_seed;
use super::failure::Failure;
use super::parameters::{IDS, NUMBERS, Parameters};
use super::{Database, Dialect, Sql, SqlForms, unexpected};
use crate::config::SessionLimit;
use crate::id::{SessionId, UserId};

/// The query changes nothing that must survive a crash, so its commit need not wait for the disk.
pub(super) const NO_FLUSH: &str =
    "(SELECT pg_catalog.set_config('synchronous_commit', 'off', true) IS NOT NULL)";

/// Those of the given ids whose rows cannot be updated now.
pub(super) fn rows_sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let mut parameters = Parameters::default();
    let ids = parameters.unnest(&[IDS]);
    Sql {
        text: format!(
            "WITH wanted AS MATERIALIZED (SELECT w.id FROM {ids} AS w (id)
             ), free AS MATERIALIZED (
                 SELECT s.id FROM {sessions} s
                 WHERE s.id = ANY (ARRAY (SELECT w.id FROM wanted w)) AND {NO_FLUSH} FOR NO KEY UPDATE SKIP LOCKED
             )
             SELECT s.id FROM {sessions} s
             WHERE s.id = ANY (ARRAY (SELECT w.id FROM wanted w)) AND s.id NOT IN (SELECT f.id FROM free f)"
        ),
        types: parameters.types,
    }
}

/// What has to be free beside a session's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Parts {
    /// Its attributes, labels and locks, which are deleted with it.
    Deleted,
    /// Its labels and locks, which are moved with it.
    Moved,
}

/// Those of the given ids whose sessions, with all of their ids, cannot be deleted or rotated now.
pub(super) fn sessions_sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let retired_ids = dialect.retired_ids("a.session_id");
    let mut parameters = Parameters::default();
    let ids = parameters.any(&IDS);
    let with_attributes = parameters.scalar(&Type::BOOL);
    let attributes = locked_attributes(dialect, &format!("SELECT f.id FROM free f WHERE {with_attributes}"));
    let moved = locked_moved(dialect, "SELECT f.id FROM free f");
    Sql {
        text: format!(
            "WITH asked AS MATERIALIZED (
                 SELECT s.id, COALESCE(s.rotated_to, s.id) AS session_id FROM {sessions} s WHERE s.id = {ids}
             ), wanted AS MATERIALIZED (
                 SELECT a.id AS asked_id, a.session_id AS id FROM asked a
                 UNION
                 SELECT a.id, r.id FROM asked a CROSS JOIN LATERAL ({retired_ids}) r
             ), free AS MATERIALIZED (
                 SELECT s.id FROM {sessions} s
                 WHERE s.id = ANY (ARRAY (SELECT w.id FROM wanted w)) AND {NO_FLUSH} FOR UPDATE SKIP LOCKED
             ), with_locked_parts AS MATERIALIZED ({attributes} UNION ALL {moved})
             SELECT DISTINCT w.asked_id FROM wanted w
             WHERE w.id = ANY (ARRAY (SELECT s.id FROM {sessions} s WHERE s.id = ANY (ARRAY (SELECT w.id FROM wanted w))))
                 AND w.id NOT IN (SELECT f.id FROM free f)
                 OR w.id IN (SELECT p.session_id FROM with_locked_parts p)"
        ),
        types: parameters.types,
    }
}

/// A query of the ids `(session_id)` of those of the sessions `of` that have an attribute whose row is locked. Waits for
/// nothing.
pub(super) fn locked_attributes(dialect: &Dialect<'_>, of: &str) -> String {
    locked_parts(&dialect.names.attributes(), "key", of)
}

/// The same for what a rotation moves: labels and locks.
pub(super) fn locked_moved(dialect: &Dialect<'_>, of: &str) -> String {
    let labels = locked_parts(&dialect.names.labels(), "label", of);
    let locks = locked_parts(&dialect.names.locks(), "name", of);
    format!("{labels} UNION ALL {locks}")
}

fn locked_parts(table: &str, column: &str, of: &str) -> String {
    let rows = format!(
        "SELECT p.session_id, p.{column} AS part FROM {table} p WHERE p.session_id = ANY (ARRAY ({of}))"
    );
    format!(
        "SELECT p.session_id FROM ({rows} EXCEPT SELECT f.session_id, f.part FROM ({rows} FOR UPDATE SKIP LOCKED) f) p"
    )
}

/// The users that must wait: their lock is taken, or room for one more session needs a locked row. See `session_make_room`.
pub(super) fn users_sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let (seed, live) = (lock_seed(dialect), dialect.live("s"));
    let retired_ids = dialect.retired_ids("p.id");
    // Refusing reads each session of a user at the limit, and keeps it as it is.
    let (needed, strength) = match dialect.config.on_session_limit {
        SessionLimit::EvictLeastRecentlyUsed => ("s.rank", "FOR UPDATE"),
        SessionLimit::Refuse => ("s.sessions", "FOR NO KEY UPDATE"),
    };
    let (attributes, moved) = (
        locked_attributes(dialect, "SELECT f.id FROM free f"),
        locked_moved(dialect, "SELECT f.id FROM free f"),
    );
    let parts = match dialect.config.on_session_limit {
        SessionLimit::EvictLeastRecentlyUsed => format!("{attributes} UNION ALL {moved}"),
        SessionLimit::Refuse => "SELECT NULL::pg_catalog.uuid AS session_id WHERE false".to_owned(),
    };
    let mut parameters = Parameters::default();
    let users = parameters.unnest(&[IDS, NUMBERS]);
    Sql {
        text: format!(
            "WITH asked AS MATERIALIZED (
                 SELECT u.id, u.sessions_max, pg_catalog.pg_try_advisory_xact_lock(pg_catalog.uuid_hash_extended(u.id, {seed})) AS is_free
                 FROM {users} AS u (id, sessions_max) WHERE {NO_FLUSH}
             ), placed AS MATERIALIZED (
                 SELECT s.id, u.id AS user_id, u.sessions_max,
                        pg_catalog.count(*) OVER (PARTITION BY u.id) AS sessions,
                        pg_catalog.row_number() OVER (PARTITION BY u.id ORDER BY {live} DESC, s.last_accessed_at DESC, s.id) AS rank
                 FROM asked u CROSS JOIN LATERAL (
                     SELECT c.* FROM {sessions} c WHERE c.user_id = u.id AND c.rotated_to IS NULL OFFSET 0
                 ) s WHERE u.sessions_max IS NOT NULL
             ), present AS MATERIALIZED (
                 SELECT s.id, s.user_id FROM placed s WHERE {needed} >= s.sessions_max
             ), wanted AS MATERIALIZED (
                 SELECT p.id, p.user_id FROM present p
                 UNION ALL
                 SELECT r.id, p.user_id FROM present p CROSS JOIN LATERAL ({retired_ids}) r
             ), free AS MATERIALIZED (
                 SELECT s.id FROM {sessions} s
                 WHERE s.id = ANY (ARRAY (SELECT w.id FROM wanted w)) {strength} SKIP LOCKED
             ), with_locked_parts AS MATERIALIZED ({parts})
             SELECT u.id FROM asked u WHERE NOT u.is_free
             UNION
             SELECT w.user_id FROM wanted w
             WHERE w.id NOT IN (SELECT f.id FROM free f) OR w.id IN (SELECT p.session_id FROM with_locked_parts p)"
        ),
        types: parameters.types,
    }
}

impl Database {
    /// Those of the sessions whose rows cannot be updated now.
    pub(crate) async fn locked_rows(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Failure> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.expose()).collect();
        let locked = self.locked(&self.texts.locked_rows, &[&ids]).await?;
        Ok(locked.into_iter().map(SessionId::from_uuid).collect())
    }

    /// Those of the sessions that cannot be deleted or rotated now.
    pub(crate) async fn locked_sessions(
        &self,
        ids: &[SessionId],
        parts: Parts,
    ) -> Result<Vec<SessionId>, Failure> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.expose()).collect();
        let with_attributes = parts == Parts::Deleted;
        let locked = self.locked(&self.texts.locked_sessions, &[&ids, &with_attributes]).await?;
        Ok(locked.into_iter().map(SessionId::from_uuid).collect())
    }

    /// Those of the users whose sessions cannot be created or rotated now. Each comes with its limit, if it gets one more
    /// session and their number is limited.
    pub(crate) async fn blocked_users(
        &self,
        users: impl Iterator<Item = (UserId, Option<u32>)>,
    ) -> Result<Vec<UserId>, Failure> {
        let (users, limits): (Vec<Uuid>, Vec<Option<i64>>) =
            users.map(|(user, limit)| (user.as_uuid(), limit.map(i64::from))).unzip();
        if limits.iter().all(Option::is_none) {
            return Ok(Vec::new());
        }
        let blocked = self.locked(&self.texts.blocked_users, &[&users, &limits]).await?;
        Ok(blocked.into_iter().map(UserId::from).collect())
    }

    async fn locked(&self, sql: &SqlForms, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Uuid>, Failure> {
        let read = |row: tokio_postgres::Row| row.try_get(0).map_err(unexpected);
        self.call(sql, params).each(read).await.map_err(Failure::into_unsent_error)
    }
}
