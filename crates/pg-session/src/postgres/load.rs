//! Loads sessions, rows and attributes, from one snapshot.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::Row as SqlRow;
use tokio_postgres::row::RowIndex;
use tokio_postgres::types::{FromSql, ToSql, Type};
use uuid::Uuid;

use super::failure::Failure;
use super::parameters::{IDS, Parameters};
use super::{Database, Dialect, Sql, SqlForms, unexpected};
use crate::clock::DbTime;
use crate::error::Error;
use crate::id::{GroupId, SessionId, UserId};
use crate::label::Label;
use crate::notification::ServerId;
use crate::session::IdleLimit;
use crate::session::attribute::OverflowAttribute;
use crate::session::attributes::Attributes;
use crate::session::inline::InlineAttributes;
use crate::session::record::{Record, Row};
use crate::version::Version;

/// The session's attributes that have rows of their own and have not expired. They are four arrays
/// of equal length, in a row that is one column; see [`Arrays`].
///
/// Most sessions have none. Then nothing is looked for: a subselect within CASE is not begun, and a
/// joined aggregate would be.
fn overflow_arrays(dialect: &Dialect<'_>) -> String {
    let attributes = dialect.names.attributes();
    let now = dialect.now;
    format!(
        "CASE WHEN s.has_overflow THEN (
             SELECT ROW(pg_catalog.array_agg(a.key), pg_catalog.array_agg(a.value), pg_catalog.array_agg(a.version), pg_catalog.array_agg(a.expires_at))
             FROM {attributes} a
             WHERE a.session_id = s.id AND (a.expires_at IS NULL OR a.expires_at > {now})
         ) END"
    )
}

/// Finds the rows of ended sessions as well, and returns a row without a session if there is none. It names the server: what
/// another server does not have may exist.
pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let mut parameters = Parameters::default();
    let (sessions, ids) = (dialect.names.sessions(), parameters.any(&IDS));
    let (columns, answers) = (columns(dialect), dialect.answers());
    Sql {
        text: format!(
            "SELECT {columns}, {answers} AS answers FROM (SELECT) AS one LEFT JOIN {sessions} s ON s.id = {ids}"
        ),
        types: parameters.types,
    }
}

/// Whose sessions a statement looks for.
#[derive(Clone, Copy)]
pub(super) enum Of {
    Owner(&'static str),
    Label,
    All,
}

impl Of {
    /// A condition for the session `s`, with the parameter `n`.
    pub(super) fn condition(self, dialect: &Dialect<'_>, n: usize) -> String {
        match self {
            Self::Owner(column) => format!("s.{column} = ${n} AND "),
            Self::Label => {
                let labels = dialect.names.labels();
                // The planner takes an array for ten rows, and looks them up.
                format!("s.id = ANY (ARRAY (SELECT l.session_id FROM {labels} l WHERE l.label = ${n})) AND ")
            }
            Self::All => String::new(),
        }
    }

    pub(super) fn parameter(self) -> Option<Type> {
        match self {
            Self::Owner(_) => Some(Type::UUID),
            Self::Label => Some(Type::TEXT),
            Self::All => None,
        }
    }
}

/// The sessions behind the id `$1`, in the order of their ids, at most `$2`; of one owner or label `$3`, or all.
pub(super) fn page_sql(dialect: &Dialect<'_>, of: Of) -> Sql {
    let (sessions, columns) = (dialect.names.sessions(), columns(dialect));
    let (whose, live) = (of.condition(dialect, 3), dialect.live("s"));
    let condition = format!("{whose}s.id > $1 AND s.rotated_to IS NULL AND {live}");
    let from = dialect.read(&sessions, "s", &condition);
    let text = format!("SELECT {columns} {from} ORDER BY s.id LIMIT $2");
    Sql { text, types: [Type::UUID, Type::INT8].into_iter().chain(of.parameter()).collect() }
}

/// The sessions of one owner or label `$1`, the most recently used first, at most `$2`. Each comes once, however often it
/// was rotated.
pub(super) fn list_sql(dialect: &Dialect<'_>, of: Of) -> Sql {
    let (sessions, columns) = (dialect.names.sessions(), columns(dialect));
    let (whose, live) = (of.condition(dialect, 1), dialect.live("s"));
    let condition = format!("{whose}s.rotated_to IS NULL AND {live}");
    let from = dialect.read(&sessions, "s", &condition);
    let text = format!("SELECT {columns} {from} ORDER BY s.last_accessed_at DESC, s.id LIMIT $2");
    Sql { text, types: of.parameter().into_iter().chain([Type::INT8]).collect() }
}

/// I6: one statement, one snapshot, so that row and attributes belong to one version.
fn columns(dialect: &Dialect<'_>) -> String {
    let (live, overflow) = (dialect.live("s"), overflow_arrays(dialect));
    let (now, server) = (dialect.now, dialect.server_id());
    format!(
        "s.id, s.user_id, s.group_id, s.version, s.idle_limited, s.created_at, s.updated_at,
         s.last_accessed_at, s.expires_at, s.rotated_to IS NOT NULL AS rotated, s.attributes,
         {overflow} AS overflow, {now} AS now, {server} AS server, {live} AS live"
    )
}

/// A session that is alive, or why it cannot be read. A row with invalid content is an error of
/// that session only.
pub(crate) type Found = (SessionId, Result<Record, Error>);

/// What a load has found.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The sessions that are alive, in no particular order.
    pub(crate) live: Vec<Found>,
    /// Those that have ended for want of an access. An access that another node is writing now would continue them.
    pub(crate) idle: Vec<SessionId>,
    /// Where they were looked for.
    pub(crate) server: ServerId,
}

/// The rows of a statement.
#[derive(Default)]
struct Rows {
    live: Vec<Found>,
    idle: Vec<SessionId>,
    server: Option<ServerId>,
}

impl Database {
    /// Looks for sessions.
    pub(crate) async fn load(&self, ids: &[SessionId]) -> Result<Loaded, Failure> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.expose()).collect();
        let Rows { live, idle, server } = self.find(&self.texts.load, &[&ids]).await?;
        let server = server.ok_or_else(|| unexpected("no row for a load"))?;
        Ok(Loaded { live, idle, server })
    }

    /// The live sessions of a user, at most `rows_max`, the most recently used first.
    pub(crate) async fn list_user(&self, user: UserId, rows_max: u32) -> Result<Vec<Found>, Failure> {
        self.find_live(&self.texts.list_user, &[&user.as_uuid(), &i64::from(rows_max)]).await
    }

    /// The live sessions of a group, likewise.
    pub(crate) async fn list_group(&self, group: GroupId, rows_max: u32) -> Result<Vec<Found>, Failure> {
        self.find_live(&self.texts.list_group, &[&group.as_uuid(), &i64::from(rows_max)]).await
    }

    /// The live sessions of a label, likewise.
    pub(crate) async fn list_label(&self, label: &Label, rows_max: u32) -> Result<Vec<Found>, Failure> {
        self.find_live(&self.texts.list_label, &[&label.as_str(), &i64::from(rows_max)]).await
    }

    /// The live sessions that a statement of this file finds.
    pub(super) async fn find_live(
        &self,
        sql: &SqlForms,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Found>, Failure> {
        Ok(self.find(sql, params).await?.live)
    }

    async fn find(&self, sql: &SqlForms, params: &[&(dyn ToSql + Sync)]) -> Result<Rows, Failure> {
        let mut rows = Rows::default();
        let mut readings: Option<(DbTime, DbTime)> = None;
        let sent = self.policy.clock.now();
        let call = self.call(sql, params).repeatable();
        call.each(|row| {
            let now = self.sort(&row, &mut rows).map_err(unexpected)?;
            readings = Some(readings.map_or((now, now), |(first, last)| (first.min(now), last.max(now))));
            Ok(())
        })
        .await?;
        // Each lies within the statement; the first tells most about how far the clock may be ahead, the last behind.
        if let Some((first, last)) = readings {
            self.observe_clock(sent, first);
            self.observe_clock(sent, last);
        }
        Ok(rows)
    }

    /// Adds a row to those before. Returns the database's time.
    fn sort(&self, row: &SqlRow, rows: &mut Rows) -> Result<DbTime, tokio_postgres::Error> {
        let now = time(row, 12)?;
        rows.server = Some(ServerId(row.try_get(13)?));
        let Some(id) = row.try_get::<_, Option<Uuid>>(0)?.map(SessionId::from_uuid) else { return Ok(now) };
        if row.try_get(14)? {
            rows.live.push((id, self.record(row, id, now)?));
        } else if time(row, 8)? > now {
            rows.idle.push(id);
        }
        Ok(now)
    }

    /// By position: looking a dozen columns up by their names took longer than decoding them.
    fn record(
        &self,
        row: &SqlRow,
        id: SessionId,
        now: DbTime,
    ) -> Result<Result<Record, Error>, tokio_postgres::Error> {
        let idle_limited: bool = row.try_get(4)?;
        let head = Row {
            id,
            user_id: row.try_get::<_, Option<Uuid>>(1)?.map(UserId::from),
            group_id: row.try_get::<_, Option<Uuid>>(2)?.map(GroupId::from),
            version: Version::new(row.try_get(3)?),
            created_at: time(row, 5)?,
            updated_at: time(row, 6)?,
            expires_at: time(row, 8)?,
            idle_limit: if idle_limited { IdleLimit::Enforced } else { IdleLimit::Exempt },
            rotated: row.try_get(9)?,
        };
        let last_accessed_at = time(row, 7)?;
        let overflow = row.try_get::<_, Option<Arrays<'_>>>(11)?.map(Arrays::attributes).unwrap_or_default();
        Ok(match InlineAttributes::read(row.try_get(10)?, now) {
            Ok(inline) => {
                let attributes = Attributes::new(inline, overflow);
                Ok(Record::new(Arc::clone(&self.policy), head, attributes, last_accessed_at))
            }
            Err(malformed) => Err(unexpected(malformed).error),
        })
    }
}

pub(super) fn time(
    row: &SqlRow,
    column: impl RowIndex + fmt::Display,
) -> Result<DbTime, tokio_postgres::Error> {
    row.try_get::<_, SystemTime>(column).map(DbTime::from)
}

/// What [`overflow_arrays`] makes. No attributes at all make NULL arrays.
struct Arrays<'a> {
    keys: Vec<&'a str>,
    texts: Vec<&'a str>,
    versions: Vec<i64>,
    expiries: Vec<Option<SystemTime>>,
}

impl Arrays<'_> {
    fn attributes(self) -> Vec<Arc<OverflowAttribute>> {
        let all = self.keys.into_iter().zip(self.texts).zip(self.versions).zip(self.expiries);
        let all = all.map(|(((key, text), version), expires_at)| {
            let expires_at = expires_at.map_or(DbTime::NEVER, DbTime::from);
            Arc::new(OverflowAttribute::new(key, text, Version::new(version), expires_at))
        });
        all.collect()
    }
}

type Unreadable = Box<dyn std::error::Error + Sync + Send>;

impl<'a> FromSql<'a> for Arrays<'a> {
    fn from_sql(_: &Type, mut raw: &'a [u8]) -> Result<Self, Unreadable> {
        // As `record_send` writes a row: the number of columns, then each of them.
        if number(&mut raw)? != 4 {
            return Err("not four columns".into());
        }
        let arrays = Self {
            keys: column(&mut raw, &Type::TEXT_ARRAY)?,
            texts: column(&mut raw, &Type::TEXT_ARRAY)?,
            versions: column(&mut raw, &Type::INT8_ARRAY)?,
            expiries: column(&mut raw, &Type::TIMESTAMPTZ_ARRAY)?,
        };
        // Or `zip` would lose some silently.
        let lengths = [arrays.texts.len(), arrays.versions.len(), arrays.expiries.len()];
        if lengths != [arrays.keys.len(); 3] {
            return Err("arrays of different lengths".into());
        }
        Ok(arrays)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::RECORD
    }
}

/// A column of a row within a row: type, length (negative for NULL), and the value as it would be by itself.
fn column<'a, T: FromSql<'a> + Default>(raw: &mut &'a [u8], kind: &Type) -> Result<T, Unreadable> {
    if number(raw)?.cast_unsigned() != kind.oid() {
        return Err(format!("not {kind}").into());
    }
    let Ok(length) = usize::try_from(number(raw)?) else { return Ok(T::default()) };
    let (value, rest) = raw.split_at_checked(length).ok_or("a column is cut off")?;
    *raw = rest;
    T::from_sql(kind, value)
}

fn number(raw: &mut &[u8]) -> Result<i32, Unreadable> {
    let (number, rest) = raw.split_first_chunk().ok_or("a row is cut off")?;
    *raw = rest;
    Ok(i32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ROW(ARRAY['a'], ARRAY['1'], ARRAY[7::int8], ARRAY[NULL::timestamptz])`.
    fn row() -> Vec<u8> {
        let array = |oid: u32, has_null: i32, item: &[u8]| {
            let head = [1_i32, has_null, oid.cast_signed(), 1, 1].map(i32::to_be_bytes).concat();
            [&head[..], item].concat()
        };
        let item = |value: &[u8]| [&i32::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat();
        let columns = [
            (Type::TEXT_ARRAY, array(Type::TEXT.oid(), 0, &item(b"a"))),
            (Type::TEXT_ARRAY, array(Type::TEXT.oid(), 0, &item(b"1"))),
            (Type::INT8_ARRAY, array(Type::INT8.oid(), 0, &item(&7_i64.to_be_bytes()))),
            (Type::TIMESTAMPTZ_ARRAY, array(Type::TIMESTAMPTZ.oid(), 1, &(-1_i32).to_be_bytes())),
        ];
        let mut row = 4_i32.to_be_bytes().to_vec();
        for (kind, value) in columns {
            row.extend([&kind.oid().to_be_bytes()[..], &item(&value)].concat());
        }
        row
    }

    #[test]
    fn a_row_within_a_row_is_read_whole_or_is_an_error() {
        let row = row();
        let arrays = Arrays::from_sql(&Type::RECORD, &row).unwrap();
        let [one] = &arrays.attributes()[..] else { panic!("one attribute") };
        assert_eq!((&*one.key, &*one.text, one.version.get(), one.expires_at), ("a", "1", 7, DbTime::NEVER));
        for end in 0..row.len() {
            assert!(Arrays::from_sql(&Type::RECORD, &row[..end]).is_err(), "{end} bytes of {}", row.len());
        }
        let none = [4_u32, Type::TEXT_ARRAY.oid()].map(u32::to_be_bytes).concat();
        let null = (-1_i32).to_be_bytes();
        assert!(Arrays::from_sql(&Type::RECORD, &[&none[..], &null, &row[8 + 4 + 25..]].concat()).is_err());
        let nulls: Vec<u8> = [Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::TIMESTAMPTZ_ARRAY]
            .iter()
            .flat_map(|kind| [kind.oid().to_be_bytes(), null].concat())
            .collect();
        let nothing = [&4_i32.to_be_bytes()[..], &nulls].concat();
        assert!(Arrays::from_sql(&Type::RECORD, &nothing).unwrap().attributes().is_empty());
    }
}
