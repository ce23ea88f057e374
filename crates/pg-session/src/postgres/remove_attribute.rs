//! Removes one attribute from all sessions of a user, and from what rotations left of them.
//!
//! As in [`update`](super::update): a page of sessions is read, and each is changed only while its version is the one that
//! was read. Those that were overtaken still have the attribute, and are found again.

use std::time::Duration;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::failure::Failure;
use super::notify::changed;
use super::parameters::{IDS, NUMBERS, Parameters, TEXTS};
use super::{Database, Dialect, LIBRARY, LIFTED, Sql, same_length, unexpected, waits_at_most};
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
    /// Where the next page begins; `None` after the last one.
    pub(crate) next: Option<Uuid>,
}

/// Materialized, or the planner may walk the primary key through all sessions for the first of this user.
pub(super) fn found_sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let visible = dialect.visible();
    let live = dialect.live("s");
    let from = dialect.read("found", "f", "(f.packed OR f.apart)");
    Sql {
        text: format!(
            "WITH found AS MATERIALIZED (
                 SELECT s.id, s.version, s.attributes, position($3 IN s.attributes) > 0 AS packed,
                        s.has_overflow AND EXISTS (SELECT FROM {attributes} a WHERE a.session_id = s.id AND a.key = $2) AS apart
                 FROM {sessions} s WHERE s.user_id = $1 AND s.id > $4 AND {live} AND {visible}
             )
             SELECT f.id, f.version, f.attributes, f.apart {from}
             ORDER BY f.id LIMIT {PAGE}"
        ),
        types: vec![Type::UUID, Type::TEXT, Type::TEXT, Type::UUID],
    }
}

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let (now, live) = (dialect.now, dialect.live("s"));
    let notified = changed(dialect, "SELECT id, version FROM done");
    let mut parameters = Parameters::default();
    let key = parameters.scalar(&Type::TEXT);
    let changes = parameters.unnest(&[IDS, NUMBERS, TEXTS]);
    let brief = waits_at_most(&parameters.scalar(&Type::TEXT));
    Sql {
        text: format!(
            "WITH done AS (
                 UPDATE {sessions} s
                 SET version = s.version + 1, updated_at = {now}, attributes = COALESCE(c.attributes, s.attributes)
                 FROM {changes} AS c (id, base, attributes)
                 WHERE s.id = c.id AND s.version = c.base AND {live} AND {brief} AND {LIBRARY}
                 RETURNING s.id, s.version, s.rotated_to
             ), removed AS (
                 DELETE FROM {attributes} a USING done d WHERE a.session_id = d.id AND a.key = {key}
                 RETURNING 1
             ), notified AS MATERIALIZED ({notified})
             SELECT c.* FROM (
                 SELECT (SELECT pg_catalog.count(*) FROM done) AS done,
                        (SELECT pg_catalog.count(*) FROM done WHERE rotated_to IS NULL) AS sessions,
                        (SELECT pg_catalog.count(*) FROM removed) AS removed,
                        (SELECT pg_catalog.count(*) FROM notified) AS notified
                 OFFSET 0
             ) c WHERE c.removed >= 0 AND c.notified >= 0 AND {LIFTED}"
        ),
        types: parameters.types,
    }
}

impl Database {
    /// Removes the attribute from a page of the user's sessions, beginning behind `after`. Their rows are waited for no longer
    /// than `wait` each.
    pub(crate) async fn remove_attribute(
        &self,
        user: Uuid,
        key: &str,
        after: Uuid,
        wait: Duration,
    ) -> Result<Removed, Failure> {
        let opening = inline::opening(key);
        let found =
            self.call(&self.texts.having_attribute, &[&user, &key, &opening, &after]).long().rows().await;
        let rows = found.map_err(Failure::into_unsent_error)?;
        let (mut ids, mut bases, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            let read = || {
                let id: Uuid = row.try_get("id")?;
                let (base, apart): (i64, bool) = (row.try_get("version")?, row.try_get("apart")?);
                Ok::<_, tokio_postgres::Error>((id, base, row.try_get::<_, &str>("attributes")?, apart))
            };
            let (id, base, text, apart) = read().map_err(unexpected)?;
            let text = inline::without(text, key).map_err(unexpected)?;
            // What looks like the key may stand in a value.
            if text.is_some() || apart {
                ids.push(id);
                bases.push(base);
                texts.push(text);
            }
        }
        let full = i64::try_from(rows.len()).is_ok_and(|rows| rows == PAGE);
        let next = match rows.last() {
            Some(row) if full => Some(row.try_get("id").map_err(unexpected)?),
            _ => None,
        };
        if ids.is_empty() {
            return Ok(Removed { sessions: 0, conflicts: 0, next });
        }
        let wait = wait.as_millis().to_string();
        let rows = self
            .call(&self.texts.remove_attribute, &[&key, &ids, &bases, &texts, &wait])
            .long()
            .rows()
            .await?;
        same_length(&rows, 1)?;
        let read = |column| rows[0].try_get::<_, i64>(column).map(i64::unsigned_abs).map_err(unexpected);
        let conflicts = (ids.len() as u64).saturating_sub(read("done")?);
        Ok(Removed { sessions: read("sessions")?, conflicts, next })
    }
}
