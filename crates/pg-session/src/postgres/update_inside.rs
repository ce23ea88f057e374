//! Updates that notify inside their transaction.
//!
//! The commit waits for all other commits that notify, and each of these for its flush. Another form commits first; see
//! [`update_call`](super::update_call).

use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::Type;

use super::load::time;
use super::parameters::{FLAGS, IDS, NUMBERS, Parameters, TEXTS, TIMES};
use super::{Dialect, LIBRARY, LIFTED, Sql};
use crate::session::request::Applied;

/// For one update that changes only inline attributes, without lists to be joined.
pub(super) fn one_sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let (visible, brief, server) = (dialect.visible(), dialect.wait_briefly(), dialect.server_id());
    let (now, live, channel) = (dialect.now, dialect.live("s"), dialect.channel());
    let mut parameters = Parameters::default();
    let [id, base, base_at, inline, notified] =
        [Type::UUID, Type::INT8, Type::TIMESTAMPTZ, Type::TEXT, Type::TEXT]
            .map(|scalar| parameters.scalar(&scalar));
    Sql {
        text: format!(
            "UPDATE {sessions} s
             SET version = s.version + 1, flip = NOT s.flip, attributes = COALESCE({inline}, s.attributes), updated_at = {now}
             WHERE s.id = {id} AND s.version = {base} AND s.updated_at = {base_at} AND s.rotated_to IS NULL AND {live} AND {visible} AND {brief}
             RETURNING 1::pg_catalog.int8, s.updated_at, s.expires_at, s.last_accessed_at, {server},
                       CASE WHEN {notified} IS NOT NULL AND {LIFTED} THEN pg_catalog.pg_notify('{channel}', {notified}) END"
        ),
        types: parameters.types,
    }
}

/// For updates that change only inline attributes.
pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let sessions = dialect.names.sessions();
    let (now, current) = (dialect.now, dialect.current("s"));
    let (visible, brief, server) = (dialect.visible(), dialect.wait_briefly(), dialect.server_id());
    let mut parameters = Parameters::default();
    let changes = parameters.unnest(&[IDS, NUMBERS, TIMES, TEXTS]);
    let notified = notified(dialect, &parameters.unnest(&[TEXTS]));
    Sql {
        text: format!(
            "WITH done AS (
                 UPDATE {sessions} s
                 SET version = s.version + 1, flip = NOT s.flip, attributes = COALESCE(c.attributes, s.attributes), updated_at = {now}
                 FROM {changes} WITH ORDINALITY AS c (id, base, base_at, attributes, n)
                 WHERE s.id = c.id AND s.version = c.base AND s.updated_at = c.base_at AND {current} AND {visible} AND {brief}
                 RETURNING c.n, s.updated_at, s.expires_at, s.last_accessed_at
             )
             SELECT d.n, d.updated_at, d.expires_at, d.last_accessed_at, {server}, ({notified})
             FROM done d WHERE (SELECT pg_catalog.count(*) FROM done) > 0"
        ),
        types: parameters.types,
    }
}

/// For any updates.
pub(super) fn full_sql(dialect: &Dialect<'_>) -> Sql {
    let (sessions, attributes) = (dialect.names.sessions(), dialect.names.attributes());
    let (now, current) = (dialect.now, dialect.current("s"));
    let (visible, brief, server) = (dialect.visible(), dialect.wait_briefly(), dialect.server_id());
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
                     flip = NOT s.flip,
                     attributes = COALESCE(c.attributes, s.attributes),
                     has_overflow = s.has_overflow OR c.has_overflow,
                     updated_at = {now},
                     expires_at = COALESCE(c.expires_at, {now} + c.expires_in::pg_catalog.float8 * interval '1 microsecond', s.expires_at),
                     idle_limited = COALESCE(c.idle_limited, s.idle_limited),
                     group_id = CASE WHEN c.regroup THEN c.group_id ELSE s.group_id END
                 FROM {changes} WITH ORDINALITY
                 AS c (id, base, base_at, attributes, has_overflow, expires_at, expires_in, idle_limited, regroup, group_id, n)
                 WHERE s.id = c.id AND s.version = c.base AND s.updated_at = c.base_at AND {current} AND {visible} AND {brief} AND {LIBRARY}
                 RETURNING c.n, s.id, s.version, s.updated_at, s.expires_at, s.last_accessed_at
             ), written AS ({written}
             ), removed AS (
                 DELETE FROM {attributes} a USING done d JOIN {removals} AS i (id, key) ON i.id = d.id
                 WHERE a.session_id = d.id AND a.key = i.key
                 RETURNING 1
             )
             SELECT d.n, d.updated_at, d.expires_at, d.last_accessed_at, {server}, ({notified})
             FROM done d
             WHERE (SELECT pg_catalog.count(*) FROM written) >= 0 AND (SELECT pg_catalog.count(*) FROM removed) >= 0"
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

/// Sends the payloads once, as the first row is returned. A subselect that refers to nothing
/// outside is carried out once for the statement. The first row is returned when every row is
/// written: a condition counts them before. It is carried out once, too. A join with the count would
/// be carried out for each row.
///
/// Notifies for every row. One that was not applied found a newer version, or nothing. So a node
/// that receives it drops nothing that is current.
fn notified(dialect: &Dialect<'_>, payloads: &str) -> String {
    let channel = dialect.channel();
    format!(
        "SELECT pg_catalog.count(pg_catalog.pg_notify('{channel}', p.payload)) FROM {payloads} AS p (payload) WHERE {LIFTED}"
    )
}

/// By position: looking columns up by their names took longer than decoding them.
pub(super) fn applied(row: &SqlRow) -> Result<(i64, Applied), tokio_postgres::Error> {
    let applied =
        Applied { updated_at: time(row, 1)?, expires_at: time(row, 2)?, last_accessed_at: time(row, 3)? };
    Ok((row.try_get(0)?, applied))
}
