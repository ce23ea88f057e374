//! Deletes sessions and notifies the other nodes, in one statement. Attributes go by a trigger, which sees what was
//! committed while the statement waited for a row.
//!
//! A session and its retired ids, whose rows point at it, go together: a logout with an old id is
//! one, and a logout with the new id ends the old ones. All of their rows are locked in the order of their ids, as
//! everywhere, so that two statements cannot wait for each other and the trigger finds no row that another client holds.
//!
//! ```text
//! A   snapshot: S ── waits for S ───────────── S points at T, which the snapshot does not hold
//! B        rotates S to T ── COMMIT
//! ```
//!
//! A would end the retired id and leave T alive. So a statement that finds one of its rows pointing beyond its snapshot
//! deletes nothing and says so (`moved`), and the next one sees T.

use std::time::Duration;

use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::failure::{Failure, Verdict};
use super::notify::deleted;
use super::parameters::{IDS, Parameters};
use super::{Database, Dialect, LIBRARY, Sql, same_length, unexpected, waits_at_most_until_deleted};
use crate::error::{Error, ErrorKind};
use crate::id::{Scope, SessionId, UserId};
use crate::notification::drop_payload;
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

/// The outcome of deleting the sessions of a user, of a group, or all.
#[derive(Debug)]
pub(crate) struct Swept {
    /// Sessions that were alive.
    pub(crate) live: u64,
    /// Retired ids of another user or group, or of none, that were deleted with them.
    pub(crate) other_users: Vec<SessionId>,
}

pub(super) fn sessions_sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let live = dialect.live("s");
    let mut parameters = Parameters::default();
    let ids = parameters.any(&IDS);
    let to_evict = to_evict(
        dialect,
        &format!("SELECT COALESCE(s.rotated_to, s.id) AS id FROM {sessions} s WHERE s.id = {ids}"),
        &waits_at_most_until_deleted(&dialect.row_lock_wait()),
    );
    let notified = deleted(dialect, "SELECT id FROM gone");
    // Also evaluated if the table has no policy: see `read`. So below, in `mass_delete`.
    let visible = dialect.visible();
    Sql {
        text: format!(
            "WITH {to_evict}, gone AS (
                 DELETE FROM {sessions} s
                 WHERE s.id = ANY (ARRAY (SELECT d.id FROM to_evict d)) AND NOT EXISTS (SELECT FROM moved)
                 RETURNING s.id, COALESCE(s.rotated_to, s.id) AS session, s.rotated_to IS NULL AND {live} AS live
             ), notified AS MATERIALIZED ({notified})
             SELECT EXISTS (SELECT FROM moved) AS moved, g.id, g.session, g.live, {visible} AS visible
             FROM (SELECT pg_catalog.count(*) FROM notified) t LEFT JOIN gone g ON true"
        ),
        types: parameters.types,
    }
}

/// For a user or a group: the column that names it, and the kind of its notification.
pub(super) fn owner_sql(dialect: &Dialect<'_>, column: &str, kind: char) -> Sql {
    let sessions = dialect.names.sessions();
    let chosen = format!("SELECT s.id FROM {sessions} s WHERE s.{column} = $1");
    Sql { text: owned(dialect, column, kind, &chosen, "$2"), types: vec![Type::UUID, Type::TEXT] }
}

/// All of a user's sessions but one, whichever of its ids it is named by. Its retired ids go, unless one of them names it:
/// a thief who stole one is among the others.
pub(super) fn others_sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let retired = dialect.retired_ids("k.id");
    let kept = format!("COALESCE((SELECT k.rotated_to FROM {sessions} k WHERE k.id = $2), $2)");
    let chosen = format!(
        "SELECT s.id FROM {sessions} s WHERE s.user_id = $1 AND COALESCE(s.rotated_to, s.id) <> {kept}
         UNION ALL
         SELECT r.id FROM (SELECT k.id FROM {sessions} k WHERE k.id = {kept} AND k.user_id = $1 OFFSET 0) k
         CROSS JOIN LATERAL ({retired}) r WHERE r.id <> $2"
    );
    Sql {
        text: owned(dialect, "user_id", 'u', &chosen, "$3"),
        types: vec![Type::UUID, Type::UUID, Type::TEXT],
    }
}

/// Every node drops the owner's sessions from memory, by one notification: "log out everywhere" cannot outgrow a
/// payload.
fn owned(dialect: &Dialect<'_>, column: &str, kind: char, chosen: &str, wait: &str) -> String {
    let channel = dialect.channel();
    let notify = format!(
        "SELECT pg_catalog.pg_notify('{channel}', '1{kind}' || pg_catalog.replace($1::pg_catalog.text, '-', ''))"
    );
    let to_evict = to_evict(dialect, chosen, &waits_at_most_until_deleted(wait));
    mass_delete(dialect, &to_evict, &format!("s.{column} IS DISTINCT FROM $1"), &notify)
}

/// It needs every row, so it waits for each.
pub(super) fn all_sql(dialect: &Dialect<'_>) -> Sql {
    let channel = dialect.channel();
    let notify = format!("SELECT pg_catalog.pg_notify('{channel}', '{}')", drop_payload(Scope::All));
    Sql { text: mass_delete(dialect, &locked(dialect, "true", LIBRARY), "false", &notify), types: vec![] }
}

fn mass_delete(dialect: &Dialect<'_>, to_evict: &str, stranger: &str, notify: &str) -> String {
    let sessions = dialect.names.sessions();
    let live = dialect.live("s");
    let notified = deleted(dialect, "SELECT id FROM gone WHERE stranger");
    let visible = dialect.visible();
    format!(
        "WITH {to_evict}, gone AS (
             DELETE FROM {sessions} s
             WHERE s.id = ANY (ARRAY (SELECT d.id FROM to_evict d)) AND NOT EXISTS (SELECT FROM moved)
             RETURNING s.id, {stranger} AS stranger, s.rotated_to IS NULL AND {live} AS live
         ), notified_all AS MATERIALIZED ({notify}
         ), notified AS MATERIALIZED ({notified})
         SELECT EXISTS (SELECT FROM moved) AS moved, pg_catalog.count(*) FILTER (WHERE g.live) AS live,
                pg_catalog.array_agg(g.id) FILTER (WHERE g.stranger) AS other_users,
                (SELECT pg_catalog.count(*) FROM notified_all) AS notified_all, (SELECT pg_catalog.count(*) FROM notified) AS notified,
                {visible} AS visible
         FROM gone g"
    )
}

/// Locks the sessions that `chosen` names, with their retired ids.
///
/// Arrays, here and below: the planner takes one for ten rows, however many it expects of the query, and looks them up.
fn to_evict(dialect: &Dialect<'_>, chosen: &str, wait: &str) -> String {
    let retired_ids = dialect.retired_ids("c.id");
    let locked = locked(
        dialect,
        &format!(
            "s.id = ANY (ARRAY (SELECT c.id FROM chosen c
                                UNION
                                SELECT r.id FROM chosen c CROSS JOIN LATERAL ({retired_ids}) r))"
        ),
        wait,
    );
    format!("chosen AS MATERIALIZED ({chosen}), {locked}")
}

/// `to_evict`, and `moved` for those that point beyond the snapshot.
fn locked(dialect: &Dialect<'_>, condition: &str, wait: &str) -> String {
    let visible = dialect.visible();
    let sessions = dialect.names.sessions();
    format!(
        "to_evict AS MATERIALIZED (
             SELECT s.id, s.rotated_to FROM {sessions} s WHERE {condition} AND {visible} AND {wait}
             ORDER BY s.id FOR UPDATE
         ), moved AS MATERIALIZED (
             SELECT d.id FROM to_evict d
             WHERE d.rotated_to IS NOT NULL AND (SELECT x.id FROM {sessions} x WHERE x.id = d.rotated_to) IS NULL
         )"
    )
}

/// How many rows a deletion may find.
#[derive(Clone, Copy)]
enum Rows {
    Batch,
    Any,
}

impl Database {
    /// Deletes the given sessions, all or none, each with what rotations left of it.
    pub(crate) async fn delete(&self, ids: &[SessionId]) -> Result<Vec<Gone>, Failure> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.expose()).collect();
        // A batch of them at most, so no more patience than with any other write: a logout whose answer is lost holds up those
        // that come after it.
        let rows = self.query_unmoved(Rows::Batch, &self.texts.delete, &[&ids]).await?;
        rows.iter().filter_map(|row| gone(row).transpose()).collect::<Result<_, _>>().map_err(unexpected)
    }

    /// Deletes all sessions of a user, of a group, or of all users. A user's or a group's rows are waited for no longer than
    /// `wait` each.
    pub(crate) async fn delete_all(&self, scope: Scope, wait: Duration) -> Result<Swept, Failure> {
        let wait = wait.as_millis().to_string();
        let rows = match scope {
            Scope::User(id) => {
                self.query_unmoved(Rows::Any, &self.texts.delete_user, &[&id.as_uuid(), &wait]).await?
            }
            Scope::Group(id) => {
                self.query_unmoved(Rows::Any, &self.texts.delete_group, &[&id.as_uuid(), &wait]).await?
            }
            Scope::All => self.query_unmoved(Rows::Any, &self.texts.delete_all, &[]).await?,
        };
        swept(&rows)
    }

    /// Deletes all sessions of a user but `keep`. The rows are waited for no longer than `wait` each.
    pub(crate) async fn delete_others(
        &self,
        user: UserId,
        keep: SessionId,
        wait: Duration,
    ) -> Result<Swept, Failure> {
        let wait = wait.as_millis().to_string();
        let params: [&(dyn ToSql + Sync); 3] = [&user.as_uuid(), &keep.expose(), &wait];
        swept(&self.query_unmoved(Rows::Any, &self.texts.delete_user_but, &params).await?)
    }

    /// Sends a deletion until none of its sessions was rotated while it waited.
    async fn query_unmoved(
        &self,
        rows: Rows,
        sql: &Sql,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<SqlRow>, Failure> {
        for _ in 0..DELETE_TRIES_MAX {
            let rows = match rows {
                Rows::Batch => self.call(sql, params).rows().await?,
                Rows::Any => self.call(sql, params).long().rows().await?,
            };
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

fn swept(rows: &[SqlRow]) -> Result<Swept, Failure> {
    same_length(rows, 1)?;
    let live: i64 = rows[0].try_get("live").map_err(unexpected)?;
    let other_users: Option<Vec<Uuid>> = rows[0].try_get("other_users").map_err(unexpected)?;
    let other_users = other_users.unwrap_or_default().into_iter().map(SessionId::from_uuid).collect();
    Ok(Swept { live: live.unsigned_abs(), other_users })
}
