//! Removes one attribute from all sessions of a user, and from what rotations left of them.
//!
//! As in [`update`](super::update): a page of sessions is read, and each is changed only while its version is the one that
//! was read. Those that were overtaken still have the attribute, and are found again.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::failure::{Failure, Verdict};
use super::notify::changed;
use super::parameters::{IDS, NUMBERS, Parameters, TEXTS};
use super::row_locks::locked_attributes;
use super::{
    Database, Dialect, Dialects, LIBRARY, LIFTED, Sql, SqlForms, same_length, unexpected, waits_at_most,
};
use crate::notification::ServerId;
use crate::session::inline;

/// Sessions that one statement takes.
const PAGE: i64 = 1_000;

/// What became of one page.
#[derive(Debug)]
pub(crate) struct Removed {
    /// Sessions that lost the attribute, without retired ids.
    pub(crate) sessions: u64,
    /// Rows that were overtaken and still have it, so that another try is needed.
    pub(crate) conflicts: u64,
    /// Rows that another transaction has locked, so that another try is needed later.
    pub(crate) locked: u64,
    /// Where the next page begins; `None` after the last one.
    pub(crate) next: Option<Uuid>,
    /// The servers that have found and changed them.
    pub(crate) servers: Vec<ServerId>,
}

/// At least one row, which names the server. Materialized, or the planner may walk the primary key through all sessions for the first of this user.
pub(super) fn found_sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let visible = dialect.visible();
    let live = dialect.live("s");
    let (from, server) = (dialect.read("found", "f", "(f.inline OR f.overflow)"), dialect.server_id());
    Sql {
        text: format!(
            "WITH found AS MATERIALIZED (
                 SELECT s.id, s.version, s.attributes, position($3 IN s.attributes) > 0 AS inline,
                        s.has_overflow AND EXISTS (SELECT FROM {attributes} a WHERE a.session_id = s.id AND a.key = $2) AS overflow
                 FROM {sessions} s WHERE s.user_id = $1 AND s.id > $4 AND {live} AND {visible}
             )
             SELECT o.server, p.* FROM (SELECT {server} AS server) o
             LEFT JOIN (SELECT f.id, f.version, f.attributes, f.overflow {from} ORDER BY f.id LIMIT {PAGE}) p ON true
             ORDER BY p.id"
        ),
        types: vec![Type::UUID, Type::TEXT, Type::TEXT, Type::UUID],
    }
}

/// For the rows of a page that are free, and for one row, which it waits for.
#[derive(Debug)]
pub(super) struct Texts {
    free: SqlForms,
    one: SqlForms,
}

impl Texts {
    pub(super) fn new(dialects: &Dialects<'_>) -> Self {
        let of = |skip| dialects.sql(|dialect| sql(dialect, skip));
        Self { free: of("SKIP LOCKED"), one: of("") }
    }
}

fn sql(dialect: &Dialect<'_>, skip: &str) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let (now, live, server) = (dialect.now, dialect.live("s"), dialect.server_id());
    let notified = changed(dialect, "SELECT id, version FROM done");
    let locked = locked_attributes(dialect, "SELECT f.id FROM free f");
    let mut parameters = Parameters::default();
    let key = parameters.scalar(&Type::TEXT);
    let changes = parameters.unnest(&[IDS, NUMBERS, TEXTS]);
    let brief = waits_at_most(&parameters.scalar(&Type::TEXT));
    Sql {
        text: format!(
            "WITH change AS MATERIALIZED (
                 SELECT * FROM {changes} AS c (id, base, attributes)
             ), free AS MATERIALIZED (
                 SELECT s.id FROM {sessions} s WHERE s.id = ANY (ARRAY (SELECT c.id FROM change c)) AND {brief}
                 ORDER BY s.id FOR NO KEY UPDATE {skip}
             ), writable AS MATERIALIZED (
                 SELECT f.id FROM free f EXCEPT ({locked})
             ), done AS (
                 UPDATE {sessions} s
                 SET version = s.version + 1, flip = NOT s.flip, updated_at = {now}, attributes = COALESCE(c.attributes, s.attributes)
                 FROM change c
                 WHERE s.id = ANY (ARRAY (SELECT w.id FROM writable w)) AND s.id = c.id AND s.version = c.base AND {live}
                     AND {LIBRARY}
                 RETURNING s.id, s.version, s.rotated_to
             ), removed AS (
                 DELETE FROM {attributes} a USING done d WHERE a.session_id = d.id AND a.key = {key}
                 RETURNING 1
             ), notified AS MATERIALIZED ({notified})
             SELECT c.* FROM (
                 SELECT (SELECT pg_catalog.count(*) FROM done) AS done,
                        (SELECT pg_catalog.count(*) FROM done WHERE rotated_to IS NULL) AS sessions,
                        ARRAY (SELECT c.id FROM change c EXCEPT SELECT w.id FROM writable w) AS locked,
                        (SELECT pg_catalog.count(*) FROM removed) AS removed,
                        (SELECT pg_catalog.count(*) FROM notified) AS notified, {server} AS server
                 OFFSET 0
             ) c WHERE c.removed >= 0 AND c.notified >= 0 AND {LIFTED}"
        ),
        types: parameters.types,
    }
}

/// The changes of a page, as columns.
#[derive(Default)]
struct Changes {
    ids: Vec<Uuid>,
    bases: Vec<i64>,
    texts: Vec<Option<String>>,
}

impl Changes {
    fn one(&self, id: Uuid) -> Option<Self> {
        let at = self.ids.iter().position(|&other| other == id)?;
        Some(Self { ids: vec![id], bases: vec![self.bases[at]], texts: vec![self.texts[at].clone()] })
    }
}

/// What became of some of them.
struct Written {
    done: u64,
    sessions: u64,
    locked: Vec<Uuid>,
    server: ServerId,
}

impl Database {
    /// Removes the attribute from a page of the user's sessions, beginning behind `after`. Rows that are locked are left out,
    /// but for one, which is waited for no longer than `wait`: another one with each try.
    pub(crate) async fn remove_attribute(
        &self,
        user: Uuid,
        key: &str,
        after: Uuid,
        wait: Duration,
        tries: usize,
    ) -> Result<Removed, Failure> {
        let marker = inline::key_marker(key);
        let found =
            self.call(&self.texts.having_attribute, &[&user, &key, &marker, &after]).long().rows().await;
        let mut rows = found.map_err(Failure::into_unsent_error)?;
        let mut servers = vec![server(rows.first().ok_or_else(|| unexpected("no row"))?)?];
        if rows[0].try_get::<_, Option<Uuid>>("id").map_err(unexpected)?.is_none() {
            rows.clear();
        }
        let mut changes = Changes::default();
        for row in &rows {
            let read = || {
                let id: Uuid = row.try_get("id")?;
                let (base, overflow): (i64, bool) = (row.try_get("version")?, row.try_get("overflow")?);
                Ok::<_, tokio_postgres::Error>((id, base, row.try_get::<_, &str>("attributes")?, overflow))
            };
            let (id, base, text, overflow) = read().map_err(unexpected)?;
            let text = inline::without(text, key).map_err(unexpected)?;
            // What looks like the key may stand in a value.
            if text.is_some() || overflow {
                changes.ids.push(id);
                changes.bases.push(base);
                changes.texts.push(text);
            }
        }
        let full = i64::try_from(rows.len()).is_ok_and(|rows| rows == PAGE);
        let next = match rows.last() {
            Some(row) if full => Some(row.try_get("id").map_err(unexpected)?),
            _ => None,
        };
        if changes.ids.is_empty() {
            return Ok(Removed { sessions: 0, conflicts: 0, locked: 0, next, servers });
        }
        let Texts { free, one } = &self.texts.remove_attribute;
        let Written { done, mut sessions, locked, server } = self.write(free, key, &changes, wait).await?;
        servers.push(server);
        let mut still_locked = locked.len() as u64;
        let conflicts = (changes.ids.len() as u64).saturating_sub(done + still_locked);
        if let Some(at) = tries.checked_rem(locked.len())
            && let Some(change) = changes.one(locked[at])
        {
            match self.write(one, key, &change, wait).await {
                Ok(written) => {
                    sessions += written.sessions;
                    still_locked -= written.done;
                    servers.push(written.server);
                }
                Err(failure) if failure.verdict == Verdict::Blocked => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(Removed { sessions, conflicts, locked: still_locked, next, servers })
    }

    async fn write(
        &self,
        sql: &SqlForms,
        key: &str,
        changes: &Changes,
        wait: Duration,
    ) -> Result<Written, Failure> {
        let Changes { ids, bases, texts } = changes;
        let wait = wait.as_millis().to_string();
        let rows = self.call(sql, &[&key, ids, bases, texts, &wait]).long().rows().await?;
        same_length(&rows, 1)?;
        let count = |column| rows[0].try_get::<_, i64>(column).map(i64::unsigned_abs).map_err(unexpected);
        let locked = rows[0].try_get("locked").map_err(unexpected)?;
        Ok(Written { done: count("done")?, sessions: count("sessions")?, locked, server: server(&rows[0])? })
    }
}

fn server(row: &Row) -> Result<ServerId, Failure> {
    row.try_get("server").map(ServerId).map_err(unexpected)
}
