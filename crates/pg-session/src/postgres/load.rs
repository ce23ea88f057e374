//! Loads sessions, rows and attributes, from one snapshot.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::Row as SqlRow;
use tokio_postgres::row::RowIndex;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::failure::Failure;
use super::names::Owner;
use super::parameters::{IDS, Parameters};
use super::{Database, Dialect, Sql, unexpected};
use crate::clock::{DbTime, Tick};
use crate::error::Error;
use crate::id::{GroupId, SessionId, UserId};
use crate::session::IdleLimit;
use crate::session::attribute::Apart;
use crate::session::attributes::Attributes;
use crate::session::packed::Packed;
use crate::session::record::{Record, Row};
use crate::version::Version;

/// Aggregates the session's attributes that have rows of their own and have not expired into four arrays of equal length.
///
/// Most sessions have none, and the condition on `s.spilled` keeps PostgreSQL from looking for them.
fn attribute_arrays(dialect: &Dialect<'_>) -> String {
    let attributes = dialect.names.attributes();
    let now = dialect.now;
    format!(
        "SELECT array_agg(a.key) AS keys, array_agg(a.value) AS texts, array_agg(a.version) AS versions,
                array_agg(a.expires_at) AS expiries
         FROM {attributes} a
         WHERE s.spilled AND a.session_id = s.id AND (a.expires_at IS NULL OR a.expires_at > {now})"
    )
}

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let mut parameters = Parameters::default();
    let condition = format!("s.id = {}", parameters.any(&IDS));
    Sql { text: select(dialect, &condition), types: parameters.types }
}

/// The sessions of one owner, the most recently used first; each once, however often it was rotated.
pub(super) fn list_sql(dialect: &Dialect<'_>, owner: Owner) -> Sql {
    let condition = format!("s.{} = $1 AND s.rotated_to IS NULL", owner.column());
    let text = format!("{} ORDER BY s.last_accessed_at DESC, s.id LIMIT $2", select(dialect, &condition));
    Sql { text, types: vec![Type::UUID, Type::INT8] }
}

/// I6: one statement, one snapshot, so that row and attributes belong to one version.
fn select(dialect: &Dialect<'_>, condition: &str) -> String {
    let sessions = dialect.names.sessions();
    let live = dialect.live("s");
    let arrays = attribute_arrays(dialect);
    let now = dialect.now;
    format!(
        "SELECT s.id, s.user_id, s.group_id, s.version, s.idle_limited, s.created_at, s.updated_at,
                s.last_accessed_at, s.expires_at, s.rotated_to IS NOT NULL AS rotated, s.attributes,
                b.keys, b.texts, b.versions, b.expiries, {now} AS now
         FROM {sessions} s
         CROSS JOIN LATERAL ({arrays}) b
         WHERE {condition} AND {live}"
    )
}

/// A session that is alive, or why it cannot be read: one whose row somebody spoilt is an error of that session only.
pub(crate) type Found = (SessionId, Result<Record, Error>);

impl Database {
    /// The live ones among `ids`, in no particular order.
    pub(crate) async fn load(&self, ids: &[SessionId]) -> Result<Vec<Found>, Failure> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.expose()).collect();
        let sent = self.rules.clock.now();
        self.query_each(&self.texts.load, &[&ids], |row| self.found(sent, row)).await
    }

    /// The live sessions of a user or a group, at most `rows_max`, the most recently used first.
    pub(crate) async fn list(&self, owner: Owner, id: Uuid, rows_max: u32) -> Result<Vec<Found>, Failure> {
        let sql = match owner {
            Owner::User => &self.texts.list_user,
            Owner::Group => &self.texts.list_group,
        };
        let sent = self.rules.clock.now();
        self.query_each(sql, &[&id, &i64::from(rows_max)], |row| self.found(sent, row)).await
    }

    fn found(&self, sent: Tick, row: &SqlRow) -> Result<Found, Failure> {
        let (found, now) = self.record(row).map_err(unexpected)?;
        // The last row's reading is the newest, but each of them lies within the statement.
        self.observe_clock(sent, now);
        Ok(found)
    }

    /// By position: looking fifteen columns up by their names took longer than decoding them.
    fn record(&self, row: &SqlRow) -> Result<(Found, DbTime), tokio_postgres::Error> {
        let idle_limited: bool = row.try_get(4)?;
        let head = Row {
            id: SessionId::from_uuid(row.try_get(0)?),
            user_id: row.try_get::<_, Option<Uuid>>(1)?.map(UserId::from),
            group_id: row.try_get::<_, Option<Uuid>>(2)?.map(GroupId::from),
            version: Version::new(row.try_get(3)?),
            created_at: time(row, 5)?,
            updated_at: time(row, 6)?,
            expires_at: time(row, 8)?,
            idle_limit: if idle_limited { IdleLimit::Enforced } else { IdleLimit::Exempt },
            rotated: row.try_get(9)?,
        };
        let (id, last_accessed_at, now) = (head.id, time(row, 7)?, time(row, 15)?);
        let apart = apart(row, 11)?;
        let record = match Packed::read(row.try_get(10)?) {
            Ok(packed) => {
                let attributes = Attributes::new(packed, apart);
                Ok(Record::new(Arc::clone(&self.rules), head, attributes, last_accessed_at))
            }
            Err(malformed) => Err(unexpected(malformed).error),
        };
        Ok(((id, record), now))
    }
}

pub(super) fn time(
    row: &SqlRow,
    column: impl RowIndex + fmt::Display,
) -> Result<DbTime, tokio_postgres::Error> {
    row.try_get::<_, SystemTime>(column).map(DbTime::from)
}

/// Reads what [`attribute_arrays`] made, four columns from `first` on; no attributes at all make NULL arrays.
fn apart(row: &SqlRow, first: usize) -> Result<Vec<Arc<Apart>>, tokio_postgres::Error> {
    let keys: Vec<&str> = row.try_get::<_, Option<_>>(first)?.unwrap_or_default();
    let texts: Vec<&str> = row.try_get::<_, Option<_>>(first + 1)?.unwrap_or_default();
    let versions: Vec<i64> = row.try_get::<_, Option<_>>(first + 2)?.unwrap_or_default();
    let expiries: Vec<Option<SystemTime>> = row.try_get::<_, Option<_>>(first + 3)?.unwrap_or_default();
    // Four aggregates over the same rows have the same length, or `zip` would lose some silently.
    debug_assert!(
        keys.len() == texts.len() && keys.len() == versions.len() && keys.len() == expiries.len(),
        "aggregates of different lengths"
    );
    let all = keys.into_iter().zip(texts).zip(versions).zip(expiries);
    let all = all.map(|(((key, text), version), expires_at)| {
        let expires_at = expires_at.map_or(DbTime::NEVER, DbTime::from);
        Arc::new(Apart::new(key, text, Version::new(version), expires_at))
    });
    Ok(all.collect())
}
