//! Writes last accesses, many at a time. A touch is not a change: no new version, no notification.

use std::time::SystemTime;

use uuid::Uuid;

use super::failure::Failure;
use super::load::time;
use super::parameters::{IDS, Parameters, TIMES};
use super::{Database, Dialect, Sql, unexpected};
use crate::clock::DbTime;
use crate::id::SessionId;
use crate::notification::ServerId;

/// What became of one access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touched {
    pub(crate) id: SessionId,
    /// What the database holds.
    pub(crate) last_accessed_at: DbTime,
    /// Another client held the row, so the access was not written.
    pub(crate) skipped: bool,
}

/// Only forward (`<`), never into the future (`LEAST`), never for a session that has ended or was rotated. Rows with a later
/// access are not rewritten, but reported, so that the caller learns of it.
///
/// Rows that another client holds are skipped. A batch that waited for one of its rows while it
/// held the others would delay combined updates. As they lock in another order, it would end in
/// deadlocks. A touch can always come later.
///
/// A union, not a join with `done`. The planner takes arrays for ten rows and would compare each of
/// thousands with each, while the rows stay locked. `NOT IN` looks into a hash table.
pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let (live, current) = (dialect.live("s"), dialect.current("s"));
    let now = dialect.now;
    let (visible, server) = (dialect.visible(), dialect.server_id());
    let mut parameters = Parameters::default();
    let touches = parameters.unnest(&[IDS, TIMES]);
    Sql {
        text: format!(
            "WITH touch AS MATERIALIZED (
                 SELECT * FROM {touches} AS t (id, at)
             ), free AS MATERIALIZED (
                 SELECT s.id, t.at FROM touch t JOIN {sessions} s ON s.id = t.id
                 WHERE s.last_accessed_at < LEAST(t.at, {now}) AND {current}
                     AND {visible}
                 FOR NO KEY UPDATE OF s SKIP LOCKED
             ), done AS (
                 UPDATE {sessions} s SET last_accessed_at = LEAST(f.at, {now})
                 FROM free f
                 WHERE s.id = f.id AND s.last_accessed_at < LEAST(f.at, {now}) AND {current}
                 RETURNING s.id, s.last_accessed_at
             )
             SELECT d.id, d.last_accessed_at, false AS skipped, {server} AS server FROM done d
             UNION ALL
             SELECT s.id, s.last_accessed_at, s.last_accessed_at < LEAST(t.at, {now}) AND s.rotated_to IS NULL, {server}
             FROM touch t JOIN {sessions} s ON s.id = t.id
             WHERE {live} AND s.id NOT IN (SELECT d.id FROM done d)
             UNION ALL
             SELECT NULL, NULL, NULL, NULL WHERE NOT {visible}"
        ),
        types: parameters.types,
    }
}

impl Database {
    /// Writes the accesses, one for each session. Reports on each that is alive; the others have ended. With the server,
    /// if any is alive.
    pub(crate) async fn touch(
        &self,
        accesses: &[(SessionId, DbTime)],
    ) -> Result<(Vec<Touched>, Option<ServerId>), Failure> {
        let ids: Vec<Uuid> = accesses.iter().map(|(id, _)| id.expose()).collect();
        let times: Vec<SystemTime> = accesses.iter().map(|&(_, at)| at.into()).collect();
        let rows = self.call(&self.texts.touch, &[&ids, &times]).rows().await?;
        let touched = rows.iter().map(|row| {
            Ok::<_, tokio_postgres::Error>(Touched {
                id: SessionId::from_uuid(row.try_get("id")?),
                last_accessed_at: time(row, "last_accessed_at")?,
                skipped: row.try_get("skipped")?,
            })
        });
        let touched = touched.collect::<Result<_, _>>().map_err(unexpected)?;
        let server = rows.first().map(|row| row.try_get("server").map(ServerId)).transpose();
        Ok((touched, server.map_err(unexpected)?))
    }
}
