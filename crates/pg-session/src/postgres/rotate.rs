//! Rotations: sessions go on under new ids, many at a time, in one commit.
//!
//! The new row gets what is kept, and the locks of the session. The row under the old id becomes a *remnant*: user and
//! attributes stay as they were, `rotated_to` points at the new row, and the end is the grace's. It never shows what the
//! session has become, so an id that somebody planted or stole before a login is worth nothing after it. Remnants of
//! earlier rotations are pointed at the new row as well: all of them go with the session.
//!
//! The session's rows are locked by a statement of its own, before ([`lock_sql`]). So the snapshot of this one holds
//! the newest locks, whose acquisitions hold the session until they commit. The attributes of the new row are made by the node,
//! from those of a version that the session must still have; if it has another, the turn is `Moved`, and made again.
//!
//! Lock order: users, then sessions by id, then locks of sessions.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tokio_postgres::Row as SqlRow;
use uuid::Uuid;

use super::failure::Failure;
use super::load::time;
use super::notify::{changed, deleted};
use super::parameters::{FLAGS, IDS, NUMBERS, Parameters, TEXTS, TIMES};
use super::session_limit::{Limit, limit, lock_order};
use super::update::{Items, RowChange, columns_of};
use super::{Database, Dialect, Sql, same_length, unexpected};
use crate::clock::DbTime;
use crate::id::{GroupId, SessionId, UserId};
use crate::session::IdleLimit;
use crate::session::attributes::Writes;
use crate::session::record::{Revision, Row};
use crate::version::Version;

/// One session that is to go on under another id.
pub(crate) struct Turn<'a> {
    pub(crate) id: SessionId,
    /// The revision that it was made from.
    pub(crate) base: Revision,
    pub(crate) successor: SessionId,
    /// The user afterwards.
    pub(crate) user_id: Option<UserId>,
    /// Whether that is another than before, so that the session counts as a new one of that user.
    pub(crate) arrives: bool,
    pub(crate) row: RowChange,
    pub(crate) grace: Duration,
    /// All attributes of the new row.
    pub(crate) writes: Writes<'a>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Rotated {
    Done(Box<Successor>),
    /// Deleted or expired.
    NotFound,
    /// It goes on under another id already; what is left has the version `found`.
    Before {
        found: Version,
    },
    /// The new user has all the sessions that the policy allows.
    Refused,
    /// Another update came between: nothing was written, try again.
    Moved,
}

/// The session under its new id.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) row: Row,
    pub(crate) last_accessed_at: DbTime,
    /// The old ids, this one's and those of earlier rotations, with the versions of what is left under them. `DELETED`
    /// without a grace.
    pub(crate) remnants: Vec<(SessionId, Version)>,
    /// The new user's sessions that had to go.
    pub(crate) evicted: Vec<SessionId>,
}

/// Users first: their sort comes below the rows' locks, so every user is locked before any row is.
pub(super) fn lock_sql(dialect: &Dialect<'_>) -> Sql {
    let visible = dialect.visible();
    let sessions = dialect.names.sessions();
    let Sql { text: users, types } = super::session_limit::lock_sql(dialect);
    let mut parameters = Parameters { types };
    let turns = parameters.unnest(&[IDS]);
    let remnants = dialect.remnants("t.id");
    Sql {
        text: format!(
            "WITH users AS MATERIALIZED ({users}
             ), turn AS MATERIALIZED (SELECT t.id FROM {turns} t (id))
             SELECT pg_catalog.count(*) FROM (
                 SELECT s.id FROM {sessions} s CROSS JOIN users
                 WHERE s.id = ANY (ARRAY (SELECT t.id FROM turn t
                                          UNION ALL
                                          SELECT r.id FROM turn t CROSS JOIN LATERAL ({remnants}) r))
                 AND {visible}
                 ORDER BY s.id FOR UPDATE OF s
             ) l"
        ),
        types: parameters.types,
    }
}

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let locks = dialect.names.locks();
    let (now, live) = (dialect.now, dialect.live("s"));
    let Limit { ctes: limit, full } = limit(
        dialect,
        "SELECT f.user_id FROM found f WHERE f.arrives AND f.live AND NOT f.rotated AND NOT f.moved",
    );
    let remnants = dialect.remnants("h.id");
    let told_left = changed(dialect, "SELECT id, version FROM remnant");
    let told_gone = deleted(dialect, "SELECT id FROM ended UNION ALL SELECT id FROM evicted");
    let mut parameters = Parameters::default();
    let turns = parameters.unnest(&[
        IDS, NUMBERS, TIMES, IDS, IDS, FLAGS, TIMES, NUMBERS, FLAGS, FLAGS, IDS, NUMBERS, TEXTS, FLAGS,
    ]);
    let items = parameters.unnest(&[NUMBERS, TEXTS, TEXTS, TIMES]);
    Sql {
        text: format!(
            "WITH turn AS MATERIALIZED (
                 SELECT * FROM {turns}
                 WITH ORDINALITY AS t (id, base, base_at, successor, user_id, arrives, expires_at, expires_in, idle_limited,
                                       regroup, group_id, grace, attributes, spills, n)
             ), item AS MATERIALIZED (
                 SELECT * FROM {items}
                 AS i (n, key, text, expires_at)
             ), found AS MATERIALIZED (
                 SELECT t.n, t.id, t.successor, t.user_id, t.arrives, t.attributes, t.spills,
                        s.version, {live} AS live, s.rotated_to IS NOT NULL AS rotated,
                        s.version <> t.base OR s.updated_at <> t.base_at AS moved,
                        CASE WHEN t.regroup THEN t.group_id ELSE s.group_id END AS group_id,
                        COALESCE(t.idle_limited, s.idle_limited) AS idle_limited,
                        CASE WHEN t.arrives THEN {now} ELSE s.created_at END AS created_at,
                        COALESCE(t.expires_at, {now} + t.expires_in::pg_catalog.float8 * interval '1 microsecond', s.expires_at) AS expires_at,
                        t.grace::pg_catalog.float8 * interval '1 microsecond' AS grace
                 FROM turn t JOIN {sessions} s ON s.id = t.id
             ), {limit}, heir AS MATERIALIZED (
                 SELECT f.* FROM found f WHERE f.n NOT IN (
                     SELECT x.n FROM found x WHERE NOT x.live OR x.rotated OR x.moved OR x.user_id IN ({full}))
             ), made AS (
                 INSERT INTO {sessions} AS s
                     (id, user_id, group_id, version, idle_limited, created_at, updated_at, last_accessed_at, expires_at,
                      attributes, spilled)
                 SELECT h.successor, h.user_id, h.group_id, h.version + 1, h.idle_limited, h.created_at, {now}, {now},
                        h.expires_at, COALESCE(h.attributes, '{{}}'), h.spills
                 FROM heir h RETURNING s.*
             ), written AS (
                 INSERT INTO {attributes} (session_id, key, value, expires_at, version)
                 SELECT h.successor, i.key, i.text, i.expires_at, h.version + 1
                 FROM heir h JOIN item i ON i.n = h.n
             ), old AS MATERIALIZED (
                 SELECT h.n, h.id, h.successor, h.expires_at, h.grace FROM heir h
                 UNION ALL
                 SELECT h.n, r.id, h.successor, h.expires_at, h.grace FROM heir h CROSS JOIN LATERAL ({remnants}) r
             ), remnant AS (
                 UPDATE {sessions} s
                 SET rotated_to = o.successor,
                     version = s.version + 1,
                     updated_at = {now},
                     expires_at = LEAST(s.expires_at, o.expires_at, {now} + o.grace)
                 FROM old o
                 WHERE s.id = ANY (ARRAY (SELECT id FROM old)) AND s.id = o.id AND o.grace > interval '0'
                 RETURNING o.n, s.id, s.version
             ), ended AS (
                 DELETE FROM {sessions} s USING old o
                 WHERE s.id = ANY (ARRAY (SELECT id FROM old)) AND s.id = o.id AND o.grace = interval '0'
                 RETURNING o.n, s.id
             ), carried AS (
                 UPDATE {locks} l SET session_id = h.successor FROM heir h
                 WHERE l.session_id = ANY (ARRAY (SELECT id FROM heir)) AND l.session_id = h.id
             ), told_left AS MATERIALIZED ({told_left}
             ), told_gone AS MATERIALIZED ({told_gone})
             SELECT t.n, f.version AS found, COALESCE(f.live, false) AS live, f.rotated, f.moved,
                    m.version, m.group_id, m.idle_limited, m.created_at, m.updated_at, m.last_accessed_at, m.expires_at,
                    p.ids AS remnants, p.versions AS left_versions, e.ids AS ended, v.ids AS evicted, {now} AS now
             FROM turn t
             LEFT JOIN found f ON f.n = t.n
             LEFT JOIN made m ON m.id = t.successor
             LEFT JOIN (SELECT r.n, pg_catalog.array_agg(r.id) AS ids, pg_catalog.array_agg(r.version) AS versions
                        FROM remnant r GROUP BY r.n) p ON p.n = t.n
             LEFT JOIN (SELECT g.n, pg_catalog.array_agg(g.id) AS ids FROM ended g GROUP BY g.n) e ON e.n = t.n
             LEFT JOIN (SELECT d.user_id, pg_catalog.array_agg(d.id) AS ids FROM evicted d GROUP BY d.user_id) v
                 ON t.arrives AND v.user_id = t.user_id
             CROSS JOIN (SELECT pg_catalog.count(*) FROM told_left) tl CROSS JOIN (SELECT pg_catalog.count(*) FROM told_gone) tg
             ORDER BY t.n"
        ),
        types: parameters.types,
    }
}

/// The turns as columns: what UNNEST takes.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    bases: Vec<i64>,
    base_times: Vec<SystemTime>,
    successors: Vec<Uuid>,
    users: Vec<Option<Uuid>>,
    arrives: Vec<bool>,
    expires_at: Vec<Option<SystemTime>>,
    expires_in: Vec<Option<i64>>,
    idle_limited: Vec<Option<bool>>,
    regroup: Vec<bool>,
    group_ids: Vec<Option<Uuid>>,
    graces: Vec<i64>,
    packed: Vec<Option<&'a str>>,
    spills: Vec<bool>,
    items: Items<'a>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, turn: &'a Turn<'a>) {
        let (expires_at, expires_in) = columns_of(turn.row.expiry);
        self.ids.push(turn.id.expose());
        self.bases.push(turn.base.version.get());
        self.base_times.push(turn.base.updated_at.into());
        self.successors.push(turn.successor.expose());
        self.users.push(turn.user_id.map(UserId::as_uuid));
        self.arrives.push(turn.arrives);
        self.expires_at.push(expires_at);
        self.expires_in.push(expires_in);
        self.idle_limited.push(turn.row.idle_limit.map(|limit| limit == IdleLimit::Enforced));
        self.regroup.push(turn.row.group_id.is_some());
        self.group_ids.push(turn.row.group_id.flatten().map(GroupId::as_uuid));
        // Checked to be a minute at most.
        self.graces.push(i64::try_from(turn.grace.as_micros()).unwrap_or(i64::MAX));
        self.packed.push(turn.writes.packed);
        self.spills.push(!turn.writes.set.is_empty());
        // A batch is bounded by `write_batch_max`, far below i64::MAX.
        let n = i64::try_from(self.ids.len()).unwrap_or(i64::MAX);
        turn.writes.set.iter().for_each(|attribute| self.items.push(n, attribute));
    }
}

impl Database {
    /// Carries out the turns, at most one for each session and, if their number is limited, for each user; reports on
    /// each, in their order.
    pub(crate) async fn rotate(&self, turns: &[Turn<'_>], limited: bool) -> Result<Vec<Rotated>, Failure> {
        debug_assert!(
            turns.iter().map(|turn| turn.id).collect::<BTreeSet<_>>().len() == turns.len(),
            "one turn for each session"
        );
        let mut columns = Columns::default();
        for turn in turns {
            columns.push(turn);
        }
        let c = &columns;
        let users = if limited { lock_order(c.users.iter().copied()) } else { Vec::new() };
        let sent = self.rules.clock.now();
        let rows = self
            .query_behind(
                (&self.texts.rotate_lock, &[&users, &c.ids]),
                (
                    &self.texts.rotate,
                    &[
                        &c.ids,
                        &c.bases,
                        &c.base_times,
                        &c.successors,
                        &c.users,
                        &c.arrives,
                        &c.expires_at,
                        &c.expires_in,
                        &c.idle_limited,
                        &c.regroup,
                        &c.group_ids,
                        &c.graces,
                        &c.packed,
                        &c.spills,
                        &c.items.of,
                        &c.items.keys,
                        &c.items.texts,
                        &c.items.expires_at,
                    ],
                ),
            )
            .await?;
        same_length(&rows, turns.len())?;
        if let Some(row) = rows.last() {
            self.observe_clock(sent, time(row, "now").map_err(unexpected)?);
        }
        let outcomes = rows.iter().zip(turns).map(|(row, turn)| outcome(row, turn));
        outcomes.collect::<Result<_, _>>().map_err(unexpected)
    }
}

fn outcome(row: &SqlRow, turn: &Turn<'_>) -> Result<Rotated, tokio_postgres::Error> {
    if let Some(version) = row.try_get::<_, Option<i64>>("version")? {
        return Ok(Rotated::Done(Box::new(successor(row, turn, Version::new(version))?)));
    }
    if !row.try_get::<_, bool>("live")? {
        return Ok(Rotated::NotFound);
    }
    if row.try_get("rotated")? {
        return Ok(Rotated::Before { found: Version::new(row.try_get("found")?) });
    }
    Ok(if row.try_get("moved")? { Rotated::Moved } else { Rotated::Refused })
}

fn successor(row: &SqlRow, turn: &Turn<'_>, version: Version) -> Result<Successor, tokio_postgres::Error> {
    let idle_limited: bool = row.try_get("idle_limited")?;
    let left: Vec<i64> = row.try_get::<_, Option<_>>("left_versions")?.unwrap_or_default();
    let left = ids(row, "remnants")?.into_iter().zip(left.into_iter().map(Version::new));
    let ended = ids(row, "ended")?.into_iter().map(|id| (id, Version::DELETED));
    Ok(Successor {
        row: Row {
            id: turn.successor,
            user_id: turn.user_id,
            group_id: row.try_get::<_, Option<Uuid>>("group_id")?.map(GroupId::from),
            version,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
            expires_at: time(row, "expires_at")?,
            idle_limit: if idle_limited { IdleLimit::Enforced } else { IdleLimit::Exempt },
            rotated: false,
        },
        last_accessed_at: time(row, "last_accessed_at")?,
        remnants: left.chain(ended).collect(),
        evicted: ids(row, "evicted")?,
    })
}

/// An aggregate of ids; of none it is NULL.
fn ids(row: &SqlRow, column: &str) -> Result<Vec<SessionId>, tokio_postgres::Error> {
    let ids: Vec<Uuid> = row.try_get::<_, Option<_>>(column)?.unwrap_or_default();
    Ok(ids.into_iter().map(SessionId::from_uuid).collect())
}
