//! Deletes sessions and tells the other nodes, in one statement. Attributes go by the foreign key's cascade, which
//! sees what was committed while the statement waited for a row.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::failure::Failure;
use super::notify::{Drop, deleted};
use super::{Database, Dialect, Sql, unexpected};
use crate::id::SessionId;

/// The column that names whose sessions to delete.
#[derive(Clone, Copy)]
pub(super) enum Owner {
    User,
    Group,
}

/// Rows are locked in the order of their ids, as everywhere: two statements cannot wait for each other.
pub(super) fn sessions_sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let notify = deleted(dialect, "SELECT id FROM gone");
    let live = dialect.live("s");
    Sql {
        text: format!(
            "WITH doomed AS MATERIALIZED (
                 SELECT s.id FROM {sessions} s WHERE s.id = ANY ($1) ORDER BY s.id FOR UPDATE
             ), gone AS (
                 DELETE FROM {sessions} s USING doomed d WHERE s.id = d.id RETURNING s.id, {live} AS live
             ), told AS MATERIALIZED ({notify})
             SELECT g.id FROM gone g CROSS JOIN (SELECT count(*) FROM told) t WHERE g.live"
        ),
        types: vec![Type::UUID_ARRAY],
    }
}

pub(super) fn owner_sql(dialect: &Dialect<'_>, owner: Owner) -> Sql {
    let (column, kind) = match owner {
        Owner::User => ("user_id", 'u'),
        Owner::Group => ("group_id", 'g'),
    };
    let channel = dialect.channel();
    Sql {
        text: mass_delete(
            dialect,
            &format!("s.{column} = $1"),
            &format!("SELECT pg_catalog.pg_notify('{channel}', '1{kind}' || replace($1::text, '-', ''))"),
        ),
        types: vec![Type::UUID],
    }
}

pub(super) fn all_sql(dialect: &Dialect<'_>) -> Sql {
    let channel = dialect.channel();
    let notify = format!("SELECT pg_catalog.pg_notify('{channel}', '{}')", Drop::All.payload());
    Sql { text: mass_delete(dialect, "true", &notify), types: vec![] }
}

/// One notification, however many sessions: "log out everywhere" cannot outgrow a payload.
fn mass_delete(dialect: &Dialect<'_>, condition: &str, notify: &str) -> String {
    let sessions = dialect.names.sessions();
    let live = dialect.live("s");
    format!(
        "WITH doomed AS MATERIALIZED (
             SELECT s.id FROM {sessions} s WHERE {condition} ORDER BY s.id FOR UPDATE
         ), gone AS (
             DELETE FROM {sessions} s USING doomed d WHERE s.id = d.id RETURNING {live} AS live
         ), told AS MATERIALIZED ({notify})
         SELECT count(*) FILTER (WHERE g.live) FROM gone g CROSS JOIN (SELECT count(*) FROM told) t"
    )
}

impl Database {
    /// Deletes the given sessions, all or none. Returns those that were alive.
    pub(crate) async fn delete(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Failure> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.expose()).collect();
        let rows = self.query_long(&self.texts.delete, &[&ids]).await?;
        let gone = rows.iter().map(|row| row.try_get(0).map(SessionId::from_uuid));
        gone.collect::<Result<_, _>>().map_err(unexpected)
    }

    /// Deletes all sessions of a user, of a group, or of everybody. Returns how many were alive.
    pub(crate) async fn delete_all(&self, whose: Drop) -> Result<u64, Failure> {
        let rows = match &whose {
            Drop::User(id) => self.query_long(&self.texts.delete_user, &[id]).await?,
            Drop::Group(id) => self.query_long(&self.texts.delete_group, &[id]).await?,
            Drop::All => self.query_long(&self.texts.delete_all, &[]).await?,
        };
        let mut count = 0;
        for row in &rows {
            count += row.try_get::<_, i64>(0).map_err(unexpected)?;
        }
        Ok(count.unsigned_abs())
    }
}
