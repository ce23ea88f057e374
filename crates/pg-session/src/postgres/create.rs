//! Creates sessions, many at a time, and keeps each user's number of sessions.
//!
//! I7: the limit is kept inside the create. An advisory lock per user is taken by a statement of its own, so that the
//! next statement's snapshot sees what the lock's previous holder committed. `BEGIN`, lock, create and `COMMIT`
//! travel together: one round trip, one flush.

use std::time::SystemTime;

use deadpool_postgres::Object;
use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::failure::Failure;
use super::load::time;
use super::notify::deleted;
use super::update::{Expiry, Items, columns_of};
use super::{Database, Dialect, Sql, same_length, unexpected};
use crate::clock::DbTime;
use crate::config::{SessionLimit, Statements};
use crate::id::{GroupId, SessionId, UserId};
use crate::session::IdleLimit;
use crate::session::changes::Changes;

/// One session to create.
pub(crate) struct Birth<'a> {
    pub(crate) id: SessionId,
    pub(crate) user_id: UserId,
    pub(crate) group_id: Option<GroupId>,
    pub(crate) expiry: Expiry,
    pub(crate) idle_limit: IdleLimit,
    pub(crate) attributes: &'a Changes,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Created {
    Made {
        created_at: DbTime,
        expires_at: DbTime,
        /// The user's sessions that had to go.
        evicted: Vec<SessionId>,
    },
    /// The user has all the sessions that the policy allows.
    Refused,
}

/// One lock for each user, in one order. The key is 64 bits of a hash: two users that collide only wait for each other.
pub(super) fn lock_sql(dialect: &Dialect<'_>) -> Sql {
    let channel = dialect.channel();
    Sql {
        text: format!(
            "SELECT count(pg_catalog.pg_advisory_xact_lock(k.key)) FROM (
                 SELECT DISTINCT pg_catalog.hashtextextended('{channel}' || u.id::text, 0) AS key
                 FROM unnest($1::uuid[]) AS u (id) ORDER BY key
             ) k"
        ),
        types: vec![Type::UUID_ARRAY],
    }
}

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let now = dialect.now;
    let Policy { held, doomed, allowed } = policy(dialect);
    let told = deleted(dialect, "SELECT id FROM evicted");
    Sql {
        text: format!(
            "WITH birth AS MATERIALIZED (
                 SELECT b.*, {now} AS now
                 FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::bigint[], $6::boolean[])
                 WITH ORDINALITY AS b (id, user_id, group_id, expires_at, expires_in, idle_limited, n)
             ), item AS MATERIALIZED (
                 SELECT * FROM unnest($7::bigint[], $8::text[], $9::text[], $10::timestamptz[])
                 AS i (n, key, text, expires_at)
             ), held AS MATERIALIZED ({held}
             ), doomed AS MATERIALIZED ({doomed}
             ), evicted AS (
                 DELETE FROM {sessions} s USING doomed d WHERE s.id = d.id RETURNING s.id, s.user_id
             ), made AS (
                 INSERT INTO {sessions} AS s
                     (id, user_id, group_id, version, idle_limited, created_at, updated_at, last_accessed_at, expires_at)
                 SELECT b.id, b.user_id, b.group_id, 1, b.idle_limited, b.now, b.now, b.now,
                        COALESCE(b.expires_at, b.now + b.expires_in * interval '1 microsecond')
                 FROM birth b WHERE {allowed}
                 RETURNING s.id, s.created_at, s.expires_at
             ), written AS (
                 INSERT INTO {attributes} (session_id, key, value, expires_at, version)
                 SELECT m.id, i.key, i.text, i.expires_at, 1
                 FROM made m JOIN birth b ON b.id = m.id JOIN item i ON i.n = b.n
             ), told AS MATERIALIZED ({told})
             SELECT m.created_at, m.expires_at, b.now,
                    COALESCE(v.ids, '{{}}') AS evicted
             FROM birth b
             LEFT JOIN made m ON m.id = b.id
             LEFT JOIN (SELECT e.user_id, array_agg(e.id) AS ids FROM evicted e GROUP BY e.user_id) v
                 ON v.user_id = b.user_id
             CROSS JOIN (SELECT count(*) FROM told) t
             ORDER BY b.n"
        ),
        types: vec![
            Type::UUID_ARRAY,
            Type::UUID_ARRAY,
            Type::UUID_ARRAY,
            Type::TIMESTAMPTZ_ARRAY,
            Type::INT8_ARRAY,
            Type::BOOL_ARRAY,
            Type::INT8_ARRAY,
            Type::TEXT_ARRAY,
            Type::TEXT_ARRAY,
            Type::TIMESTAMPTZ_ARRAY,
        ],
    }
}

/// The parts of the statement that keep the limit.
struct Policy {
    held: String,
    doomed: String,
    allowed: String,
}

fn policy(dialect: &Dialect<'_>) -> Policy {
    const NOBODY: &str = "SELECT NULL::uuid AS id, NULL::uuid AS user_id, 0::bigint AS rank WHERE false";
    let sessions = dialect.names.sessions();
    let live = dialect.live("s");
    let limit = dialect.config.max_sessions_per_user;
    if limit == 0 {
        return Policy { held: NOBODY.into(), doomed: "SELECT id FROM held".into(), allowed: "true".into() };
    }
    // One place is for the new session.
    let others = limit - 1;
    match dialect.config.session_limit {
        // Ranks every row of the user, the dead ones last. Counting only the living would let in one too many when a
        // touch that commits meanwhile keeps a session alive that this snapshot already calls idle.
        SessionLimit::EvictLeastRecentlyUsed => Policy {
            held: format!(
                "SELECT s.id, s.user_id,
                        row_number() OVER (PARTITION BY s.user_id ORDER BY {live} DESC, s.last_accessed_at DESC, s.id) AS rank
                 FROM {sessions} s WHERE s.user_id IN (SELECT b.user_id FROM birth b)"
            ),
            doomed: format!(
                "SELECT s.id FROM {sessions} s WHERE s.id IN (SELECT h.id FROM held h WHERE h.rank > {others})
                 ORDER BY s.id FOR UPDATE"
            ),
            allowed: "true".into(),
        },
        // Locks every row of the user and judges it afterwards, as it then is: for the same touch, which is waited for.
        SessionLimit::Refuse => Policy {
            held: format!(
                "SELECT s.id, s.user_id, {live} AS live FROM {sessions} s
                 WHERE s.user_id IN (SELECT b.user_id FROM birth b) ORDER BY s.id FOR NO KEY UPDATE"
            ),
            doomed: "SELECT id FROM held WHERE false".into(),
            allowed: format!(
                "b.user_id NOT IN (SELECT h.user_id FROM held h WHERE h.live GROUP BY h.user_id HAVING count(*) > {others})"
            ),
        },
    }
}

impl Database {
    /// Creates the sessions, at most one for each user if their number is limited, and reports on each, in their order.
    pub(crate) async fn create(&self, births: &[Birth<'_>], limited: bool) -> Result<Vec<Created>, Failure> {
        let mut items = Items::default();
        for (birth, n) in births.iter().zip(1_i64..) {
            items.push(n, birth.attributes, None);
        }
        let ids: Vec<Uuid> = births.iter().map(|birth| birth.id.expose()).collect();
        let users: Vec<Uuid> = births.iter().map(|birth| birth.user_id.as_uuid()).collect();
        let groups: Vec<Option<Uuid>> =
            births.iter().map(|birth| birth.group_id.map(GroupId::as_uuid)).collect();
        let (at, after): (Vec<Option<SystemTime>>, Vec<Option<i64>>) =
            births.iter().map(|birth| columns_of(Some(birth.expiry))).unzip();
        let idle: Vec<bool> = births.iter().map(|birth| birth.idle_limit == IdleLimit::Enforced).collect();
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 10] = [
            &ids,
            &users,
            &groups,
            &at,
            &after,
            &idle,
            &items.of,
            &items.keys,
            &items.texts,
            &items.expires_at,
        ];
        let sent = self.rules.clock.now();
        let rows = if limited {
            self.bounded(self.timeout, async |connection| self.locked(connection, &users, &params).await)
                .await?
        } else {
            self.query(&self.texts.create, &params).await?
        };
        same_length(&rows, births.len())?;
        if let Some(row) = rows.last() {
            self.observe_clock(sent, time(row, "now").map_err(unexpected)?);
        }
        rows.iter().map(outcome).collect::<Result<_, _>>().map_err(unexpected)
    }

    /// The create behind its users' locks, in one round trip.
    async fn locked(
        &self,
        connection: &Object,
        users: &Vec<Uuid>,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<SqlRow>, Failure> {
        if self.mode == Statements::Prepared {
            // Here, so that nothing has to be awaited between the four.
            self.prepare(connection, &self.texts.create_lock).await?;
            self.prepare(connection, &self.texts.create).await?;
        }
        let lock: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [users];
        // Each of the four is written when it is first polled, and `biased` polls them in this order; all answers are
        // awaited, so the connection is clean afterwards whichever of them failed.
        let (begun, locked, rows, committed) = tokio::join!(
            biased;
            connection.batch_execute("BEGIN"),
            self.send(connection, &self.texts.create_lock, &lock),
            self.send(connection, &self.texts.create, params),
            connection.batch_execute("COMMIT"),
        );
        begun.map_err(|error| Failure::of_statement(&error))?;
        locked?;
        let rows = rows?;
        committed.map_err(|error| Failure::of_statement(&error))?;
        Ok(rows)
    }
}

fn outcome(row: &SqlRow) -> Result<Created, tokio_postgres::Error> {
    let Some(created_at) = row.try_get::<_, Option<SystemTime>>("created_at")? else {
        return Ok(Created::Refused);
    };
    let evicted: Vec<Uuid> = row.try_get("evicted")?;
    Ok(Created::Made {
        created_at: created_at.into(),
        expires_at: time(row, "expires_at")?,
        evicted: evicted.into_iter().map(SessionId::from_uuid).collect(),
    })
}
