//! Writes last accesses, many at a time. A touch is not a change: no new version, no notification.

use std::time::SystemTime;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::failure::Failure;
use super::load::time;
use super::{Database, Dialect, Sql, unexpected};
use crate::clock::DbTime;
use crate::id::SessionId;

/// Only forward (`<`), never into the future (`LEAST`), never for a session that has ended. Rows that already know a
/// later access are not rewritten, but reported, so that the caller's idea of them moves forward.
///
/// A union, not a join with `done`: the planner takes arrays for ten rows and would compare each of thousands with
/// each, while the rows stay locked. A row that another transaction touched in between is in neither half; its
/// session is then read again.
pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let live = dialect.live("s");
    let now = dialect.now;
    Sql {
        text: format!(
            "WITH touch AS MATERIALIZED (
                 SELECT * FROM unnest($1::uuid[], $2::timestamptz[]) AS t (id, at)
             ), done AS (
                 UPDATE {sessions} s SET last_accessed_at = LEAST(t.at, {now})
                 FROM touch t
                 WHERE s.id = t.id AND s.last_accessed_at < LEAST(t.at, {now}) AND {live}
                 RETURNING s.id, s.last_accessed_at
             )
             SELECT d.id, d.last_accessed_at FROM done d
             UNION ALL
             SELECT s.id, s.last_accessed_at FROM touch t JOIN {sessions} s ON s.id = t.id
             WHERE s.last_accessed_at >= LEAST(t.at, {now}) AND {live}"
        ),
        types: vec![Type::UUID_ARRAY, Type::TIMESTAMPTZ_ARRAY],
    }
}

impl Database {
    /// Writes the accesses, sorted by id, one for each. Returns what the database now holds for each session that is
    /// alive; the others have ended.
    pub(crate) async fn touch(
        &self,
        accesses: &[(SessionId, DbTime)],
    ) -> Result<Vec<(SessionId, DbTime)>, Failure> {
        debug_assert!(accesses.windows(2).all(|pair| pair[0].0 < pair[1].0), "one lock order");
        let ids: Vec<Uuid> = accesses.iter().map(|(id, _)| id.expose()).collect();
        let times: Vec<SystemTime> = accesses.iter().map(|&(_, at)| at.into()).collect();
        let rows = self.query(&self.texts.touch, &[&ids, &times]).await?;
        let confirmed = rows.iter().map(|row| {
            Ok::<_, tokio_postgres::Error>((
                SessionId::from_uuid(row.try_get("id")?),
                time(row, "last_accessed_at")?,
            ))
        });
        confirmed.collect::<Result<_, _>>().map_err(unexpected)
    }
}
