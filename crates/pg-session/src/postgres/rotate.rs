//! Rotations: sessions get new ids, many at a time, in one commit.
//!
//! The new row gets what is kept, and the labels and the locks of the session. The row of the old id becomes that of
//! a *retired id*. User and attributes stay as they were, `rotated_to` points at the new row, and the end is the
//! grace's. It never shows what the session has become. An id that was planted or stolen before a login is useless
//! after it. Retired ids of earlier rotations are pointed at the new row as well: all of them go with the session.
//!
//! One statement does it all. It locks the users, then the rows of the sessions and their retired
//! ids. It reads the newest version of each locked row. So a session that another transaction
//! changed meanwhile has another version than the rotation was made from. It is `Moved`, and made
//! again. Only the rows of the session's locks may be newer than the statement's snapshot;
//! `session_move_locks` looks for them with its own.
//!
//! Lock order: users, then sessions by id, then locks of sessions.

use std::collections::BTreeSet;
use std::time::SystemTime;

use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::admission::{is_admitted, lock_seed, make_room, sorted};
use super::create::label_columns;
use super::failure::Failure;
use super::load::time;
use super::notify::{changed, deleted};
use super::parameters::{FLAGS, IDS, NUMBERS, Parameters, TEXTS, TIMES};
use super::update::{Items, columns_of};
use super::{Database, Dialect, Sql, same_length, unexpected, waits_at_most_until_deleted};
use crate::cause::Cause;
use crate::clock::DbTime;
use crate::ending;
use crate::id::{GroupId, SessionId, UserId};
use crate::notification::ServerId;
use crate::session::IdleLimit;
use crate::session::attributes::{Attributes, Writes};
use crate::session::record::Row;
use crate::session::request::Rotation;
use crate::version::Version;

/// What became of it.
#[derive(Debug)]
pub(crate) enum Rotated {
    Done(Box<Successor>),
    /// Deleted or expired.
    NotFound,
    /// It was rotated already; the retired id has the version `found`.
    AlreadyDone {
        found: Version,
    },
    /// The new user has all the sessions that the policy allows.
    Refused,
    /// Another update came between: nothing was written, try again.
    VersionConflict,
}

/// The session under its new id.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) row: Row,
    pub(crate) last_accessed_at: DbTime,
    /// The old ids, this one's and those of earlier rotations, with their versions. `DELETED`
    /// without a grace.
    pub(crate) retired: Vec<(SessionId, Version)>,
    /// The new user's sessions that had to go.
    pub(crate) evicted: Vec<SessionId>,
}

/// The sort of `locked` reads `users` first, so every user is locked before any row is.
pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let (move_labels, move_locks) = (dialect.names.move_labels(), dialect.names.move_locks());
    let (now, live, visible) = (dialect.now, dialect.live("s"), dialect.visible());
    let server = dialect.server_id();
    let brief = waits_at_most_until_deleted(&dialect.row_lock_wait(), "''");
    // For each row, so after `make_room`, which says why it ends others.
    let rotated = format!(
        "pg_catalog.set_config('pg_session.endings', {}, true) IS NOT NULL",
        ending::literal(Cause::Rotated)
    );
    // `make_room` has ended the limit if it deleted sessions. Evaluated for each row, so after the first one was accepted.
    let brief_again =
        format!("pg_catalog.set_config('lock_timeout', {}, true) IS NOT NULL", dialect.row_lock_wait());
    let (seed, retired_ids) = (lock_seed(dialect), dialect.retired_ids("t.id"));
    let possible = "f.live AND NOT f.rotated AND NOT f.moved";
    let arrivals = format!(
        "SELECT pg_catalog.array_agg(f.user_id ORDER BY f.user_id), pg_catalog.array_agg(f.sessions_max ORDER BY f.user_id),
                COALESCE(pg_catalog.array_agg(f.id) FILTER (WHERE NOT f.changes_user), '{{}}')
         FROM found f WHERE f.sessions_max IS NOT NULL AND {possible}"
    );
    let room = make_room(dialect, &arrivals);
    let admitted = is_admitted("f.user_id");
    let notified_retired = changed(dialect, "SELECT id, version FROM retired");
    let notified_deleted = deleted(dialect, "SELECT id FROM deleted", "'r'");
    let mut parameters = Parameters::default();
    let turns = parameters.unnest(&[
        IDS, NUMBERS, TIMES, IDS, IDS, FLAGS, NUMBERS, TIMES, NUMBERS, FLAGS, FLAGS, IDS, NUMBERS, TEXTS,
        FLAGS, FLAGS,
    ]);
    let users = parameters.unnest(&[IDS]);
    let items = parameters.unnest(&[IDS, TEXTS, TEXTS, TIMES]);
    let (label_ids, labels) = (parameters.opaque_array(&IDS), parameters.opaque_array(&TEXTS));
    Sql {
        text: format!(
            "WITH users AS MATERIALIZED (
                 SELECT pg_catalog.count(pg_catalog.pg_advisory_xact_lock(pg_catalog.uuid_hash_extended(u.id, {seed})))
                 FROM {users} AS u (id)
             ), turn AS MATERIALIZED (
                 SELECT * FROM {turns}
                 WITH ORDINALITY AS t (id, base, base_at, new_id, user_id, changes_user, sessions_max, expires_at, expires_in,
                                       idle_limited, regroup, group_id, grace, attributes, has_overflow, new_labels, n)
             ), locked AS MATERIALIZED (
                 SELECT s.id, s.group_id, s.version, s.idle_limited, s.created_at, s.updated_at, s.last_accessed_at,
                        s.expires_at, s.rotated_to, s.has_labels
                 FROM {sessions} s CROSS JOIN users
                 WHERE s.id = ANY (ARRAY (SELECT t.id FROM turn t
                                          UNION ALL
                                          SELECT r.id FROM turn t CROSS JOIN LATERAL ({retired_ids}) r))
                     AND {visible} AND {brief}
                 ORDER BY s.id FOR UPDATE OF s
             ), found AS MATERIALIZED (
                 SELECT t.n, t.id, t.new_id, t.user_id, t.changes_user, t.sessions_max, t.attributes, t.has_overflow,
                        t.new_labels IS NULL AS keeps_labels, COALESCE(t.new_labels, s.has_labels) AS has_labels,
                        s.has_labels OR t.new_labels AS moves_labels, s.version, {live} AS live, s.rotated_to IS NOT NULL AS rotated,
                        s.version <> t.base OR s.updated_at <> t.base_at AS moved,
                        CASE WHEN t.regroup THEN t.group_id ELSE s.group_id END AS group_id,
                        COALESCE(t.idle_limited, s.idle_limited) AS idle_limited,
                        CASE WHEN t.changes_user THEN {now} ELSE s.created_at END AS created_at,
                        COALESCE(t.expires_at, {now} + t.expires_in::pg_catalog.float8 * interval '1 microsecond', s.expires_at) AS expires_at,
                        t.grace::pg_catalog.float8 * interval '1 microsecond' AS grace
                 FROM turn t JOIN locked s ON s.id = t.id
             ), room AS MATERIALIZED ({room}
             ), accepted AS MATERIALIZED (
                 SELECT f.* FROM found f WHERE {possible} AND (f.sessions_max IS NULL OR {admitted})
             ), new_row AS (
                 INSERT INTO {sessions} AS s
                     (id, user_id, group_id, version, idle_limited, created_at, updated_at, last_accessed_at, expires_at,
                      attributes, has_overflow, has_labels)
                 SELECT h.new_id, h.user_id, h.group_id, h.version + 1, h.idle_limited, h.created_at, {now}, {now},
                        h.expires_at, COALESCE(h.attributes, '{{}}'), h.has_overflow, h.has_labels
                 FROM accepted h RETURNING s.*
             ), written AS (
                 INSERT INTO {attributes} (session_id, key, value, expires_at, version)
                 SELECT h.new_id, i.key, i.text, i.expires_at, h.version + 1
                 FROM accepted h JOIN {items} AS i (id, key, text, expires_at) ON i.id = h.new_id
             ), old AS MATERIALIZED (
                 SELECT h.n, h.id, h.new_id, h.expires_at, h.grace FROM accepted h
                 UNION ALL
                 SELECT h.n, l.id, h.new_id, h.expires_at, h.grace FROM accepted h JOIN locked l ON l.rotated_to = h.id
             ), retired AS (
                 UPDATE {sessions} s
                 SET rotated_to = o.new_id,
                     version = s.version + 1,
                     flip = NOT s.flip,
                     updated_at = {now},
                     expires_at = LEAST(s.expires_at, o.expires_at, {now} + o.grace)
                 FROM old o
                 WHERE s.id = ANY (ARRAY (SELECT id FROM old)) AND s.id = o.id AND o.grace > interval '0'
                 RETURNING o.n, s.id, s.version
             ), deleted AS (
                 DELETE FROM {sessions} s USING old o
                 WHERE s.id = ANY (ARRAY (SELECT id FROM old)) AND s.id = o.id AND o.grace = interval '0' AND {rotated}
                 RETURNING o.n, s.id
             ), moved_labels AS MATERIALIZED (
                 SELECT {move_labels}(pg_catalog.array_agg(h.id), pg_catalog.array_agg(h.new_id),
                                      pg_catalog.array_agg(h.keeps_labels), {label_ids}, {labels})
                 FROM accepted h WHERE h.moves_labels AND {brief_again} HAVING pg_catalog.count(*) > 0
             ), moved_locks AS MATERIALIZED (
                 SELECT {move_locks}(pg_catalog.array_agg(h.id), pg_catalog.array_agg(h.new_id)) FROM accepted h
                 WHERE {brief_again}
             ), notified_retired AS MATERIALIZED ({notified_retired}
             ), notified_deleted AS MATERIALIZED ({notified_deleted})
             SELECT t.n, f.version AS found, COALESCE(f.live, false) AS live, f.rotated, f.moved,
                    m.version, m.group_id, m.idle_limited, m.created_at, m.updated_at, m.last_accessed_at, m.expires_at,
                    p.ids AS retired_ids, p.versions AS left_versions, e.ids AS ended, v.evicted, {now} AS now, {server} AS server, {visible} AS visible
             FROM turn t
             LEFT JOIN found f ON f.n = t.n
             LEFT JOIN new_row m ON m.id = t.new_id
             LEFT JOIN (SELECT r.n, pg_catalog.array_agg(r.id) AS ids, pg_catalog.array_agg(r.version) AS versions
                        FROM retired r GROUP BY r.n) p ON p.n = t.n
             LEFT JOIN (SELECT g.n, pg_catalog.array_agg(g.id) AS ids FROM deleted g GROUP BY g.n) e ON e.n = t.n
             LEFT JOIN room v ON t.sessions_max IS NOT NULL AND v.user_id = t.user_id
             CROSS JOIN (SELECT pg_catalog.count(*) FROM moved_labels) ma
             CROSS JOIN (SELECT pg_catalog.count(*) FROM moved_locks) ml
             CROSS JOIN (SELECT pg_catalog.count(*) FROM notified_retired) nr
             CROSS JOIN (SELECT pg_catalog.count(*) FROM notified_deleted) nd
             ORDER BY t.n"
        ),
        types: parameters.types,
    }
}

/// The rotations as columns: what UNNEST takes.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    bases: Vec<i64>,
    base_times: Vec<SystemTime>,
    successors: Vec<Uuid>,
    users: Vec<Option<Uuid>>,
    changes_user: Vec<bool>,
    sessions_max: Vec<Option<i64>>,
    expires_at: Vec<Option<SystemTime>>,
    expires_in: Vec<Option<i64>>,
    idle_limited: Vec<Option<bool>>,
    regroup: Vec<bool>,
    group_ids: Vec<Option<Uuid>>,
    graces: Vec<i64>,
    inline: Vec<Option<&'a str>>,
    has_overflow: Vec<bool>,
    /// Whether the session gets labels. NULL if it keeps its own.
    new_labels: Vec<Option<bool>>,
    items: Items<'a>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, rotation: &Rotation, sessions_max: Option<u32>, writes: &Writes<'a>) {
        let (expires_at, expires_in) = columns_of(rotation.row.expiry);
        self.ids.push(rotation.id().expose());
        self.bases.push(rotation.base().version.get());
        self.base_times.push(rotation.base().updated_at.into());
        self.successors.push(rotation.new_id.expose());
        self.users.push(rotation.user_id().map(UserId::as_uuid));
        self.changes_user.push(rotation.new_user.is_some());
        self.sessions_max.push(rotation.sessions_max(sessions_max).map(i64::from));
        self.expires_at.push(expires_at);
        self.expires_in.push(expires_in);
        self.idle_limited.push(rotation.row.idle_limit.map(|limit| limit == IdleLimit::Enforced));
        self.regroup.push(rotation.row.group_id.is_some());
        self.group_ids.push(rotation.row.group_id.flatten().map(GroupId::as_uuid));
        // Checked to be a minute at most.
        self.graces.push(i64::try_from(rotation.grace.as_micros()).unwrap_or(i64::MAX));
        self.inline.push(writes.inline);
        self.has_overflow.push(!writes.set.is_empty());
        self.new_labels.push(rotation.labels.as_ref().map(|labels| !labels.is_empty()));
        writes.set.iter().for_each(|attribute| self.items.push(rotation.new_id, attribute));
    }
}

impl Database {
    /// Carries out the rotations: at most one for each session and, if their number is limited, for
    /// each user. Reports on each, in their order. With the server.
    pub(crate) async fn rotate(
        &self,
        rotations: &[&Rotation],
        attributes: &[Attributes],
    ) -> Result<(Vec<Rotated>, Option<ServerId>), Failure> {
        debug_assert!(
            rotations.iter().map(|rotation| rotation.id()).collect::<BTreeSet<_>>().len() == rotations.len(),
            "one rotation for each session"
        );
        let none = Attributes::default();
        let mut columns = Columns::default();
        for (rotation, after) in rotations.iter().zip(attributes) {
            columns.push(rotation, self.sessions_max, &Writes::new(&none, after));
        }
        let c = &columns;
        let users = rotations.iter().filter_map(|rotation| Some((rotation.user_id()?.as_uuid(), 0)));
        let (users, _) = sorted(users.collect());
        let sent = self.policy.clock.now();
        let labelled =
            rotations.iter().filter_map(|rotation| Some((rotation.new_id, rotation.labels.as_ref()?)));
        let (label_ids, labels) = label_columns(labelled);
        let params: [&(dyn ToSql + Sync); 23] = [
            &c.ids,
            &c.bases,
            &c.base_times,
            &c.successors,
            &c.users,
            &c.changes_user,
            &c.sessions_max,
            &c.expires_at,
            &c.expires_in,
            &c.idle_limited,
            &c.regroup,
            &c.group_ids,
            &c.graces,
            &c.inline,
            &c.has_overflow,
            &c.new_labels,
            &users,
            &c.items.of,
            &c.items.keys,
            &c.items.texts,
            &c.items.expires_at,
            &label_ids,
            &labels,
        ];
        let rows = self.call(&self.texts.rotate, &params).rows().await?;
        same_length(&rows, rotations.len())?;
        if let Some(row) = rows.last() {
            self.observe_clock(sent, time(row, "now").map_err(unexpected)?);
        }
        let outcomes = rows.iter().zip(rotations).map(|(row, rotation)| outcome(row, rotation));
        let outcomes = outcomes.collect::<Result<_, _>>().map_err(unexpected)?;
        let server = rows.first().map(|row| row.try_get("server").map(ServerId)).transpose();
        Ok((outcomes, server.map_err(unexpected)?))
    }
}

fn outcome(row: &SqlRow, rotation: &Rotation) -> Result<Rotated, tokio_postgres::Error> {
    if let Some(version) = row.try_get::<_, Option<i64>>("version")? {
        return Ok(Rotated::Done(Box::new(successor(row, rotation, Version::new(version))?)));
    }
    if !row.try_get::<_, bool>("live")? {
        return Ok(Rotated::NotFound);
    }
    if row.try_get("rotated")? {
        return Ok(Rotated::AlreadyDone { found: Version::new(row.try_get("found")?) });
    }
    Ok(if row.try_get("moved")? { Rotated::VersionConflict } else { Rotated::Refused })
}

fn successor(
    row: &SqlRow,
    rotation: &Rotation,
    version: Version,
) -> Result<Successor, tokio_postgres::Error> {
    let idle_limited: bool = row.try_get("idle_limited")?;
    let left: Vec<i64> = row.try_get::<_, Option<_>>("left_versions")?.unwrap_or_default();
    let left = ids(row, "retired_ids")?.into_iter().zip(left.into_iter().map(Version::new));
    let ended = ids(row, "ended")?.into_iter().map(|id| (id, Version::DELETED));
    Ok(Successor {
        row: Row {
            id: rotation.new_id,
            user_id: rotation.user_id(),
            group_id: row.try_get::<_, Option<Uuid>>("group_id")?.map(GroupId::from),
            version,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
            expires_at: time(row, "expires_at")?,
            idle_limit: if idle_limited { IdleLimit::Enforced } else { IdleLimit::Exempt },
            rotated: false,
        },
        last_accessed_at: time(row, "last_accessed_at")?,
        retired: left.chain(ended).collect(),
        evicted: ids(row, "evicted")?,
    })
}

/// An aggregate of ids; of none it is NULL.
fn ids(row: &SqlRow, column: &str) -> Result<Vec<SessionId>, tokio_postgres::Error> {
    let ids: Vec<Uuid> = row.try_get::<_, Option<_>>(column)?.unwrap_or_default();
    Ok(ids.into_iter().map(SessionId::from_uuid).collect())
}
