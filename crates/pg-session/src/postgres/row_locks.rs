//! Finds the rows that other transactions have locked, so that the writes of other rows need not wait for them.
//!
//! `SKIP LOCKED` locks the free rows until the query ends, and leaves out the others. A row that was deleted meanwhile looks
//! locked. Its write is tried again soon.

use uuid::Uuid;

use super::failure::Failure;
use super::parameters::{IDS, Parameters};
use super::{Database, Dialect, Sql, unexpected};
use crate::id::SessionId;

/// The query changes nothing that must survive a crash, so its commit need not wait for the disk.
const NO_FLUSH: &str = "(SELECT pg_catalog.set_config('synchronous_commit', 'off', true) IS NOT NULL)";

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

/// Those of the given ids whose sessions, with all of their ids, cannot be deleted now.
pub(super) fn sessions_sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let retired_ids = dialect.retired_ids("a.session_id");
    let mut parameters = Parameters::default();
    let ids = parameters.any(&IDS);
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
             )
             SELECT DISTINCT w.asked_id FROM wanted w
             WHERE w.id = ANY (ARRAY (SELECT s.id FROM {sessions} s WHERE s.id = ANY (ARRAY (SELECT w.id FROM wanted w))))
                 AND w.id NOT IN (SELECT f.id FROM free f)"
        ),
        types: parameters.types,
    }
}

impl Database {
    /// Those of the sessions whose rows cannot be updated now.
    pub(crate) async fn locked_rows(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Failure> {
        self.locked(&self.texts.locked_rows, ids).await
    }

    /// Those of the sessions that cannot be deleted or rotated now.
    pub(crate) async fn locked_sessions(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Failure> {
        self.locked(&self.texts.locked_sessions, ids).await
    }

    async fn locked(&self, sql: &Sql, ids: &[SessionId]) -> Result<Vec<SessionId>, Failure> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.expose()).collect();
        let read = |row: tokio_postgres::Row| row.try_get(0).map(SessionId::from_uuid).map_err(unexpected);
        self.call(sql, &[&ids]).each(read).await.map_err(Failure::into_unsent_error)
    }
}
