//! The combined update: many sessions' changes, one statement, one commit, its notifications inside.
//!
//! An order is applied only while the session's version and `updated_at` are those that the order was made from. The
//! time is compared because a restored database gives a version number again, to other content. PostgreSQL evaluates
//! that again on the row that it finally locks, and every change of an attribute bumps its session's version in the same
//! statement. So a session that passes has the attributes that the order was made from: no check can fail, no removal
//! can overlook a key that another node inserted meanwhile, and the text of the row's attributes, made by the node,
//! takes nothing back. Nothing has to be read. An order that does not pass is `Moved`; the writer reads the session, judges,
//! and makes the order again. A rotation bumps the version of what it leaves behind, too.
//!
//! A separate locking step was slower when measured; two rows that wait for each other across statements are broken
//! by PostgreSQL's deadlock detection and tried again.

use std::time::SystemTime;

use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::failure::Failure;
use super::load::time;
use super::parameters::{FLAGS, IDS, NUMBERS, Parameters, TEXTS, TIMES};
use super::{Database, Dialect, LIFTED, Sql, unexpected};
use crate::clock::DbTime;
use crate::id::{GroupId, SessionId};
use crate::notification::changed_payloads;
use crate::session::IdleLimit;
use crate::session::attribute::OverflowAttribute;
use crate::session::attributes::{Attributes, Writes};
use crate::session::request::{Applied, Expiry, RowChange, UpdateRequest};

/// An update, and what it writes.
type Change<'a> = (&'a UpdateRequest, Writes<'a>);

/// Whether it changes only inline attributes. Most updates do, and their statement is the cheaper one.
fn is_inline((request, writes): &Change<'_>) -> bool {
    request.row.is_empty() && writes.set.is_empty() && writes.removed.is_empty()
}

/// For updates that change only inline attributes.
pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let (now, current) = (dialect.now, dialect.current("s"));
    let (visible, brief) = (dialect.visible(), dialect.wait_briefly());
    let mut parameters = Parameters::default();
    let changes = parameters.unnest(&[IDS, NUMBERS, TIMES, TEXTS]);
    let notified = notified(dialect, &parameters.unnest(&[TEXTS]));
    Sql {
        text: format!(
            "WITH done AS (
                 UPDATE {sessions} s
                 SET version = s.version + 1, attributes = COALESCE(c.attributes, s.attributes), updated_at = {now}
                 FROM {changes} WITH ORDINALITY AS c (id, base, base_at, attributes, n)
                 WHERE s.id = c.id AND s.version = c.base AND s.updated_at = c.base_at AND {current} AND {visible} AND {brief}
                 RETURNING c.n, s.updated_at, s.expires_at, s.last_accessed_at
             )
             SELECT d.n, d.updated_at, d.expires_at, d.last_accessed_at, ({notified})
             FROM done d CROSS JOIN (SELECT pg_catalog.count(*) FROM done) all_done"
        ),
        types: parameters.types,
    }
}

/// For any updates.
pub(super) fn full_sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let (now, current) = (dialect.now, dialect.current("s"));
    let (visible, brief) = (dialect.visible(), dialect.wait_briefly());
    let mut parameters = Parameters::default();
    let changes = parameters.unnest(&[IDS, NUMBERS, TIMES, TEXTS, FLAGS, TIMES, NUMBERS, FLAGS, FLAGS, IDS]);
    let written = written(dialect, &parameters.unnest(&[IDS, TEXTS, TEXTS, TIMES]));
    let removals = parameters.unnest(&[IDS, TEXTS]);
    let notified = notified(dialect, &parameters.unnest(&[TEXTS]));
    Sql {
        text: format!(
            "WITH done AS (
                 UPDATE {sessions} s
                 SET version = s.version + 1,
                     attributes = COALESCE(c.attributes, s.attributes),
                     has_overflow = s.has_overflow OR c.has_overflow,
                     updated_at = {now},
                     expires_at = COALESCE(c.expires_at, {now} + c.expires_in::pg_catalog.float8 * interval '1 microsecond', s.expires_at),
                     idle_limited = COALESCE(c.idle_limited, s.idle_limited),
                     group_id = CASE WHEN c.regroup THEN c.group_id ELSE s.group_id END
                 FROM {changes} WITH ORDINALITY
                 AS c (id, base, base_at, attributes, has_overflow, expires_at, expires_in, idle_limited, regroup, group_id, n)
                 WHERE s.id = c.id AND s.version = c.base AND s.updated_at = c.base_at AND {current} AND {visible} AND {brief}
                 RETURNING c.n, s.id, s.version, s.updated_at, s.expires_at, s.last_accessed_at
             ), written AS ({written}
             ), removed AS (
                 DELETE FROM {attributes} a USING done d JOIN {removals} AS i (id, key) ON i.id = d.id
                 WHERE a.session_id = d.id AND a.key = i.key
                 RETURNING 1
             )
             SELECT d.n, d.updated_at, d.expires_at, d.last_accessed_at, ({notified})
             FROM done d CROSS JOIN (SELECT pg_catalog.count(*) FROM written) all_written
             CROSS JOIN (SELECT pg_catalog.count(*) FROM removed) all_removed"
        ),
        types: parameters.types,
    }
}

/// Writes the attributes with rows of their own, of those sessions that were updated.
fn written(dialect: &Dialect<'_>, items: &str) -> String {
    format!(
        "INSERT INTO {} AS a (session_id, key, value, expires_at, version)
         SELECT d.id, i.key, i.text, i.expires_at, d.version
         FROM done d JOIN {items} AS i (id, key, text, expires_at) ON i.id = d.id
         ON CONFLICT (session_id, key) DO UPDATE
         SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at, version = EXCLUDED.version
         RETURNING 1",
        dialect.names.attributes()
    )
}

/// Sends the payloads, as the first row is returned, and once: a subselect that refers to nothing outside is carried out once
/// for the statement. The first row is returned when every row is written: it is joined with counts of all of them.
///
/// Notifies for every row: one that was not applied found a newer version, or nothing, so a node that receives it drops nothing
/// that is current.
fn notified(dialect: &Dialect<'_>, payloads: &str) -> String {
    let channel = dialect.channel();
    format!(
        "SELECT pg_catalog.count(pg_catalog.pg_notify('{channel}', p.payload)) FROM {payloads} AS p (payload) WHERE {LIFTED}"
    )
}

/// The updates as columns: what UNNEST takes.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) ids: Vec<Uuid>,
    bases: Vec<i64>,
    base_times: Vec<SystemTime>,
    packed: Vec<Option<&'a str>>,
    has_overflow: Vec<bool>,
    expires_at: Vec<Option<SystemTime>>,
    expires_in: Vec<Option<i64>>,
    idle_limited: Vec<Option<bool>>,
    regroup: Vec<bool>,
    group_ids: Vec<Option<Uuid>>,
    items: Items<'a>,
    removed_of: Vec<Uuid>,
    removed_keys: Vec<&'a str>,
    payloads: Vec<String>,
}

/// Attributes with rows of their own as columns, each with the id of its session.
#[derive(Default)]
pub(super) struct Items<'a> {
    pub(super) of: Vec<Uuid>,
    pub(super) keys: Vec<&'a str>,
    pub(super) texts: Vec<&'a str>,
    pub(super) expires_at: Vec<Option<SystemTime>>,
}

impl<'a> Items<'a> {
    pub(super) fn push(&mut self, of: SessionId, attribute: &'a OverflowAttribute) {
        let OverflowAttribute { key, text, expires_at, .. } = attribute;
        self.of.push(of.expose());
        self.keys.push(key);
        self.texts.push(text);
        self.expires_at.push((*expires_at != DbTime::NEVER).then(|| (*expires_at).into()));
    }
}

impl<'a> Columns<'a> {
    /// What every update has.
    pub(super) fn of(changes: &[Change<'a>]) -> Self {
        debug_assert!(
            changes.windows(2).all(|pair| pair[0].0.id() < pair[1].0.id()),
            "one change per session, one lock order"
        );
        let notified = changes.iter().filter(|(request, _)| request.notify);
        let notified: Vec<_> =
            notified.map(|(request, _)| (request.id(), request.base().version.next())).collect();
        Self {
            ids: changes.iter().map(|(request, _)| request.id().expose()).collect(),
            bases: changes.iter().map(|(request, _)| request.base().version.get()).collect(),
            base_times: changes.iter().map(|(request, _)| request.base().updated_at.into()).collect(),
            packed: changes.iter().map(|(_, writes)| writes.packed).collect(),
            payloads: changed_payloads(&notified),
            ..Self::default()
        }
    }

    /// And all the rest.
    fn in_full(changes: &[Change<'a>]) -> Self {
        let mut columns = Self::of(changes);
        for (request, Writes { set, removed, .. }) in changes {
            let id = request.id();
            let RowChange { expiry, idle_limit, group_id } = request.row;
            columns.has_overflow.push(!set.is_empty());
            set.iter().for_each(|attribute| columns.items.push(id, attribute));
            let (expires_at, expires_in) = columns_of(expiry);
            columns.expires_at.push(expires_at);
            columns.expires_in.push(expires_in);
            columns.idle_limited.push(idle_limit.map(|limit| limit == IdleLimit::Enforced));
            columns.regroup.push(group_id.is_some());
            columns.group_ids.push(group_id.flatten().map(GroupId::as_uuid));
            for key in removed {
                columns.removed_of.push(id.expose());
                columns.removed_keys.push(key);
            }
        }
        columns
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
    /// Carries out those updates, at most one for each session, whose base is what the database holds. `after` has the
    /// attributes that each leads to. Reports on each, in their order: `None` for one that was not carried out.
    ///
    /// If the statement fails, none of them was carried out, or its outcome is unknown; the failure says which.
    pub(crate) async fn update(
        &self,
        requests: &[&UpdateRequest],
        after: &[Attributes],
    ) -> Result<Vec<Option<Applied>>, Failure> {
        let sent = self.policy.clock.now();
        let changes = requests.iter().zip(after).map(|(&request, after)| (request, request.writes(after)));
        let changes: Vec<Change<'_>> = changes.collect();
        let all = match (changes.iter().all(is_inline), &changes[..]) {
            (false, _) => self.update_in_full(&Columns::in_full(&changes)).await?,
            (true, [(request, writes)]) => self.update_one(request, writes.packed).await?,
            (true, _) => {
                let Columns { ids, bases, base_times, packed, payloads, .. } = &Columns::of(&changes);
                self.carried_out(&self.texts.update, &[ids, bases, base_times, packed, payloads]).await?
            }
        };
        let mut outcomes: Vec<Option<Applied>> = requests.iter().map(|_| None).collect();
        for (n, applied) in all {
            let outcome = usize::try_from(n - 1).ok().and_then(|index| outcomes.get_mut(index));
            *outcome.ok_or_else(|| unexpected("a row for no update"))? = Some(applied);
            // Read while the statement ran, like any other reading of the database's clock.
            self.observe_clock(sent, applied.updated_at);
        }
        Ok(outcomes)
    }

    /// Sends an update, and reads which orders were carried out, by number, and what came of them.
    pub(super) async fn carried_out(
        &self,
        sql: &Sql,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<(i64, Applied)>, Failure> {
        self.call(sql, params).each(|row| applied(&row).map_err(unexpected)).await
    }

    async fn update_in_full(&self, columns: &Columns<'_>) -> Result<Vec<(i64, Applied)>, Failure> {
        let Columns {
            ids,
            bases,
            base_times,
            packed,
            has_overflow,
            expires_at,
            expires_in,
            idle_limited,
            regroup,
            group_ids,
            items,
            removed_of,
            removed_keys,
            payloads,
        } = columns;
        self.carried_out(
            &self.texts.update_in_full,
            &[
                ids,
                bases,
                base_times,
                packed,
                has_overflow,
                expires_at,
                expires_in,
                idle_limited,
                regroup,
                group_ids,
                &items.of,
                &items.keys,
                &items.texts,
                &items.expires_at,
                removed_of,
                removed_keys,
                payloads,
            ],
        )
        .await
    }
}

/// By position: looking columns up by their names took longer than decoding them.
fn applied(row: &SqlRow) -> Result<(i64, Applied), tokio_postgres::Error> {
    let applied =
        Applied { updated_at: time(row, 1)?, expires_at: time(row, 2)?, last_accessed_at: time(row, 3)? };
    Ok((row.try_get(0)?, applied))
}
