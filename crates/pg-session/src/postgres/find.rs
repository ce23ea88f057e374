//! Looks through sessions for operators: by handle, page by page, and their number.
//!
//! No index covers handles: it would cost every create, and operators look seldom. A search reads the primary key in chunks,
//! so that no statement is long.

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::failure::Failure;
use super::load::Of;
use super::{Database, Dialect, Dialects, ON_PRIMARY, Sql, SqlForms, load, same_length, unexpected};
use crate::id::{Scope, SessionId};
use crate::label::Label;
use crate::postgres::load::Found;

/// Ids that one statement of a search reads.
const CHUNK_ROWS: u32 = 20_000;

#[derive(Debug)]
pub(super) struct Texts {
    chunk: SqlForms,
    pages: OfScope,
    counts: OfScope,
}

#[derive(Debug)]
struct OfScope {
    user: SqlForms,
    group: SqlForms,
    label: SqlForms,
    all: SqlForms,
}

impl OfScope {
    fn new(dialects: &Dialects<'_>, make: impl Fn(&Dialect<'_>, Of) -> Sql) -> Self {
        let of = |of| dialects.sql(|dialect| make(dialect, of));
        let (user, group) = (of(Of::Owner("user_id")), of(Of::Owner("group_id")));
        Self { user, group, label: of(Of::Label), all: of(Of::All) }
    }

    fn get(&self, scope: Scope) -> (&SqlForms, Option<Uuid>) {
        match scope {
            Scope::User(id) => (&self.user, Some(id.as_uuid())),
            Scope::Group(id) => (&self.group, Some(id.as_uuid())),
            Scope::All => (&self.all, None),
        }
    }
}

impl Texts {
    pub(super) fn new(dialects: &Dialects<'_>) -> Self {
        Self {
            chunk: dialects.sql(chunk_sql),
            pages: OfScope::new(dialects, load::page_sql),
            counts: OfScope::new(dialects, count_sql),
        }
    }
}

fn chunk_sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, visible) = (dialect.names.sessions(), dialect.visible());
    let text = format!(
        "WITH chunk AS MATERIALIZED (SELECT s.id FROM {sessions} s WHERE s.id > $1 ORDER BY s.id LIMIT {CHUNK_ROWS})
         SELECT (SELECT c.id FROM chunk c ORDER BY c.id DESC LIMIT 1) AS last,
                (SELECT pg_catalog.count(*) FROM chunk) AS count,
                ARRAY (SELECT c.id FROM chunk c
                       WHERE pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.uuid_send(c.id)), 'hex'),
                                             pg_catalog.length($2)) = $2
                       LIMIT $3) AS found
         WHERE {ON_PRIMARY} AND {visible}"
    );
    Sql { text, types: vec![Type::UUID, Type::TEXT, Type::INT8] }
}

fn count_sql(dialect: &Dialect<'_>, of: Of) -> Sql {
    let (sessions, visible) = (dialect.names.sessions(), dialect.visible());
    let (whose, current) = (of.condition(dialect, 1), dialect.current("s"));
    let text = format!(
        "SELECT (SELECT pg_catalog.count(*) FROM {sessions} s WHERE {whose}{current}) AS count
         WHERE {ON_PRIMARY} AND {visible}"
    );
    Sql { text, types: of.parameter().into_iter().collect() }
}

/// What one statement of a search has seen.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) found: Vec<SessionId>,
    /// Where the next statement goes on. `None` if there are no more ids.
    pub(crate) last: Option<SessionId>,
}

impl Database {
    /// The ids behind `after` whose handles begin with `digits`, at most `found_max`, in one chunk.
    pub(crate) async fn find_in_chunk(
        &self,
        digits: &str,
        after: SessionId,
        found_max: usize,
    ) -> Result<Chunk, Failure> {
        let found_max = i64::try_from(found_max).unwrap_or(i64::MAX);
        let params: [&(dyn ToSql + Sync); 3] = [&after.expose(), &digits, &found_max];
        let rows = self.call(&self.texts.find.chunk, &params).repeatable().rows().await?;
        same_length(&rows, 1)?;
        let read = || {
            let found: Vec<Uuid> = rows[0].try_get("found")?;
            let last: Option<Uuid> = rows[0].try_get("last")?;
            let is_full = rows[0].try_get::<_, i64>("count")? == i64::from(CHUNK_ROWS);
            Ok::<_, tokio_postgres::Error>(Chunk {
                found: found.into_iter().map(SessionId::from_uuid).collect(),
                last: last.filter(|_| is_full).map(SessionId::from_uuid),
            })
        };
        read().map_err(unexpected)
    }

    /// The live sessions behind `after`, in the order of their ids, at most `rows_max`.
    pub(crate) async fn page(
        &self,
        scope: Scope,
        after: SessionId,
        rows_max: u32,
    ) -> Result<Vec<Found>, Failure> {
        let (sql, owner) = self.texts.find.pages.get(scope);
        let (after, rows_max) = (after.expose(), i64::from(rows_max));
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&after, &rows_max];
        params.extend(owner.as_ref().map(|owner| owner as &(dyn ToSql + Sync)));
        self.find_live(sql, &params).await
    }

    /// As [`page`](Self::page), of a label.
    pub(crate) async fn page_of_label(
        &self,
        label: &Label,
        after: SessionId,
        rows_max: u32,
    ) -> Result<Vec<Found>, Failure> {
        let params: [&(dyn ToSql + Sync); 3] = [&after.expose(), &i64::from(rows_max), &label.as_str()];
        self.find_live(&self.texts.find.pages.label, &params).await
    }

    /// The number of live sessions.
    pub(crate) async fn count(&self, scope: Scope) -> Result<u64, Failure> {
        let (sql, owner) = self.texts.find.counts.get(scope);
        let params: Vec<&(dyn ToSql + Sync)> =
            owner.as_ref().map(|owner| owner as &(dyn ToSql + Sync)).into_iter().collect();
        self.read_count(sql, &params).await
    }

    /// The number of live sessions that have a label.
    pub(crate) async fn count_of_label(&self, label: &Label) -> Result<u64, Failure> {
        self.read_count(&self.texts.find.counts.label, &[&label.as_str()]).await
    }

    async fn read_count(&self, sql: &SqlForms, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Failure> {
        let rows = self.call(sql, params).long().repeatable().rows().await?;
        same_length(&rows, 1)?;
        let count: i64 = rows[0].try_get("count").map_err(unexpected)?;
        Ok(count.unsigned_abs())
    }
}
