//! Creates sessions, many at a time, and keeps each user's number of sessions.
//!
//! I7: the limit is kept inside the create, behind a lock of its user; see `session_limit`. `BEGIN`, lock, create and
//! `COMMIT` travel together: one round trip, one flush.

use std::time::SystemTime;

use tokio_postgres::Row as SqlRow;
use uuid::Uuid;

use super::failure::Failure;
use super::load::time;
use super::notify::deleted;
use super::parameters::{FLAGS, IDS, NUMBERS, Parameters, TEXTS, TIMES};
use super::session_limit::{Limit, limit, lock_order};
use super::update::{Expiry, Items, columns_of};
use super::{Database, Dialect, Sql, same_length, unexpected};
use crate::clock::DbTime;
use crate::id::{GroupId, SessionId, UserId};
use crate::session::IdleLimit;
use crate::session::attributes::Writes;

/// One session to create.
pub(crate) struct Birth<'a> {
    pub(crate) id: SessionId,
    /// `None` for an anonymous session, which nothing limits the number of.
    pub(crate) user_id: Option<UserId>,
    pub(crate) group_id: Option<GroupId>,
    pub(crate) expiry: Expiry,
    pub(crate) idle_limit: IdleLimit,
    pub(crate) writes: Writes<'a>,
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
    /// The user may have as many sessions as are allowed, and was given none: to be created with `crowded`.
    Crowded,
}

pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let now = dialect.now;
    let Limit { ctes: limit, full } = limit(dialect, "SELECT b.user_id FROM birth b");
    let told = deleted(dialect, "SELECT id FROM evicted");
    let mut parameters = Parameters::default();
    let births = parameters.unnest(&[IDS, IDS, IDS, TIMES, NUMBERS, FLAGS, TEXTS, FLAGS]);
    let items = parameters.unnest(&[NUMBERS, TEXTS, TEXTS, TIMES]);
    Sql {
        text: format!(
            "WITH birth AS MATERIALIZED (
                 SELECT b.*, {now} AS now
                 FROM {births}
                 WITH ORDINALITY AS b (id, user_id, group_id, expires_at, expires_in, idle_limited, attributes, spills, n)
             ), item AS MATERIALIZED (
                 SELECT * FROM {items}
                 AS i (n, key, text, expires_at)
             ), {limit}, made AS (
                 INSERT INTO {sessions} AS s
                     (id, user_id, group_id, version, idle_limited, created_at, updated_at, last_accessed_at, expires_at,
                      attributes, spilled)
                 SELECT b.id, b.user_id, b.group_id, 1, b.idle_limited, b.now, b.now, b.now,
                        COALESCE(b.expires_at, b.now + b.expires_in::pg_catalog.float8 * interval '1 microsecond'),
                        COALESCE(b.attributes, '{{}}'), b.spills
                 FROM birth b WHERE (b.user_id IN ({full})) IS NOT TRUE
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
             LEFT JOIN (SELECT e.user_id, pg_catalog.array_agg(e.id) AS ids FROM evicted e GROUP BY e.user_id) v
                 ON v.user_id = b.user_id
             CROSS JOIN (SELECT pg_catalog.count(*) FROM told) t
             ORDER BY b.n"
        ),
        types: parameters.types,
    }
}

impl Database {
    /// Creates the sessions, at most one for each user if their number is limited, and reports on each, in their order.
    /// Unless they are called `crowded`, only what is sure to have room is.
    pub(crate) async fn create(
        &self,
        births: &[Birth<'_>],
        limited: bool,
        crowded: bool,
    ) -> Result<Vec<Created>, Failure> {
        let mut items = Items::default();
        for (birth, n) in births.iter().zip(1_i64..) {
            birth.writes.set.iter().for_each(|attribute| items.push(n, attribute));
        }
        let packed: Vec<Option<&str>> = births.iter().map(|birth| birth.writes.packed).collect();
        let spills: Vec<bool> = births.iter().map(|birth| !birth.writes.set.is_empty()).collect();
        let ids: Vec<Uuid> = births.iter().map(|birth| birth.id.expose()).collect();
        let users: Vec<Option<Uuid>> =
            births.iter().map(|birth| birth.user_id.map(UserId::as_uuid)).collect();
        let locked = limited.then(|| lock_order(users.iter().copied()));
        let groups: Vec<Option<Uuid>> =
            births.iter().map(|birth| birth.group_id.map(GroupId::as_uuid)).collect();
        let (at, after): (Vec<Option<SystemTime>>, Vec<Option<i64>>) =
            births.iter().map(|birth| columns_of(Some(birth.expiry))).unzip();
        let idle: Vec<bool> = births.iter().map(|birth| birth.idle_limit == IdleLimit::Enforced).collect();
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 12] = [
            &ids,
            &users,
            &groups,
            &at,
            &after,
            &idle,
            &packed,
            &spills,
            &items.of,
            &items.keys,
            &items.texts,
            &items.expires_at,
        ];
        if !crowded && items.of.is_empty() {
            return self.create_plain(births, locked.as_ref(), &params[..7]).await;
        }
        let sent = self.rules.clock.now();
        let rows = self.query_behind_users(locked.unwrap_or_default(), (&self.texts.create, &params)).await?;
        same_length(&rows, births.len())?;
        if let Some(row) = rows.last() {
            self.observe_clock(sent, time(row, "now").map_err(unexpected)?);
        }
        rows.iter().map(outcome).collect::<Result<_, _>>().map_err(unexpected)
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
