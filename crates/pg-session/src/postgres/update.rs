//! The combined update: many sessions' changes, one statement, one commit, its notifications inside.
//!
//! Why one snapshot is enough. Every check and every removal below looks at the statement's snapshot, which another
//! transaction's commit may overtake while this statement waits for a row. Each change of an attribute bumps its
//! session's version in the same statement, so `done` updates a session only while its version is still the one in
//! the snapshot (`s.version = f.version`; PostgreSQL evaluates that again on the row it finally locks). For a
//! session that passes, the snapshot's attributes are the newest; one that does not is `Moved` and tried again.
//! A rotation bumps the version of what it leaves behind, so an update that it overtook is `Moved`, too, and then finds
//! that the session goes on elsewhere. Without that condition, a removal would overlook a key that another node inserted meanwhile, and a checked
//! attribute could pass on a stale version.
//!
//! A separate locking step was slower when measured; two rows that wait for each other across statements are broken
//! by PostgreSQL's deadlock detection and tried again.

use std::time::{Duration, SystemTime};

use tokio_postgres::Row as SqlRow;
use uuid::Uuid;

use super::failure::Failure;
use super::load::{attribute_arrays, attributes, time};
use super::notify::changed;
use super::parameters::{FLAGS, IDS, NUMBERS, Parameters, TEXTS, TIMES};
use super::{Database, Dialect, Sql, same_length, unexpected};
use crate::clock::DbTime;
use crate::id::GroupId;
use crate::session::IdleLimit;
use crate::session::attributes::Attributes;
use crate::session::changes::{Change, Changes, Check};
use crate::session::record::Record;
use crate::version::Version;

/// A new absolute limit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expiry {
    At(DbTime),
    /// Counted from the statement, by the database's clock.
    In(Duration),
}

/// What one update asks of the session's row, beside its attributes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowChange {
    pub(crate) expiry: Option<Expiry>,
    pub(crate) idle_limit: Option<IdleLimit>,
    pub(crate) group_id: Option<Option<GroupId>>,
}

impl RowChange {
    pub(crate) fn is_empty(&self) -> bool {
        self.expiry.is_none() && self.idle_limit.is_none() && self.group_id.is_none()
    }
}

/// One session's part of a combined update.
#[derive(Clone, Copy)]
pub(crate) struct Order<'a> {
    /// What the caller saw.
    pub(crate) base: &'a Record,
    pub(crate) check: Check,
    pub(crate) row: RowChange,
    pub(crate) changes: &'a Changes,
    pub(crate) notify: bool,
}

/// What became of one order.
#[derive(Debug)]
pub(crate) enum Updated {
    Applied(Applied),
    /// The database holds the version `found`. The attributes that differ are sorted; none if the session's own
    /// version was checked.
    Conflict {
        found: Version,
        keys: Vec<String>,
    },
    /// Deleted or expired.
    NotFound,
    /// It goes on under another id; what is left has the version `found`.
    Rotated {
        found: Version,
    },
    /// Another commit came between snapshot and lock: nothing was written, try again.
    Moved,
}

/// The row after the update.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) version: Version,
    pub(crate) updated_at: DbTime,
    pub(crate) expires_at: DbTime,
    pub(crate) last_accessed_at: DbTime,
    pub(crate) idle_limit: IdleLimit,
    pub(crate) group_id: Option<GroupId>,
    /// The attributes that the changes were applied to, if they are not those of the caller's `base`.
    pub(crate) found: Option<Attributes>,
}

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let now = dialect.now;
    let live = dialect.live("s");
    let mut tell = "SELECT d.id, d.version FROM done d WHERE d.notify".to_owned();
    if dialect.config.notify_conflicts {
        tell.push_str(
            " UNION ALL SELECT f.id, f.version FROM found f
             WHERE f.notify AND f.live AND f.n NOT IN (SELECT d.n FROM done d)",
        );
    }
    let told = changed(dialect, &tell);
    let arrays = attribute_arrays(dialect, "a.session_id = c.id AND d.n IS NOT NULL AND f.version <> c.base");
    let mut parameters = Parameters::default();
    let changes = parameters.unnest(&[IDS, NUMBERS, NUMBERS, TIMES, NUMBERS, FLAGS, FLAGS, IDS, FLAGS]);
    let items = parameters.unnest(&[NUMBERS, TEXTS, TEXTS, TIMES]);
    let removals = parameters.unnest(&[NUMBERS, TEXTS]);
    let expected = parameters.unnest(&[NUMBERS, TEXTS, NUMBERS]);
    Sql {
        text: format!(
            "WITH change AS MATERIALIZED (
                 SELECT * FROM {changes}
                 WITH ORDINALITY
                 AS c (id, base, expected, expires_at, expires_in, idle_limited, regroup, group_id, notify, n)
             ), item AS MATERIALIZED (
                 SELECT * FROM {items}
                 AS i (n, key, text, expires_at)
             ), removal AS MATERIALIZED (
                 SELECT * FROM {removals} AS i (n, key)
             ), expected AS MATERIALIZED (
                 SELECT * FROM {expected} AS i (n, key, version)
             ), found AS MATERIALIZED (
                 SELECT c.*, s.version, {live} AS live, s.rotated_to IS NOT NULL AS rotated FROM change c JOIN {sessions} s ON s.id = c.id
             ), refused AS MATERIALIZED (
                 SELECT i.n, array_agg(i.key ORDER BY i.key) AS keys
                 FROM expected i JOIN change c ON c.n = i.n
                 LEFT JOIN {attributes} a ON a.session_id = c.id AND a.key = i.key
                 WHERE i.version <> COALESCE(a.version, 0)
                   AND NOT (i.version = 0 AND a.expires_at IS NOT NULL AND a.expires_at <= {now})
                 GROUP BY i.n
             ), done AS (
                 UPDATE {sessions} s
                 SET version = s.version + 1,
                     updated_at = {now},
                     expires_at = COALESCE(f.expires_at, {now} + f.expires_in * interval '1 microsecond', s.expires_at),
                     idle_limited = COALESCE(f.idle_limited, s.idle_limited),
                     group_id = CASE WHEN f.regroup THEN f.group_id ELSE s.group_id END
                 FROM found f LEFT JOIN refused r ON r.n = f.n
                 WHERE s.id = f.id AND s.version = f.version AND NOT f.rotated AND {live}
                   AND (f.expected IS NULL OR f.expected = s.version) AND r.n IS NULL
                 RETURNING f.n, f.notify, s.id, s.version, s.updated_at, s.expires_at, s.last_accessed_at,
                           s.idle_limited, s.group_id
             ), written AS (
                 INSERT INTO {attributes} AS a (session_id, key, value, expires_at, version)
                 SELECT d.id, i.key, i.text, i.expires_at, d.version
                 FROM done d JOIN item i ON i.n = d.n
                 ON CONFLICT (session_id, key) DO UPDATE
                 SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at, version = EXCLUDED.version
             ), removed AS (
                 DELETE FROM {attributes} a USING done d JOIN removal i ON i.n = d.n
                 WHERE a.session_id = d.id AND a.key = i.key
             ), told AS MATERIALIZED ({told})
             SELECT c.n, f.version AS found, COALESCE(f.live, false) AS live, f.rotated, r.keys AS refused,
                    (f.expected IS NOT NULL AND f.expected <> f.version) AS outdated,
                    d.version, d.updated_at, d.expires_at, d.last_accessed_at, d.idle_limited, d.group_id,
                    b.keys, b.texts, b.versions, b.expiries, {now} AS now
             FROM change c
             LEFT JOIN found f ON f.n = c.n
             LEFT JOIN refused r ON r.n = c.n
             LEFT JOIN done d ON d.n = c.n
             CROSS JOIN LATERAL ({arrays}) b
             CROSS JOIN (SELECT count(*) FROM told) t
             ORDER BY c.n"
        ),
        types: parameters.types,
    }
}

/// The orders as columns: what UNNEST takes.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) ids: Vec<Uuid>,
    pub(super) bases: Vec<i64>,
    pub(super) expected: Vec<Option<i64>>,
    pub(super) expires_at: Vec<Option<SystemTime>>,
    pub(super) expires_in: Vec<Option<i64>>,
    pub(super) idle_limited: Vec<Option<bool>>,
    pub(super) regroup: Vec<bool>,
    pub(super) group_ids: Vec<Option<Uuid>>,
    pub(super) notify: Vec<bool>,
    pub(super) items: Items<'a>,
}

/// Attributes as columns, each with the ordinal (from 1) of the session that it belongs to: those that are set, those
/// that are removed, and the versions that they are expected to have.
///
/// Three lists rather than one with NULLs: the planner takes a list for ten rows, and a filter `IS NULL` on it for
/// one, and would then compare every removal with every session of the batch.
#[derive(Default)]
pub(super) struct Items<'a> {
    pub(super) of: Vec<i64>,
    pub(super) keys: Vec<&'a str>,
    pub(super) texts: Vec<&'a str>,
    pub(super) expires_at: Vec<Option<SystemTime>>,
    pub(super) removed_of: Vec<i64>,
    pub(super) removed_keys: Vec<&'a str>,
    expected_of: Vec<i64>,
    expected_keys: Vec<&'a str>,
    expected: Vec<i64>,
}

impl<'a> Items<'a> {
    /// Adds the attributes of the session with this ordinal. `base` is what each of them is checked against.
    pub(super) fn push(&mut self, of: i64, changes: &'a Changes, base: Option<&Attributes>) {
        for (key, change) in changes.iter() {
            match change {
                Change::Set { text, expires_at } => {
                    self.of.push(of);
                    self.keys.push(key);
                    self.texts.push(text);
                    self.expires_at.push((*expires_at != DbTime::NEVER).then(|| (*expires_at).into()));
                }
                Change::Remove => {
                    self.removed_of.push(of);
                    self.removed_keys.push(key);
                }
            }
            if let Some(base) = base {
                self.expected_of.push(of);
                self.expected_keys.push(key);
                self.expected.push(base.version_of(key).get());
            }
        }
    }
}

impl<'a> Columns<'a> {
    pub(super) fn of(orders: &[Order<'a>]) -> Self {
        debug_assert!(
            orders.windows(2).all(|pair| pair[0].base.row.id < pair[1].base.row.id),
            "one change per session, one lock order"
        );
        let mut columns = Self::default();
        for order in orders {
            columns.push(order);
        }
        columns
    }

    fn push(&mut self, order: &Order<'a>) {
        let (expires_at, expires_in) = columns_of(order.row.expiry);
        let base = &order.base.row;
        self.ids.push(base.id.expose());
        self.bases.push(base.version.get());
        self.expected.push((order.check == Check::Version).then_some(base.version.get()));
        self.expires_at.push(expires_at);
        self.expires_in.push(expires_in);
        self.idle_limited.push(order.row.idle_limit.map(|limit| limit == IdleLimit::Enforced));
        self.regroup.push(order.row.group_id.is_some());
        self.group_ids.push(order.row.group_id.flatten().map(GroupId::as_uuid));
        self.notify.push(order.notify);
        // A batch is bounded by `write_batch_max`, far below i64::MAX.
        let ordinal = i64::try_from(self.ids.len()).unwrap_or(i64::MAX);
        let checked = (order.check == Check::Attributes).then_some(&order.base.attributes);
        self.items.push(ordinal, order.changes, checked);
    }
}

/// An absolute time, or microseconds from now.
pub(super) fn columns_of(expiry: Option<Expiry>) -> (Option<SystemTime>, Option<i64>) {
    match expiry {
        Some(Expiry::At(time)) => (Some(time.into()), None),
        Some(Expiry::In(duration)) => (None, Some(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))),
        None => (None, None),
    }
}

impl Database {
    /// Carries out the orders, at most one for each session, and reports what became of each, in their order.
    ///
    /// If the statement fails, none of them was carried out, or its outcome is unknown; the failure says which.
    pub(crate) async fn update(&self, orders: &[Order<'_>]) -> Result<Vec<Updated>, Failure> {
        let Columns {
            ids,
            bases,
            expected,
            expires_at,
            expires_in,
            idle_limited,
            regroup,
            group_ids,
            notify,
            items,
        } = &Columns::of(orders);
        let sent = self.rules.clock.now();
        let rows = self
            .query(
                &self.texts.update,
                &[
                    ids,
                    bases,
                    expected,
                    expires_at,
                    expires_in,
                    idle_limited,
                    regroup,
                    group_ids,
                    notify,
                    &items.of,
                    &items.keys,
                    &items.texts,
                    &items.expires_at,
                    &items.removed_of,
                    &items.removed_keys,
                    &items.expected_of,
                    &items.expected_keys,
                    &items.expected,
                ],
            )
            .await?;
        same_length(&rows, orders.len())?;
        if let Some(row) = rows.last() {
            self.observe_clock(sent, time(row, "now").map_err(unexpected)?);
        }
        let outcomes = rows.iter().zip(orders).map(|(row, order)| outcome(row, order));
        outcomes.collect::<Result<_, _>>().map_err(unexpected)
    }
}

fn outcome(row: &SqlRow, order: &Order<'_>) -> Result<Updated, tokio_postgres::Error> {
    if let Some(version) = row.try_get::<_, Option<i64>>("version")? {
        let found = Version::new(row.try_get("found")?);
        let idle_limited: bool = row.try_get("idle_limited")?;
        return Ok(Updated::Applied(Applied {
            version: Version::new(version),
            updated_at: time(row, "updated_at")?,
            expires_at: time(row, "expires_at")?,
            last_accessed_at: time(row, "last_accessed_at")?,
            idle_limit: if idle_limited { IdleLimit::Enforced } else { IdleLimit::Exempt },
            group_id: row.try_get::<_, Option<Uuid>>("group_id")?.map(GroupId::from),
            found: if found == order.base.row.version { None } else { Some(attributes(row, 12)?) },
        }));
    }
    if !row.try_get::<_, bool>("live")? {
        return Ok(Updated::NotFound);
    }
    let found = Version::new(row.try_get("found")?);
    if row.try_get("rotated")? {
        return Ok(Updated::Rotated { found });
    }
    if row.try_get("outdated")? {
        return Ok(Updated::Conflict { found, keys: Vec::new() });
    }
    Ok(match row.try_get::<_, Option<Vec<String>>>("refused")? {
        Some(keys) => Updated::Conflict { found, keys },
        None => Updated::Moved,
    })
}
