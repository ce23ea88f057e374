//! Locks in the database: each statement is a transaction of its own.
//!
//! The database's clock decides whether a lock is free. `{now}` moves within a statement and is
//! read after the row was locked. So a statement that had to wait judges by the time at which it
//! got the row.
//!
//! I8: a fence never decreases. Only an acquisition changes it, while it holds the row's lock: to the database's
//! clock in microseconds, and by at least one. Releasing and expiring leave the row where it is. The clock is for a
//! row that a restored backup or a failover sets back or loses. The next fence is above all earlier ones. A session's
//! row goes with its session, and an acquisition holds the session (`FOR KEY SHARE`) while it writes. It comes before
//! the end of the session, or finds it ended.
//!
//! Lock order: session, then lock, as the trigger of a delete has it.
//!
//! No statement waits for a locked row for longer than `row_lock_wait`: another client's transaction must not take all
//! connections of the pool. The caller repeats it; see `lock/blocked.rs`.

use std::time::{Duration, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::failure::Failure;
use super::load::time;
use super::notify::released;
use super::row_locks::NO_FLUSH;
use super::{Database, Dialect, Dialects, LIFTED, ON_PRIMARY, Sql, SqlForms, unexpected};
use crate::clock::DbTime;
use crate::id::SessionId;
use crate::lock_key::LockKey;
use crate::notification::released_payload;

/// The rows that a statement locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Needs {
    Lock,
    /// The session only for a lock of a session.
    SessionAndLock,
}

/// What became of an acquisition.
#[derive(Debug)]
pub(crate) enum Acquired {
    Taken {
        fence: i64,
    },
    /// Another holder's until then, unless renewed; `left` is counted by the database.
    Held {
        until: DbTime,
        left: Duration,
    },
    /// The session is unknown, has ended, or was rotated.
    SessionGone,
    /// Another transaction changed the row between snapshot and lock: nothing was written, try again.
    Moved,
}

/// What became of a release.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Freed {
    /// It was this owner's, and is free now.
    Live,
    /// It was this owner's last, but had expired before.
    Expired,
    /// It is not this owner's.
    NotOwned,
}

/// Who has a lock.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) label: Option<String>,
    pub(crate) fence: i64,
    pub(crate) since: DbTime,
    pub(crate) until: DbTime,
}

#[derive(Debug)]
pub(super) struct Texts {
    acquire: SqlForms,
    renew: SqlForms,
    release: SqlForms,
    holder: SqlForms,
    held: SqlForms,
    locked: SqlForms,
}

impl Texts {
    pub(super) fn new(dialects: &Dialects<'_>) -> Self {
        Self {
            acquire: dialects.sql(acquire),
            renew: dialects.sql(renew),
            release: dialects.sql(release),
            holder: dialects.sql(holder),
            held: dialects.sql(held),
            locked: dialects.sql(locked),
        }
    }
}

/// Trying again with the same owner is harmless: what was taken is kept, with its fence, and never shortened.
fn acquire(dialect: &Dialect<'_>) -> Sql {
    let (locks, sessions) = (dialect.names.locks(), dialect.names.sessions());
    let (live, visible) = (dialect.live("s"), dialect.visible());
    let (now, brief) = (dialect.now, dialect.wait_briefly());
    let clock = format!(
        "GREATEST(1, (pg_catalog.date_part('epoch', {now}) * 1000000::pg_catalog.float8)::pg_catalog.int8)"
    );
    Sql {
        text: format!(
            "WITH alive AS MATERIALIZED (
                 SELECT s.id FROM {sessions} s WHERE s.id = $1 AND s.rotated_to IS NULL AND {live} AND {visible} AND {brief}
                 FOR KEY SHARE
             ), taken AS (
                 INSERT INTO {locks} AS l (session_id, name, owner, label, fence, acquired_at, expires_at)
                 SELECT $1, $3, $4, $5, {clock}, {now}, {now} + $6::pg_catalog.float8 * interval '1 microsecond'
                 WHERE CASE WHEN {brief} THEN $1 IS NULL OR EXISTS (SELECT FROM alive) END
                 ON CONFLICT (scope, name) DO UPDATE
                 SET owner = EXCLUDED.owner,
                     label = EXCLUDED.label,
                     fence = CASE WHEN l.owner = EXCLUDED.owner THEN l.fence ELSE GREATEST(l.fence + 1, EXCLUDED.fence) END,
                     acquired_at = CASE WHEN l.owner = EXCLUDED.owner THEN l.acquired_at ELSE {now} END,
                     expires_at = GREATEST({now} + $6::pg_catalog.float8 * interval '1 microsecond',
                                           CASE WHEN l.owner = EXCLUDED.owner THEN l.expires_at END)
                 WHERE l.owner IS NULL OR l.owner = EXCLUDED.owner OR l.expires_at <= {now}
                 RETURNING l.fence
             )
             SELECT t.fence, h.expires_at AS held_until, ($1 IS NULL OR EXISTS (SELECT FROM alive)) AS alive,
                    {now} AS now, {visible} AS visible
             FROM (SELECT) o
             LEFT JOIN taken t ON true
             LEFT JOIN {locks} h ON h.scope = $2 AND h.name = $3 AND h.owner IS NOT NULL"
        ),
        types: vec![Type::UUID, Type::UUID, Type::TEXT, Type::UUID, Type::TEXT, Type::INT8],
    }
}

/// Never shortens: a renewal that was given up, and arrives late, must not end a lease before its holder knows.
///
/// Always a row, as below: without one, a policy that hides the lock would not be found.
fn renew(dialect: &Dialect<'_>) -> Sql {
    let (locks, sessions) = (dialect.names.locks(), dialect.names.sessions());
    let (live, visible) = (dialect.live("s"), dialect.visible());
    let (now, brief) = (dialect.now, dialect.wait_briefly());
    Sql {
        text: format!(
            "WITH renewed AS (
                 UPDATE {locks} l
                 SET expires_at = GREATEST(l.expires_at, {now} + $4::pg_catalog.float8 * interval '1 microsecond')
                 WHERE l.scope = $1 AND l.name = $2 AND l.owner = $3 AND l.expires_at > {now} AND {brief}
                   AND (l.session_id IS NULL
                        OR EXISTS (SELECT FROM {sessions} s WHERE s.id = l.session_id AND {live}))
                   AND {visible}
                 RETURNING l.fence
             )
             SELECT EXISTS (SELECT FROM renewed) AS renewed, {visible} AS visible"
        ),
        types: vec![Type::UUID, Type::TEXT, Type::UUID, Type::INT8],
    }
}

/// Notifies the waiters of every node, if there was something to free. The limit of the wait ends before.
fn release(dialect: &Dialect<'_>) -> Sql {
    let (locks, visible) = (dialect.names.locks(), dialect.visible());
    let (now, brief) = (dialect.now, dialect.wait_briefly());
    let notified = released(dialect, "$4", "freed");
    Sql {
        text: format!(
            "WITH held AS MATERIALIZED (
                 SELECT l.scope, l.name, l.expires_at > {now} AS live
                 FROM {locks} l WHERE l.scope = $1 AND l.name = $2 AND l.owner = $3 AND {visible} AND {brief}
                 FOR NO KEY UPDATE
             ), freed AS (
                 UPDATE {locks} l SET owner = NULL, expires_at = LEAST(l.expires_at, {now})
                 FROM held h WHERE l.scope = h.scope AND l.name = h.name
                 RETURNING h.live
             ), notified AS MATERIALIZED ({notified})
             SELECT f.live, {visible} AS visible
             FROM (SELECT pg_catalog.count(*) AS notified FROM notified OFFSET 0) t LEFT JOIN freed f ON true
             WHERE t.notified >= 0 AND {LIFTED}"
        ),
        types: vec![Type::UUID, Type::TEXT, Type::UUID, Type::TEXT],
    }
}

fn holder(dialect: &Dialect<'_>) -> Sql {
    let locks = dialect.names.locks();
    let now = dialect.now;
    let condition = format!("l.scope = $1 AND l.name = $2 AND l.owner IS NOT NULL AND l.expires_at > {now}");
    let from = dialect.read(&format!("(SELECT l.scope AS id, l.* FROM {locks} l)"), "l", &condition);
    Sql {
        text: format!("SELECT l.label, l.fence, l.acquired_at, l.expires_at {from}"),
        types: vec![Type::UUID, Type::TEXT],
    }
}

/// The held locks, the oldest first.
fn held(dialect: &Dialect<'_>) -> Sql {
    let (locks, visible) = (dialect.names.locks(), dialect.visible());
    let now = dialect.now;
    Sql {
        text: format!(
            "SELECT l.session_id, l.name, l.label, l.fence, l.acquired_at, l.expires_at FROM {locks} l
             WHERE l.owner IS NOT NULL AND l.expires_at > {now} AND {ON_PRIMARY} AND {visible}
             ORDER BY l.acquired_at LIMIT $1"
        ),
        types: vec![Type::INT8],
    }
}

/// Whether another transaction has locked the row of the session `$1`, if it is given, or of the lock. Waits for nothing.
fn locked(dialect: &Dialect<'_>) -> Sql {
    let (locks, sessions) = (dialect.names.locks(), dialect.names.sessions());
    Sql {
        text: format!(
            "WITH session AS MATERIALIZED (
                 SELECT s.id FROM {sessions} s WHERE s.id = $1 AND {NO_FLUSH} FOR KEY SHARE SKIP LOCKED
             ), lock AS MATERIALIZED (
                 SELECT l.scope FROM {locks} l WHERE l.scope = $2 AND l.name = $3 AND {NO_FLUSH}
                 FOR NO KEY UPDATE SKIP LOCKED
             )
             SELECT EXISTS (SELECT FROM {sessions} s WHERE s.id = $1) AND NOT EXISTS (SELECT FROM session)
                 OR EXISTS (SELECT FROM {locks} l WHERE l.scope = $2 AND l.name = $3) AND NOT EXISTS (SELECT FROM lock)"
        ),
        types: vec![Type::UUID, Type::UUID, Type::TEXT],
    }
}

impl Database {
    /// Whether another transaction has locked a row that a statement needs.
    pub(crate) async fn is_lock_blocked(&self, key: &LockKey, needs: Needs) -> Result<bool, Failure> {
        let session = key.session().map(SessionId::expose).filter(|_| needs == Needs::SessionAndLock);
        let (scope, name) = (key.scope(), key.name());
        let rows = self.call(&self.texts.locks.locked, &[&session, &scope, &name]).rows().await;
        let rows = rows.map_err(Failure::into_unsent_error)?;
        let row = rows.first().ok_or_else(|| unexpected("no row for a lock"))?;
        row.try_get(0).map_err(unexpected)
    }

    /// Takes the lock for `owner`, if it is free or already this owner's.
    pub(crate) async fn acquire_lock(
        &self,
        key: &LockKey,
        owner: Uuid,
        label: Option<&str>,
        lease: Duration,
    ) -> Result<Acquired, Failure> {
        let session = key.session().map(SessionId::expose);
        let (scope, name, lease) = (key.scope(), key.name(), micros(lease));
        let sent = self.policy.clock.now();
        let rows = self
            .call(&self.texts.locks.acquire, &[&session, &scope, &name, &owner, &label, &lease])
            .rows()
            .await?;
        let row = rows.first().ok_or_else(|| unexpected("no row for an acquisition"))?;
        let now = time(row, "now").map_err(unexpected)?;
        self.observe_clock(sent, now);
        if let Some(fence) = row.try_get("fence").map_err(unexpected)? {
            return Ok(Acquired::Taken { fence });
        }
        if !row.try_get::<_, bool>("alive").map_err(unexpected)? {
            return Ok(Acquired::SessionGone);
        }
        let until: Option<SystemTime> = row.try_get("held_until").map_err(unexpected)?;
        Ok(match until.map(DbTime::from) {
            Some(until) if until > now => Acquired::Held { until, left: until.since(now) },
            _ => Acquired::Moved,
        })
    }

    /// Makes the lease of `owner` last for `lease` from now, within `timeout`. Returns whether it still was this owner's.
    pub(crate) async fn renew_lock(
        &self,
        key: &LockKey,
        owner: Uuid,
        lease: Duration,
        timeout: Duration,
    ) -> Result<bool, Failure> {
        let (scope, name, lease) = (key.scope(), key.name(), micros(lease));
        let rows = self
            .call(&self.texts.locks.renew, &[&scope, &name, &owner, &lease])
            .within(timeout)
            .rows()
            .await?;
        rows.first().ok_or_else(|| unexpected("no row for a renewal"))?.try_get("renewed").map_err(unexpected)
    }

    /// Frees the lock, if it is `owner`'s, and notifies the waiters of every node.
    pub(crate) async fn release_lock(&self, key: &LockKey, owner: Uuid) -> Result<Freed, Failure> {
        let (scope, name, wake) = (key.scope(), key.name(), released_payload(key.topic()));
        let rows = self.call(&self.texts.locks.release, &[&scope, &name, &owner, &wake]).rows().await?;
        let row = rows.first().ok_or_else(|| unexpected("no row for a release"))?;
        let live: Option<bool> = row.try_get("live").map_err(unexpected)?;
        Ok(match live {
            Some(true) => Freed::Live,
            Some(false) => Freed::Expired,
            None => Freed::NotOwned,
        })
    }

    /// Who has the lock now.
    pub(crate) async fn lock_holder(&self, key: &LockKey) -> Result<Option<Holding>, Failure> {
        let (scope, name) = (key.scope(), key.name());
        let rows = self.call(&self.texts.locks.holder, &[&scope, &name]).repeatable().rows().await?;
        rows.first().map(holding).transpose().map_err(unexpected)
    }

    /// At most `count` held locks: the session, the name and the holder of each.
    pub(crate) async fn held_locks(
        &self,
        count: u32,
    ) -> Result<Vec<(Option<SessionId>, String, Holding)>, Failure> {
        let rows = self.call(&self.texts.locks.held, &[&i64::from(count)]).repeatable().rows().await?;
        let lock = |row: &Row| {
            let session: Option<Uuid> = row.try_get("session_id")?;
            Ok((session.map(SessionId::from_uuid), row.try_get("name")?, holding(row)?))
        };
        rows.iter().map(lock).collect::<Result<_, tokio_postgres::Error>>().map_err(unexpected)
    }
}

fn holding(row: &Row) -> Result<Holding, tokio_postgres::Error> {
    Ok(Holding {
        label: row.try_get("label")?,
        fence: row.try_get("fence")?,
        since: time(row, "acquired_at")?,
        until: time(row, "expires_at")?,
    })
}

fn micros(lease: Duration) -> i64 {
    i64::try_from(lease.as_micros()).unwrap_or(i64::MAX)
}
