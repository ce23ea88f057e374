//! The session limit: a part of each statement that gives a user one more session.
//!
//! I7: the function `session_make_room` (`migrations/0001_initial.sql`) locks the users and then decides. Each of its
//! queries has its own snapshot, and sees the sessions of transactions that held the locks before. The locks end with
//! the statement. No transaction waits for the client while it holds them.

use uuid::Uuid;

use super::Dialect;
use crate::config::SessionLimit;

/// A query of the rows `(user_id, admitted, evicted)` of those users that are at their limit. `arrivals` is a query of the
/// parameters of the function: the users, their limits, and the sessions that are replaced. Without a user, the
/// function is not called. **A statement must evaluate it once**, before it inserts a session.
pub(super) fn make_room(dialect: &Dialect<'_>, arrivals: &str) -> String {
    let config = dialect.config;
    let (make_room, channel) = (dialect.names.make_room(), dialect.channel());
    let idle_timeout = super::interval(config.idle_timeout);
    // Without an eviction, only a create with a known id notifies.
    let brief = super::waits_at_most_until_deleted(&dialect.row_lock_wait(), "''");
    let evict = match config.on_session_limit {
        SessionLimit::EvictLeastRecentlyUsed => "true",
        SessionLimit::Refuse => "false",
    };
    format!(
        "SELECT r.user_id, r.admitted, r.evicted
         FROM ({arrivals}) AS a (users, sessions_max, replaced)
         CROSS JOIN LATERAL {make_room}(a.users, a.sessions_max, a.replaced, '{channel}', {evict}, {idle_timeout}) r
         WHERE pg_catalog.cardinality(a.users) > 0 AND {brief}"
    )
}

/// A condition: whether `user` may have one more session. `room` holds the rows of the query above.
///
/// `NOT IN` looks into a hash table, which is made from all rows of `room` before the first user is admitted.
pub(super) fn is_admitted(user: &str) -> String {
    format!("({user} IS NULL OR {user} NOT IN (SELECT r.user_id FROM room r WHERE NOT r.admitted))")
}

/// The sessions that were deleted for `user`, or NULL. Nearly always `room` is empty, and nothing is looked up.
pub(super) fn evicted(user: &str) -> String {
    format!(
        "CASE WHEN EXISTS (SELECT FROM room) THEN (SELECT r.evicted FROM room r WHERE r.user_id = {user}) END"
    )
}

/// What the users' locks are hashed with, as in the function.
pub(super) fn lock_seed(dialect: &Dialect<'_>) -> String {
    format!("pg_catalog.hashtextextended('{}', 0)", dialect.channel())
}

/// Users to lock, with the limit of each. They are sorted, so that no two statements wait for each
/// other, and each is there once.
pub(super) fn sorted(mut limits: Vec<(Uuid, i64)>) -> (Vec<Uuid>, Vec<i64>) {
    limits.sort_unstable();
    limits.dedup_by_key(|(user, _)| *user);
    limits.into_iter().unzip()
}
