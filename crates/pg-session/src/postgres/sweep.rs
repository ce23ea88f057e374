//! Deletes the sessions of a user, of a group, of a label, or all, and notifies the other nodes.
//!
//! A row that another transaction has locked delays no other. A statement deletes the sessions whose rows are free
//! (`SKIP LOCKED`), and reports the others. Another one waits for one of them, briefly. The caller repeats both until none
//! remains; see `writer/bulk.rs`.
//!
//! A session goes with all of its retired ids, or remains with them. It remains, too, if a retired
//! id points beyond the snapshot. Then a rotation has committed meanwhile, and the next statement
//! sees where it led. See [`delete`](super::delete).
//!
//! A node drops what it knows under the owner. The node that sends the statement also drops the sessions that the statement
//! names. A session may have joined the group a moment ago, and the notification of that move may be on its way to this
//! node. Other nodes receive it before the notification of the end; see `order` in `writer/update.rs`.
//!
//! The trigger deletes attributes, labels and locks, and waits for their rows, briefly. If one of them is locked, the statement
//! fails as a whole. It is then repeated with `careful`, and looks at these rows as well.

use std::time::{Duration, SystemTime};

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::failure::Failure;
use super::load::time;
use super::notify::deleted;
use super::row_locks::{locked_attributes, locked_moved};
use super::{
    Database, Dialect, Dialects, Sql, SqlForms, same_length, unexpected, waits_at_most_until_deleted,
};
use crate::clock::DbTime;
use crate::ending::{self, Ending};
use crate::id::{Scope, SessionId, UserId};
use crate::label::Label;
use crate::notification::ServerId;

/// Deleted ids that one statement names: 16 bytes each, on the server and on the node.
const NAMED_MAX: usize = 16_384;

/// Sessions that remain, as one statement reports them. Of more, the next one reports others.
const REMAINING_MAX: usize = 64;

/// Whose sessions end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose<'a> {
    Scope(Scope),
    Label(&'a Label),
    /// All of the user's but one, whichever of its ids it is named by.
    Others(UserId, SessionId),
}

/// How one statement goes about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep<'a> {
    /// The longest wait for each row.
    pub(crate) row_wait: Duration,
    /// The time of the first statement, for those that follow it.
    pub(crate) since: Option<DbTime>,
    pub(crate) careful: bool,
    /// The one session to delete and to wait for. The others are deleted without a wait.
    pub(crate) only: Option<SessionId>,
    /// Why they end.
    pub(crate) ending: &'a Ending,
}

/// What became of them.
#[derive(Debug)]
pub(crate) struct Swept {
    /// Sessions that were alive.
    pub(crate) live: u64,
    /// Deleted ids that this node may not know under the owner. No notification of the owner covers them, or they may have
    /// joined the group a moment ago. `None` if there are too many.
    pub(crate) named: Option<Vec<SessionId>>,
    /// Some of those that other transactions have locked.
    pub(crate) remaining: Vec<SessionId>,
    /// The database's clock.
    pub(crate) at: DbTime,
    /// Which server has deleted them.
    pub(crate) server: ServerId,
}

#[derive(Debug)]
pub(super) struct Texts {
    user: Pair,
    others: Pair,
    group: Pair,
    label: Pair,
    all: SqlForms,
    all_that_remain: Pair,
}

#[derive(Debug)]
struct Pair {
    free: SqlForms,
    one: SqlForms,
}

impl Pair {
    fn new(dialects: &Dialects<'_>, make: impl Fn(&Dialect<'_>, Rows) -> Sql) -> Self {
        let of = |rows| dialects.sql(|dialect| make(dialect, rows));
        Self { free: of(Rows::Free), one: of(Rows::One) }
    }
}

/// The rows that a statement deletes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    Free,
    One,
}

impl Texts {
    pub(super) fn new(dialects: &Dialects<'_>) -> Self {
        Self {
            user: Pair::new(dialects, |dialect, rows| owner_sql(dialect, rows, "user_id", 'u')),
            others: Pair::new(dialects, others_sql),
            group: Pair::new(dialects, |dialect, rows| owner_sql(dialect, rows, "group_id", 'g')),
            label: Pair::new(dialects, label_sql),
            all: dialects.sql(all_sql),
            all_that_remain: Pair::new(dialects, all_that_remain_sql),
        }
    }
}

/// What the texts differ in. Their own parameters come first.
struct Owner<'a> {
    own: &'a [Type],
    /// The sessions' ids.
    chosen: &'a str,
    /// Whether the notification of the owner does not cover the session `s`.
    of_others: &'a str,
    /// Sent by the first statement. Every node drops the owner's sessions from memory, by one notification: "log out
    /// everywhere" cannot outgrow a payload. What follows the format's version in it.
    /// `None` if the nodes do not know whose the sessions are.
    scope: Option<&'a str>,
    /// Whether a session may come to the owner from another one, under the same id.
    may_join: bool,
}

/// The names of the parameters that follow those of the owner.
struct Names {
    wait: String,
    since: String,
    careful: String,
    cause: String,
    endings: String,
    only: String,
}

impl Owner<'_> {
    fn names(&self) -> Names {
        let name = |at: usize| format!("${}", self.own.len() + at);
        Names {
            wait: name(1),
            since: name(2),
            careful: name(3),
            cause: name(4),
            endings: name(5),
            only: name(6),
        }
    }

    fn types(&self, rows: Rows) -> Vec<Type> {
        let mut types = self.own.to_vec();
        types.extend([Type::TEXT, Type::TIMESTAMPTZ, Type::BOOL, Type::TEXT, Type::TEXT]);
        if rows == Rows::One {
            types.push(Type::UUID);
        }
        types
    }
}

/// For a user or a group: the column that names it, and the kind of its notification.
fn owner_sql(dialect: &Dialect<'_>, rows: Rows, column: &str, kind: char) -> Sql {
    let sessions = dialect.names.sessions();
    let owner = Owner {
        own: &[Type::UUID],
        chosen: &format!("SELECT s.id FROM {sessions} s WHERE s.{column} = $1"),
        of_others: &format!("s.{column} IS DISTINCT FROM $1"),
        scope: Some(&owner_scope(kind)),
        may_join: kind == 'g',
    };
    some_sql(dialect, rows, &owner)
}

/// The retired ids of the session that is kept go, unless one of them names it. A thief may have
/// stolen one.
fn others_sql(dialect: &Dialect<'_>, rows: Rows) -> Sql {
    let sessions = dialect.names.sessions();
    let retired = dialect.retired_ids("k.id");
    let kept = format!("COALESCE((SELECT k.rotated_to FROM {sessions} k WHERE k.id = $2), $2)");
    let chosen = format!(
        "SELECT s.id FROM {sessions} s WHERE s.user_id = $1 AND COALESCE(s.rotated_to, s.id) <> {kept}
         UNION ALL
         SELECT r.id FROM (SELECT k.id FROM {sessions} k WHERE k.id = {kept} AND k.user_id = $1 OFFSET 0) k
         CROSS JOIN LATERAL ({retired}) r WHERE r.id <> $2"
    );
    let owner = Owner {
        own: &[Type::UUID, Type::UUID],
        chosen: &chosen,
        of_others: "s.user_id IS DISTINCT FROM $1",
        scope: Some(&owner_scope('u')),
        may_join: false,
    };
    some_sql(dialect, rows, &owner)
}

fn owner_scope(kind: char) -> String {
    format!("'{kind}' || pg_catalog.replace($1::pg_catalog.text, '-', '')")
}

/// The notifications name each session.
fn label_sql(dialect: &Dialect<'_>, rows: Rows) -> Sql {
    let chosen = format!("SELECT l.session_id AS id FROM {} l WHERE l.label = $1", dialect.names.labels());
    let owner =
        Owner { own: &[Type::TEXT], chosen: &chosen, of_others: "true", scope: None, may_join: false };
    some_sql(dialect, rows, &owner)
}

/// The first statement that deletes all sessions.
fn all_sql(dialect: &Dialect<'_>) -> Sql {
    let owner = Owner { own: &[], chosen: "", of_others: "false", scope: Some("'a'"), may_join: false };
    let text = format!("WITH {}", sweep(dialect, Rows::Free, "true", &owner));
    Sql { text, types: owner.types(Rows::Free) }
}

/// Later ones spare the sessions that were created meanwhile. A rotation may give a session another time of creation; its
/// retired id keeps the earlier one.
fn all_that_remain_sql(dialect: &Dialect<'_>, rows: Rows) -> Sql {
    let sessions = dialect.names.sessions();
    let chosen = format!(
        "SELECT s.id FROM {sessions} s WHERE s.created_at <= $2
         UNION
         SELECT s.rotated_to FROM {sessions} s WHERE s.rotated_to IS NOT NULL AND s.created_at <= $2"
    );
    let owner = Owner { own: &[], chosen: &chosen, of_others: "true", scope: None, may_join: false };
    some_sql(dialect, rows, &owner)
}

/// Arrays, here and below: the planner takes one for ten rows, however many it expects of the query, and looks them up.
fn some_sql(dialect: &Dialect<'_>, rows: Rows, owner: &Owner<'_>) -> Sql {
    let retired_ids = dialect.retired_ids("c.id");
    let chosen = match rows {
        Rows::Free => owner.chosen.to_owned(),
        Rows::One => format!("SELECT c.id FROM ({}) c WHERE c.id = {}", owner.chosen, owner.names().only),
    };
    let condition = "s.id = ANY (ARRAY (SELECT w.id FROM wanted w))";
    let text = format!(
        "WITH chosen AS MATERIALIZED ({chosen}
         ), wanted AS MATERIALIZED (
             SELECT c.id FROM chosen c
             UNION
             SELECT r.id FROM chosen c CROSS JOIN LATERAL ({retired_ids}) r
         ), {}",
        sweep(dialect, rows, condition, owner)
    );
    Sql { text, types: owner.types(rows) }
}

/// `skipped` are rows that are locked, or were deleted meanwhile. `EXCEPT` sorts or hashes, whatever the planner expects;
/// the ids of all sessions may be many.
fn sweep(dialect: &Dialect<'_>, rows: Rows, condition: &str, owner: &Owner<'_>) -> String {
    let sessions = dialect.names.sessions();
    let (live, visible, now) = (dialect.live("s"), dialect.visible(), dialect.now);
    let server = dialect.server_id();
    let Names { wait, since, careful, cause, endings, .. } = owner.names();
    let cause = format!("{cause}::pg_catalog.text");
    let wait = waits_at_most_until_deleted(&wait, &format!("{endings}::pg_catalog.text"));
    let skip = match rows {
        Rows::Free => "SKIP LOCKED",
        Rows::One => "",
    };
    let (channel, of_others) = (dialect.channel(), owner.of_others);
    let notified_all = match owner.scope {
        Some(scope) => format!(
            "SELECT pg_catalog.pg_notify('{channel}', p.payload)
             FROM pg_catalog.unnest(ARRAY['1c' || {cause} || {scope}, '1' || {scope}]) AS p (payload) WHERE {since} IS NULL"
        ),
        None => "SELECT WHERE false".to_owned(),
    };
    let careful = format!("{careful}::pg_catalog.bool");
    let of = format!("SELECT d.id FROM to_evict d WHERE {careful}");
    let (attributes, moved) = (locked_attributes(dialect, &of), locked_moved(dialect, &of));
    let notified = deleted(dialect, "SELECT id FROM gone WHERE of_others", &cause);
    let named = if owner.may_join { "true" } else { "g.of_others" };
    let named_max = NAMED_MAX + 1;
    format!(
        "to_evict AS MATERIALIZED (
             SELECT s.id, s.rotated_to FROM {sessions} s WHERE {condition} AND {visible} AND {wait}
             ORDER BY s.id FOR UPDATE {skip}
         ), skipped AS MATERIALIZED (
             SELECT s.id FROM {sessions} s WHERE {condition} EXCEPT SELECT d.id FROM to_evict d
         ), remaining AS MATERIALIZED (
             SELECT s.id, COALESCE(s.rotated_to, s.id) AS session FROM {sessions} s
             WHERE s.id = ANY (ARRAY (SELECT k.id FROM skipped k))
             UNION ALL
             SELECT d.id, d.rotated_to FROM to_evict d
             WHERE d.rotated_to IS NOT NULL AND (SELECT x.id FROM {sessions} x WHERE x.id = d.rotated_to) IS NULL
             UNION ALL
             SELECT d.id, COALESCE(d.rotated_to, d.id) FROM to_evict d
             WHERE {careful} AND d.id = ANY (ARRAY ({attributes} UNION ALL {moved}))
         ), gone AS (
             DELETE FROM {sessions} s
             WHERE s.id = ANY (ARRAY (SELECT d.id FROM to_evict d
                                      WHERE COALESCE(d.rotated_to, d.id) NOT IN (SELECT r.session FROM remaining r)))
             RETURNING s.id, {since} IS NOT NULL OR {of_others} AS of_others, s.rotated_to IS NULL AND {live} AS live
         ), notified_all AS MATERIALIZED ({notified_all}
         ), notified AS MATERIALIZED ({notified})
         SELECT pg_catalog.count(*) FILTER (WHERE g.live) AS live,
                ARRAY (SELECT g.id FROM gone g WHERE {named} LIMIT {named_max}) AS named,
                ARRAY (SELECT r.id FROM remaining r LIMIT {REMAINING_MAX}) AS remaining, {now} AS at,
                (SELECT pg_catalog.count(*) FROM notified_all) AS notified_all, (SELECT pg_catalog.count(*) FROM notified) AS notified,
                {visible} AS visible, {server} AS server
         FROM gone g"
    )
}

impl Database {
    /// Deletes those sessions that no other transaction has locked, or waits for one of them.
    pub(crate) async fn sweep(&self, whose: Whose<'_>, how: Sweep<'_>) -> Result<Swept, Failure> {
        let Texts { user, others, group, label, all, all_that_remain } = &self.texts.sweeps;
        let (pair, mut params): (&Pair, Vec<Box<dyn ToSql + Sync + Send>>) = match whose {
            Whose::Scope(Scope::User(id)) => (user, vec![Box::new(id.as_uuid())]),
            Whose::Scope(Scope::Group(id)) => (group, vec![Box::new(id.as_uuid())]),
            Whose::Label(text) => (label, vec![Box::new(text.as_str().to_owned())]),
            Whose::Others(id, kept) => (others, vec![Box::new(id.as_uuid()), Box::new(kept.expose())]),
            Whose::Scope(Scope::All) => (all_that_remain, vec![]),
        };
        params.push(Box::new(how.row_wait.as_millis().to_string()));
        params.push(Box::new(how.since.map(SystemTime::from)));
        params.push(Box::new(how.careful));
        params.push(Box::new(how.ending.cause().letter().to_string()));
        params.push(Box::new(ending::of_all(how.ending)));
        let sql = match (whose, how) {
            (Whose::Scope(Scope::All), Sweep { since: None, .. }) => all,
            (_, Sweep { only: Some(id), .. }) => {
                params.push(Box::new(id.expose()));
                &pair.one
            }
            _ => &pair.free,
        };
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| &**param as _).collect();
        swept(&self.call(sql, &params).long().rows().await?)
    }
}

fn swept(rows: &[tokio_postgres::Row]) -> Result<Swept, Failure> {
    same_length(rows, 1)?;
    let row = &rows[0];
    let read = || {
        let named: Vec<Uuid> = row.try_get("named")?;
        let is_complete = named.len() <= NAMED_MAX;
        let remaining: Vec<Uuid> = row.try_get("remaining")?;
        Ok::<_, tokio_postgres::Error>(Swept {
            live: row.try_get::<_, i64>("live")?.unsigned_abs(),
            named: is_complete.then(|| named.into_iter().map(SessionId::from_uuid).collect()),
            remaining: remaining.into_iter().map(SessionId::from_uuid).collect(),
            at: time(row, "at")?,
            server: ServerId(row.try_get("server")?),
        })
    };
    read().map_err(unexpected)
}
