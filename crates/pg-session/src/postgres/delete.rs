//! Deletes given sessions and notifies the other nodes, in one statement. Attributes go by a trigger, which sees what was
//! committed while the statement waited for a row.
//!
//! A session and its retired ids, whose rows point at it, are deleted together. A logout with an
//! old id is a logout, and one with the new id ends the old ones. All of their rows are locked in
//! the order of their ids, as everywhere. So two statements cannot wait for each other, and the
//! trigger finds no row that another client holds.
//!
//! ```text
//! A   snapshot: S ── waits for S ───────────── S points at T, which the snapshot does not hold
//! B        rotates S to T ── COMMIT
//! ```
//!
//! A would end the retired id and leave T alive. So a statement that finds one of its rows pointing
//! beyond its snapshot deletes nothing and returns `moved`. The next one sees T.
//!
//! [`sweep`](super::sweep) deletes the sessions of a user, of a group, and all.

use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::failure::{Failure, Verdict};
use super::notify::deleted_because;
use super::parameters::{IDS, Parameters, TEXTS};
use super::{Database, Dialect, Sql, SqlForms, unexpected, waits_at_most_until_deleted};
use crate::ending::{self, Ending};
use crate::error::{Error, ErrorKind};
use crate::id::SessionId;
use crate::notification::{ServerId, cause_payloads};
use crate::retry::DELETE_TRIES_MAX;

/// One row that is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone {
    pub(crate) id: SessionId,
    /// The session that it was, or was left of.
    pub(crate) session: SessionId,
    /// Whether it was a session, and alive.
    pub(crate) live: bool,
}

pub(super) fn sessions_sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let live = dialect.live("s");
    let mut parameters = Parameters::default();
    let ids = parameters.any(&IDS);
    let payloads = parameters.unnest(&[TEXTS]);
    let endings = parameters.scalar(&Type::TEXT);
    let to_evict = to_evict(
        dialect,
        &format!("SELECT COALESCE(s.rotated_to, s.id) AS id FROM {sessions} s WHERE s.id = {ids}"),
        &waits_at_most_until_deleted(&dialect.row_lock_wait(), &endings),
    );
    let notified = deleted_because(dialect, "SELECT id FROM gone", &payloads);
    // Also evaluated if the table has no policy: see `read`.
    let (visible, server) = (dialect.visible(), dialect.server_id());
    Sql {
        text: format!(
            "WITH {to_evict}, gone AS (
                 DELETE FROM {sessions} s
                 WHERE s.id = ANY (ARRAY (SELECT d.id FROM to_evict d)) AND NOT EXISTS (SELECT FROM moved)
                 RETURNING s.id, COALESCE(s.rotated_to, s.id) AS session, s.rotated_to IS NULL AND {live} AS live
             ), notified AS MATERIALIZED ({notified})
             SELECT EXISTS (SELECT FROM moved) AS moved, g.id, g.session, g.live, {visible} AS visible,
                    {server} AS server
             FROM (SELECT pg_catalog.count(*) FROM notified) t LEFT JOIN gone g ON true"
        ),
        types: parameters.types,
    }
}

/// Locks the sessions that `chosen` names, with their retired ids: `to_evict`, and `moved` for those that point beyond the
/// snapshot.
///
/// Arrays: the planner takes one for ten rows, however many it expects of the query, and looks them up.
fn to_evict(dialect: &Dialect<'_>, chosen: &str, wait: &str) -> String {
    let (sessions, retired_ids) = (dialect.names.sessions(), dialect.retired_ids("c.id"));
    let visible = dialect.visible();
    format!(
        "chosen AS MATERIALIZED ({chosen}
         ), to_evict AS MATERIALIZED (
             SELECT s.id, s.rotated_to FROM {sessions} s
             WHERE s.id = ANY (ARRAY (SELECT c.id FROM chosen c
                                      UNION
                                      SELECT r.id FROM chosen c CROSS JOIN LATERAL ({retired_ids}) r))
                 AND {visible} AND {wait}
             ORDER BY s.id FOR UPDATE
         ), moved AS MATERIALIZED (
             SELECT d.id FROM to_evict d
             WHERE d.rotated_to IS NOT NULL AND (SELECT x.id FROM {sessions} x WHERE x.id = d.rotated_to) IS NULL
         )"
    )
}

impl Database {
    /// Deletes the given sessions, all or none, each with what rotations left of it. Returns the server that has done so.
    pub(crate) async fn delete(
        &self,
        sessions: &[(SessionId, Ending)],
    ) -> Result<(Vec<Gone>, ServerId), Failure> {
        let ids: Vec<Uuid> = sessions.iter().map(|(id, _)| id.expose()).collect();
        let (causes, endings) = (cause_payloads(sessions), ending::of_each(sessions));
        // One batch at most, so the deadline is that of any other write. A logout whose answer is
        // lost delays the logouts that come after it.
        let rows = self.query_unmoved(&self.texts.delete, &[&ids, &causes, &endings]).await?;
        let gone = rows.iter().filter_map(|row| gone(row).transpose()).collect::<Result<_, _>>();
        let row = rows.first().ok_or_else(|| unexpected("no row for a deletion"))?;
        let server = row.try_get("server").map(ServerId).map_err(unexpected)?;
        Ok((gone.map_err(unexpected)?, server))
    }

    /// Sends a deletion until none of its sessions was rotated while it waited.
    async fn query_unmoved(
        &self,
        sql: &SqlForms,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<SqlRow>, Failure> {
        for _ in 0..DELETE_TRIES_MAX {
            let rows = self.call(sql, params).rows().await?;
            let moved = rows.first().map(|row| row.try_get("moved")).transpose().map_err(unexpected)?;
            if moved == Some(false) {
                return Ok(rows);
            }
        }
        let error = Error::new(
            ErrorKind::Contention,
            "the sessions kept being rotated, and none was deleted; try again later",
        );
        Err(Failure { error, verdict: Verdict::Refused })
    }
}

/// `None` for the row that represents no row.
fn gone(row: &SqlRow) -> Result<Option<Gone>, tokio_postgres::Error> {
    let Some(id) = row.try_get("id")? else { return Ok(None) };
    let session = SessionId::from_uuid(row.try_get("session")?);
    Ok(Some(Gone { id: SessionId::from_uuid(id), session, live: row.try_get("live")? }))
}
