//! Deletes sessions and tells the other nodes, in one statement. Attributes go by the foreign key's cascade, which
//! sees what was committed while the statement waited for a row.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::failure::Failure;
use super::names::Owner;
use super::notify::{Whose, changed, deleted};
use super::{Database, Dialect, Sql, same_length, unexpected};
use crate::id::SessionId;

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
    let column = owner.column();
    let kind = match owner {
        Owner::User => 'u',
        Owner::Group => 'g',
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
    let notify = format!("SELECT pg_catalog.pg_notify('{channel}', '{}')", Whose::All.payload());
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

/// Removes one attribute from all sessions of a user.
///
/// As in `update`: only while the session's version is the snapshot's, so that the removal cannot overlook what was
/// inserted while it waited. Sessions that were overtaken are found again by the next try.
pub(super) fn attribute_sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let (now, live) = (dialect.now, dialect.live("s"));
    let told = changed(dialect, "SELECT id, version FROM done");
    Sql {
        text: format!(
            "WITH found AS MATERIALIZED (
                 SELECT s.id, s.version FROM {sessions} s
                 WHERE s.user_id = $1 AND {live}
                   AND EXISTS (SELECT FROM {attributes} a WHERE a.session_id = s.id AND a.key = $2)
                 ORDER BY s.id
             ), done AS (
                 UPDATE {sessions} s SET version = s.version + 1, updated_at = {now}
                 FROM found f WHERE s.id = f.id AND s.version = f.version AND {live}
                 RETURNING s.id, s.version
             ), removed AS (
                 DELETE FROM {attributes} a USING done d WHERE a.session_id = d.id AND a.key = $2
             ), told AS MATERIALIZED ({told})
             SELECT (SELECT count(*) FROM found) AS found, (SELECT count(*) FROM done) AS done,
                    (SELECT count(*) FROM told) AS told"
        ),
        types: vec![Type::UUID, Type::TEXT],
    }
}

impl Database {
    /// Removes the attribute wherever the user has it. Returns how many sessions had it and how many lost it; if
    /// these differ, some were overtaken, and another try is needed.
    pub(crate) async fn remove_attribute(&self, user: Uuid, key: &str) -> Result<(u64, u64), Failure> {
        let rows = self.query_long(&self.texts.remove_attribute, &[&user, &key]).await?;
        same_length(&rows, 1)?;
        let read = |column| rows[0].try_get::<_, i64>(column).map(i64::unsigned_abs).map_err(unexpected);
        Ok((read("found")?, read("done")?))
    }

    /// Deletes the given sessions, all or none. Returns those that were alive.
    pub(crate) async fn delete(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Failure> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.expose()).collect();
        let rows = self.query_long(&self.texts.delete, &[&ids]).await?;
        let gone = rows.iter().map(|row| row.try_get(0).map(SessionId::from_uuid));
        gone.collect::<Result<_, _>>().map_err(unexpected)
    }

    /// Deletes all sessions of a user, of a group, or of everybody. Returns how many were alive.
    pub(crate) async fn delete_all(&self, whose: Whose) -> Result<u64, Failure> {
        let rows = match &whose {
            Whose::User(id) => self.query_long(&self.texts.delete_user, &[id]).await?,
            Whose::Group(id) => self.query_long(&self.texts.delete_group, &[id]).await?,
            Whose::All => self.query_long(&self.texts.delete_all, &[]).await?,
        };
        let mut count = 0;
        for row in &rows {
            count += row.try_get::<_, i64>(0).map_err(unexpected)?;
        }
        Ok(count.unsigned_abs())
    }
}
