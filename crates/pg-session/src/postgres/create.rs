//! Creates sessions, many at a time, and keeps each user's number of sessions: one statement.
//!
//! I7: [`make_room`] admits the users or not, before the first row is inserted.

use std::collections::HashMap;
use std::time::SystemTime;

use quick_cache::DefaultHashBuilder;
use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::admission::{evicted, is_admitted, make_room, sorted};
use super::failure::Failure;
use super::load::time;
use super::parameters::{FLAGS, IDS, NUMBERS, Parameters, TEXTS, TIMES};
use super::update::{Items, columns_of};
use super::{Database, Dialect, LIBRARY, LIFTED, Sql, unexpected};
use crate::clock::DbTime;
use crate::id::{GroupId, SessionId, UserId};
use crate::label::Labels;
use crate::notification::ServerId;
use crate::session::IdleLimit;
use crate::session::attributes::{Attributes, Writes};
use crate::session::request::NewSession;

/// The outcome of one create.
#[derive(Debug)]
pub(crate) enum Created {
    Made {
        created_at: DbTime,
        expires_at: DbTime,
        /// The user's sessions that were deleted to make room, with their retired ids.
        evicted: Vec<SessionId>,
    },
    /// The user has as many live sessions as the configuration allows.
    Refused,
}

/// For sessions without overflow attributes and labels: nearly every create.
pub(super) fn sql(dialect: &Dialect<'_>) -> Sql {
    let mut parameters = Parameters::default();
    let inserted = inserted(dialect, &mut parameters, "has_overflow", "false");
    let room = room(dialect, &mut parameters);
    Sql { text: format!("WITH {room} {inserted}"), types: parameters.types }
}

/// For sessions with overflow attributes or labels, and those that leave with them.
pub(super) fn full_sql(dialect: &Dialect<'_>) -> Sql {
    let (attributes, labels) = (dialect.names.attributes(), dialect.names.labels());
    let mut parameters = Parameters::default();
    let inserted = inserted(
        dialect,
        &mut parameters,
        "has_overflow, has_labels",
        "b.id IN (SELECT i.id FROM item i), b.id IN (SELECT l.id FROM label l)",
    );
    let room = room(dialect, &mut parameters);
    let items = parameters.unnest(&[IDS, TEXTS, TEXTS, TIMES]);
    let new_labels = parameters.unnest(&[IDS, TEXTS]);
    Sql {
        text: format!(
            "WITH {room}, item AS MATERIALIZED (
                 SELECT * FROM {items} AS i (id, key, text, expires_at)
             ), label AS MATERIALIZED (
                 SELECT * FROM {new_labels} AS l (id, label)
             ), made AS ({inserted}
             ), written AS (
                 INSERT INTO {attributes} (session_id, key, value, expires_at, version)
                 SELECT m.id, i.key, i.text, i.expires_at, 1 FROM made m JOIN item i ON i.id = m.id
             ), labelled AS (
                 INSERT INTO {labels} (session_id, label)
                 SELECT m.id, l.label FROM made m JOIN label l ON l.id = m.id
             )
             SELECT m.id, m.created_at, m.expires_at, m.evicted, m.server FROM made m"
        ),
        types: parameters.types,
    }
}

fn room(dialect: &Dialect<'_>, parameters: &mut Parameters) -> String {
    let (users, limits) = (parameters.opaque_array(&IDS), parameters.opaque_array(&NUMBERS));
    let arrivals = format!("SELECT {users}, {limits}, '{{}}'::pg_catalog.uuid[]");
    format!("room AS MATERIALIZED ({})", make_room(dialect, &arrivals))
}

/// Inserts the sessions of those users that are admitted. `OFFSET 0`: the clock is read once for each session.
///
/// Notifies about those whose id was known before: nodes may remember that there is no such session. See `cache::ended`.
/// `evicted` comes first: it evaluates `room`, which locks the last rows.
fn inserted(dialect: &Dialect<'_>, parameters: &mut Parameters, flags: &str, values: &str) -> String {
    let (sessions, now, server) = (dialect.names.sessions(), dialect.now, dialect.server_id());
    let channel = dialect.channel();
    let new_sessions = parameters.unnest(&[IDS, IDS, IDS, TIMES, NUMBERS, FLAGS, TEXTS]);
    let known = parameters.any(&IDS);
    let (admitted, evicted) = (is_admitted("b.user_id"), evicted("s.user_id"));
    format!(
        "INSERT INTO {sessions} AS s
             (id, user_id, group_id, version, idle_limited, created_at, updated_at, last_accessed_at, expires_at,
              attributes, {flags})
         SELECT b.id, b.user_id, b.group_id, 1, b.idle_limited, b.now, b.now, b.now,
                COALESCE(b.expires_at, b.now + b.expires_in::pg_catalog.float8 * interval '1 microsecond'),
                COALESCE(b.attributes, '{{}}'), {values}
         FROM (SELECT b.*, {now} AS now FROM {new_sessions}
               AS b (id, user_id, group_id, expires_at, expires_in, idle_limited, attributes)
               WHERE {admitted} OFFSET 0) b
         WHERE {LIBRARY}
         RETURNING s.id, s.created_at, s.expires_at, {evicted} AS evicted, {server} AS server,
                   CASE WHEN s.id = {known} THEN {LIFTED} AND pg_catalog.pg_notify(
                       '{channel}', '1s' || pg_catalog.replace(s.id::pg_catalog.text, '-', '') || '.1') IS NULL
                   END AS notified"
    )
}

/// Labels as columns, with the ids of their sessions.
pub(super) fn label_columns<'a>(
    sessions: impl Iterator<Item = (SessionId, &'a Labels)>,
) -> (Vec<Uuid>, Vec<&'a str>) {
    sessions.flat_map(|(id, labels)| labels.iter().map(move |label| (id.expose(), label))).unzip()
}

impl Database {
    /// Creates the sessions and reports on each, in order. If their number is limited: at most one for each user. With the
    /// server, if any was created.
    pub(crate) async fn create(
        &self,
        new_sessions: &[&NewSession],
        attributes: &[Attributes],
    ) -> Result<(Vec<Created>, Option<ServerId>), Failure> {
        let none = Attributes::default();
        let writes: Vec<Writes<'_>> = attributes.iter().map(|after| Writes::new(&none, after)).collect();
        let mut items = Items::default();
        for (new_session, writes) in new_sessions.iter().zip(&writes) {
            writes.set.iter().for_each(|attribute| items.push(new_session.id, attribute));
        }
        let inline: Vec<Option<&str>> = writes.iter().map(|writes| writes.inline).collect();
        let ids: Vec<Uuid> = new_sessions.iter().map(|new_session| new_session.id.expose()).collect();
        let users: Vec<Option<Uuid>> =
            new_sessions.iter().map(|new_session| new_session.user_id.map(UserId::as_uuid)).collect();
        let limits = new_sessions.iter().filter_map(|new_session| {
            Some((new_session.user_id?.as_uuid(), new_session.sessions_max(self.sessions_max)?.into()))
        });
        let (limited_users, limits) = sorted(limits.collect());
        let groups: Vec<Option<Uuid>> =
            new_sessions.iter().map(|new_session| new_session.group_id.map(GroupId::as_uuid)).collect();
        let (at, after): (Vec<Option<SystemTime>>, Vec<Option<i64>>) =
            new_sessions.iter().map(|new_session| columns_of(Some(new_session.expiry))).unzip();
        let idle: Vec<bool> =
            new_sessions.iter().map(|new_session| new_session.idle_limit == IdleLimit::Enforced).collect();
        let known: Vec<Uuid> = new_sessions
            .iter()
            .filter(|new_session| new_session.is_id_known)
            .map(|new_session| new_session.id.expose())
            .collect();
        let labelled = new_sessions.iter().map(|new_session| (new_session.id, &new_session.labels));
        let (label_ids, labels) = label_columns(labelled);
        let params: [&(dyn ToSql + Sync); 16] = [
            &ids,
            &users,
            &groups,
            &at,
            &after,
            &idle,
            &inline,
            &known,
            &limited_users,
            &limits,
            &items.of,
            &items.keys,
            &items.texts,
            &items.expires_at,
            &label_ids,
            &labels,
        ];
        let (sql, params) = match items.of.is_empty() && labels.is_empty() {
            true => (&self.texts.create, &params[..10]),
            false => (&self.texts.create_in_full, &params[..]),
        };
        let sent = self.policy.clock.now();
        // SQL promises no order.
        let mut made: HashMap<Uuid, Created, DefaultHashBuilder> =
            HashMap::with_capacity_and_hasher(new_sessions.len(), DefaultHashBuilder::default());
        let mut newest: Option<DbTime> = None;
        let mut server = None;
        self.call(sql, params)
            .each(|row| {
                let (id, created_at, outcome) = outcome(&row).map_err(unexpected)?;
                newest = newest.max(Some(created_at));
                server = Some(ServerId(row.try_get(4).map_err(unexpected)?));
                made.insert(id, outcome);
                Ok(())
            })
            .await?;
        if let Some(created_at) = newest {
            self.observe_clock(sent, created_at);
        }
        let outcomes = new_sessions
            .iter()
            .map(|new_session| made.remove(&new_session.id.expose()).unwrap_or(Created::Refused));
        Ok((outcomes.collect(), server))
    }
}

fn outcome(row: &SqlRow) -> Result<(Uuid, DbTime, Created), tokio_postgres::Error> {
    let created_at = time(row, 1)?;
    let evicted: Vec<Uuid> = row.try_get::<_, Option<_>>(3)?.unwrap_or_default();
    let evicted = evicted.into_iter().map(SessionId::from_uuid).collect();
    Ok((row.try_get(0)?, created_at, Created::Made { created_at, expires_at: time(row, 2)?, evicted }))
}
