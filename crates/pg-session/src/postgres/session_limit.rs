//! How many sessions a user may have: the parts of a statement that let somebody in and keep the limit.
//!
//! I7: the limit is kept inside the statement, behind an advisory lock per user that was taken by a statement of its own
//! ([`lock_sql`]), so that this one's snapshot sees what the lock's previous holder committed. Who has room beyond doubt is let in
//! without that, by [`create_plain`](super::create_plain); the locks are the same.
//!
//! What a rotation left behind (`rotated_to`) is no session: it neither counts nor is chosen, and goes with the session
//! that it points at.

use uuid::Uuid;

use super::parameters::{IDS, Parameters};
use super::{Dialect, Sql};
use crate::config::SessionLimit;

/// One lock for each user, in their order in the list: see [`lock_order`]. The key is 64 bits of a hash: two users that collide
/// only wait for each other.
pub(super) fn lock_sql(dialect: &Dialect<'_>) -> Sql {
    let seed = lock_seed(dialect);
    let mut parameters = Parameters::default();
    let users = parameters.unnest(&[IDS]);
    Sql {
        text: format!(
            "SELECT pg_catalog.count(pg_catalog.pg_advisory_xact_lock(pg_catalog.uuid_hash_extended(u.id, {seed})))
             FROM {users} AS u (id)"
        ),
        types: parameters.types,
    }
}

/// What the keys of the users' locks are hashed with: schema and prefix have locks of their own.
pub(super) fn lock_seed(dialect: &Dialect<'_>) -> String {
    format!("pg_catalog.hashtextextended('{}', 0)", dialect.channel())
}

/// Those whose locks are to be taken: one order for all statements, so that no two wait for each other.
pub(super) fn lock_order(users: impl Iterator<Item = Option<Uuid>>) -> Vec<Uuid> {
    let mut users: Vec<Uuid> = users.flatten().collect();
    users.sort_unstable();
    users
}

/// The parts.
pub(super) struct Limit {
    /// Ends with `evicted (id, user_id)`, where `user_id` is the user who came in.
    pub(super) ctes: String,
    /// A query of the users who have all the sessions that they may have.
    pub(super) full: String,
}

/// `newcomers` is a query of the users who come in, each once, with one session. Their sessions are looked up for each of them,
/// see [`Dialect::remnants`].
pub(super) fn limit(dialect: &Dialect<'_>, newcomers: &str) -> Limit {
    let sessions = dialect.names.sessions();
    let Policy { held, surplus, full } = policy(dialect, newcomers);
    let remnants = dialect.remnants("p.id");
    let ctes = format!(
        "held AS MATERIALIZED ({held}
         ), surplus AS MATERIALIZED ({surplus}
         ), doomed AS MATERIALIZED (
             SELECT p.id, p.user_id FROM surplus p
             UNION ALL
             SELECT r.id, p.user_id FROM surplus p CROSS JOIN LATERAL ({remnants}) r
         ), locked AS MATERIALIZED (
             SELECT s.id FROM {sessions} s WHERE s.id = ANY (ARRAY (SELECT d.id FROM doomed d)) ORDER BY s.id FOR UPDATE
         ), gone AS (
             DELETE FROM {sessions} s WHERE s.id = ANY (ARRAY (SELECT l.id FROM locked l)) RETURNING s.id
         ), evicted AS MATERIALIZED (
             SELECT g.id, d.user_id FROM gone g JOIN doomed d ON d.id = g.id
         )"
    );
    Limit { ctes, full }
}

struct Policy {
    held: String,
    surplus: String,
    full: String,
}

fn policy(dialect: &Dialect<'_>, newcomers: &str) -> Policy {
    const NOBODY: &str = "SELECT NULL::pg_catalog.uuid AS id, NULL::pg_catalog.uuid AS user_id WHERE false";
    const NOTHING: &str = "SELECT h.id, h.user_id FROM held h WHERE false";
    const NO_USER: &str = "SELECT NULL::pg_catalog.uuid WHERE false";
    let sessions = dialect.names.sessions();
    let live = dialect.live("s");
    let limit = dialect.config.max_sessions_per_user;
    if limit == 0 {
        return Policy { held: NOBODY.into(), surplus: NOTHING.into(), full: NO_USER.into() };
    }
    // One place is for the new session.
    let others = limit - 1;
    match dialect.config.session_limit {
        // Ranks every row of the user, the dead ones last. Counting only the living would let in one too many when a
        // touch that commits meanwhile keeps a session alive that this snapshot already calls idle.
        SessionLimit::EvictLeastRecentlyUsed => Policy {
            held: format!(
                "SELECT s.id, s.user_id,
                        pg_catalog.row_number() OVER (PARTITION BY s.user_id ORDER BY {live} DESC, s.last_accessed_at DESC, s.id) AS rank
                 FROM ({newcomers}) u CROSS JOIN LATERAL (
                     SELECT s.* FROM {sessions} s WHERE s.user_id = u.user_id AND s.rotated_to IS NULL OFFSET 0
                 ) s"
            ),
            surplus: format!("SELECT h.id, h.user_id FROM held h WHERE h.rank > {others}"),
            full: NO_USER.into(),
        },
        // Locks every row of the user and judges it afterwards, as it then is: for the same touch, which is waited for.
        SessionLimit::Refuse => Policy {
            held: format!(
                "SELECT s.id, s.user_id, {live} AS live FROM {sessions} s
                 WHERE s.id = ANY (ARRAY (
                     SELECT h.id FROM ({newcomers}) u CROSS JOIN LATERAL (
                         SELECT h.id FROM {sessions} h WHERE h.user_id = u.user_id OFFSET 0
                     ) h
                 )) AND s.rotated_to IS NULL ORDER BY s.id FOR NO KEY UPDATE"
            ),
            surplus: NOTHING.into(),
            full: format!(
                "SELECT h.user_id FROM held h WHERE h.live GROUP BY h.user_id HAVING pg_catalog.count(*) > {others}"
            ),
        },
    }
}
