//! The registry of nodes: beats, ticks, requests and their acknowledgement. See `invalidation::proof` and `everywhere`.
//!
//! The table is UNLOGGED, so a beat waits for no flush. A crash or a failover empties it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::failure::Failure;
use super::load::time;
use super::names::literal;
use super::parameters::{IDS, NUMBERS, Parameters};
use super::statement::query;
use super::{Database, Dialect, ON_PRIMARY, Sql, interval, same_length, unexpected};
use crate::clock::DbTime;
use crate::notification::{ServerId, TICK_TOKENS_MAX, Token};
use crate::retry::EVERYWHERE;

/// Nodes that one listing shows.
const DESCRIPTIONS_MAX: u32 = 10_000;

/// What a node writes into its row.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    pub(crate) node: Uuid,
    /// Grows with each beat.
    pub(crate) number: i64,
    pub(crate) token: Token,
    /// The last requests that were handled.
    pub(crate) heard: Vec<i64>,
    /// Whether to notify every node of all tokens.
    pub(crate) tick: bool,
    /// How long ago the node lost its listener, if it has none.
    pub(crate) listener_lost: Option<Duration>,
    /// The library's version.
    pub(crate) version: &'static str,
    /// As JSON, those that all nodes must share.
    pub(crate) settings: Arc<str>,
    /// As JSON, a list of [`KeyUse`](crate::signing::KeyUse).
    pub(crate) keys: String,
}

/// The answer to a beat.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    pub(crate) server: ServerId,
    /// The beat that inserted the row. `None` if a later one has inserted it, and this one came late.
    pub(crate) first_beat: Option<i64>,
    /// All rows, if the beat has sent a tick.
    pub(crate) rows: Vec<NodeBeat>,
}

/// Which beat a node has sent last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NodeBeat {
    pub(crate) node: Uuid,
    pub(crate) beat: i64,
}

/// A row of the registry, for people.
#[derive(Clone, Debug)]
pub(crate) struct NodeDescription {
    pub(crate) node: Uuid,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) settings: String,
    pub(crate) keys: String,
    pub(crate) registered_at: DbTime,
    pub(crate) listener_lost_at: Option<DbTime>,
}

/// A row of the registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeRow {
    pub(crate) node: Uuid,
    pub(crate) first_beat: i64,
    /// Whether the node has handled the request.
    pub(crate) heard: bool,
    /// Whether it has no listener. It is not trusted, nor are its pins: see `invalidation::proof`.
    pub(crate) listener_lost: bool,
    pub(crate) server: ServerId,
}

/// The tick lists the tokens of the snapshot, and the own one of this beat.
///
/// A beat that comes late, or twice, changes nothing: `beat` grows.
pub(super) fn beat_sql(dialect: &Dialect<'_>) -> Sql {
    let (nodes, channel, server) = (dialect.names.nodes(), dialect.channel(), dialect.server_id());
    let visible = dialect.visible();
    let mut parameters = Parameters::default();
    let node = parameters.scalar(&Type::UUID);
    let beat = parameters.scalar(&Type::INT8);
    let token = parameters.scalar(&Type::INT8);
    let heard = parameters.opaque_array(&NUMBERS);
    let tick = parameters.scalar(&Type::BOOL);
    let (version, settings) = (parameters.scalar(&Type::TEXT), parameters.scalar(&Type::TEXT));
    let listener_lost = parameters.scalar(&Type::FLOAT8);
    let keys = parameters.scalar(&Type::TEXT);
    let now = dialect.now;
    Sql {
        text: format!(
            "WITH own AS (
                 INSERT INTO {nodes} AS n (node, first_beat, beat, token, heard, name, version, settings, registered_at, listener_lost_at, keys)
                 VALUES ({node}, {beat}, {beat}, {token}, {heard},
                         pg_catalog.concat_ws(' ', NULLIF(pg_catalog.current_setting('application_name'), ''),
                                              pg_catalog.host(pg_catalog.inet_client_addr())),
                         {version}, {settings}, {now}, {now} - pg_catalog.make_interval(secs => {listener_lost}), {keys})
                 ON CONFLICT (node) DO UPDATE
                 SET beat = EXCLUDED.beat, token = EXCLUDED.token, heard = EXCLUDED.heard,
                     listener_lost_at = EXCLUDED.listener_lost_at, keys = EXCLUDED.keys
                 WHERE n.beat < EXCLUDED.beat
                 RETURNING n.node, n.first_beat, n.beat, n.token
             ), rows AS MATERIALIZED (
                 SELECT o.node, o.beat, o.token FROM own o WHERE {tick}
                 UNION ALL
                 SELECT n.node, n.beat, n.token FROM {nodes} n
                 WHERE {tick} AND (n.node <> {node} OR NOT EXISTS (SELECT FROM own))
             ), ticks AS MATERIALIZED (
                 SELECT pg_catalog.pg_notify('{channel}', '1t' || pg_catalog.to_hex({server}) || '.'
                            || pg_catalog.string_agg(pg_catalog.to_hex(p.token), ','))
                 FROM (SELECT r.token, (pg_catalog.row_number() OVER () - 1) / {TICK_TOKENS_MAX} AS part FROM rows r) p
                 GROUP BY p.part
             )
             SELECT {server} AS server, {visible} AS visible, {now} AS now,
                    COALESCE((SELECT o.first_beat FROM own o), (SELECT n.first_beat FROM {nodes} n WHERE n.node = {node}))
                        AS first_beat,
                    (SELECT pg_catalog.count(*) FROM ticks) AS ticks,
                    (SELECT pg_catalog.array_agg(r.node) FROM rows r) AS nodes,
                    (SELECT pg_catalog.array_agg(r.beat) FROM rows r) AS beats"
        ),
        types: parameters.types,
    }
}

/// A beat of a node that has a row and a listener, and sends no tick: to say what was handled. It has no row if there is none,
/// or if a later beat was written.
pub(super) fn acknowledge_sql(dialect: &Dialect<'_>) -> Sql {
    let (nodes, server, visible, now) =
        (dialect.names.nodes(), dialect.server_id(), dialect.visible(), dialect.now);
    Sql {
        text: format!(
            "UPDATE {nodes} n SET beat = $2, heard = $3, listener_lost_at = NULL WHERE n.node = $1 AND n.beat < $2
             RETURNING n.first_beat, {server} AS server, {visible} AS visible, {now} AS now"
        ),
        types: vec![Type::UUID, Type::INT8, Type::INT8_ARRAY],
    }
}

pub(super) fn request_sql(dialect: &Dialect<'_>) -> Sql {
    let (channel, server) = (dialect.channel(), dialect.server_id());
    Sql {
        text: format!(
            "SELECT pg_catalog.pg_notify('{channel}', '1r' || pg_catalog.to_hex($1)), {server} AS server"
        ),
        types: vec![Type::INT8],
    }
}

pub(super) fn rows_sql(dialect: &Dialect<'_>) -> Sql {
    let nodes = dialect.names.nodes();
    let (visible, server) = (dialect.visible(), dialect.server_id());
    Sql {
        text: format!(
            "SELECT n.node, n.first_beat, $1 = ANY (n.heard) AS heard, n.listener_lost_at IS NOT NULL AS listener_lost,
                    {server} AS server, {visible} AS visible
             FROM {nodes} n WHERE {ON_PRIMARY}"
        ),
        types: vec![Type::INT8],
    }
}

pub(super) fn descriptions_sql(dialect: &Dialect<'_>) -> Sql {
    let (nodes, visible) = (dialect.names.nodes(), dialect.visible());
    Sql {
        text: format!(
            "SELECT n.node, n.name, n.version, n.settings, n.registered_at, n.listener_lost_at, n.keys, {visible} AS visible
             FROM {nodes} n WHERE {ON_PRIMARY} ORDER BY n.registered_at, n.node LIMIT {DESCRIPTIONS_MAX}"
        ),
        types: vec![],
    }
}

/// Removes rows, and asks every node to verify what it has in memory. A node that ended between the
/// commit of an update and its notification owes that notification.
///
/// Not while an update runs that began before the node fell silent. It may be one of that node, and commit after the others have
/// verified. Statements of other roles cannot be seen.
pub(super) fn remove_sql(dialect: &Dialect<'_>) -> Sql {
    let (nodes, channel) = (dialect.names.nodes(), dialect.channel());
    let names = dialect.names;
    let procedures = [names.update_one(), names.update(), names.update_in_full()];
    let running: Vec<String> = procedures
        .iter()
        .map(|name| format!("pg_catalog.starts_with(a.query, {})", literal(&format!("CALL {name}("))))
        .collect();
    let (running, age) = (running.join(" OR "), interval(dialect.config.trust_window / 2));
    let mut parameters = Parameters::default();
    let silent = parameters.unnest(&[IDS, NUMBERS]);
    Sql {
        text: format!(
            "WITH removed AS (
                 DELETE FROM {nodes} n USING {silent} AS s (node, beat) WHERE n.node = s.node AND n.beat = s.beat
                     AND NOT EXISTS (
                         SELECT FROM pg_catalog.pg_stat_activity a
                         WHERE a.state = 'active' AND a.usename = CURRENT_USER AND a.datname = pg_catalog.current_database()
                             AND a.query_start < pg_catalog.clock_timestamp() - {age} AND ({running})
                     )
                 RETURNING n.node
             )
             SELECT pg_catalog.pg_notify('{channel}', '1v') WHERE EXISTS (SELECT FROM removed)"
        ),
        types: parameters.types,
    }
}

pub(super) fn leave_sql(dialect: &Dialect<'_>) -> Sql {
    let nodes = dialect.names.nodes();
    Sql { text: format!("DELETE FROM {nodes} n WHERE n.node = $1"), types: vec![Type::UUID] }
}

impl Database {
    /// Writes the node's row, and sends a tick if it is due. A beat that is sent twice changes nothing the second time, so a
    /// lost connection is no failure: the next one is tried.
    pub(crate) async fn beat(&self, beat: &Beat, timeout: Duration) -> Result<Registered, Failure> {
        let Beat { node, number, token, heard, tick, version, settings, listener_lost, keys } = beat;
        let settings = &**settings;
        let listener_lost = listener_lost.as_ref().map(Duration::as_secs_f64);
        let sent = self.policy.clock.now();
        let rows = self
            .call(
                &self.texts.beat,
                &[node, number, &token.0, heard, tick, version, &settings, &listener_lost, keys],
            )
            .within(timeout)
            .repeatable()
            .rows()
            .await;
        if rows.as_ref().is_err_and(Failure::is_queue_full) {
            self.clear_queue(timeout).await;
        }
        let rows = rows?;
        same_length(&rows, 1)?;
        let row = &rows[0];
        let registered = || {
            // A node that is asked for nothing else learns of a step of the database's clock, too.
            self.observe_clock(sent, time(row, "now")?);
            let nodes: Option<Vec<Uuid>> = row.try_get("nodes")?;
            let beats: Option<Vec<i64>> = row.try_get("beats")?;
            let rows = nodes.into_iter().flatten().zip(beats.into_iter().flatten());
            Ok::<_, tokio_postgres::Error>(Registered {
                server: ServerId(row.try_get("server")?),
                first_beat: row.try_get("first_beat")?,
                rows: rows.map(|(node, beat)| NodeBeat { node, beat }).collect(),
            })
        };
        registered().map_err(unexpected)
    }

    /// A beat that only says what was handled, while all callers of `everywhere()` wait for it. So its statement is the
    /// cheapest one; it writes a row that exists.
    pub(crate) async fn acknowledge(&self, beat: &Beat, timeout: Duration) -> Result<Registered, Failure> {
        let Beat { node, number, heard, .. } = beat;
        let sent = self.policy.clock.now();
        let rows = self
            .call(&self.texts.acknowledge, &[node, number, heard])
            .within(timeout)
            .repeatable()
            .rows()
            .await?;
        let Some(row) = rows.first() else { return self.beat(beat, timeout).await };
        let registered = || {
            self.observe_clock(sent, time(row, "now")?);
            Ok::<_, tokio_postgres::Error>(Registered {
                server: ServerId(row.try_get("server")?),
                first_beat: row.try_get("first_beat")?,
                rows: Vec::new(),
            })
        };
        registered().map_err(unexpected)
    }

    /// Lets PostgreSQL discard what every listener has read. It does so when a client notifies, which a full queue prevents,
    /// or asks how full the queue is. So the queue would stay full when the listener that held it up has gone.
    async fn clear_queue(&self, timeout: Duration) {
        let asked = self.bounded(timeout, async |connection| {
            let text = "SELECT pg_catalog.pg_notification_queue_usage()";
            query(connection, text, &[]).await
        });
        if let Err(failure) = asked.await {
            tracing::debug!(error = %failure.error, "the notification queue could not be cleared");
        }
    }

    /// Asks every node to write into its row that it has handled this.
    pub(crate) async fn request_acknowledgement(&self, request: Token) -> Result<ServerId, Failure> {
        let rows = self.call(&self.texts.request, &[&request.0]).repeatable().rows().await?;
        same_length(&rows, 1)?;
        Ok(ServerId(rows[0].try_get("server").map_err(unexpected)?))
    }

    /// The registry.
    pub(crate) async fn node_rows(&self, request: Token) -> Result<Vec<NodeRow>, Failure> {
        let rows = self.call(&self.texts.node_rows, &[&request.0]).repeatable().rows().await?;
        let rows = rows.iter().map(|row| {
            Ok::<_, tokio_postgres::Error>(NodeRow {
                node: row.try_get("node")?,
                first_beat: row.try_get("first_beat")?,
                heard: row.try_get("heard")?,
                listener_lost: row.try_get("listener_lost")?,
                server: ServerId(row.try_get("server")?),
            })
        });
        rows.collect::<Result<_, _>>().map_err(unexpected)
    }

    /// Asks all nodes, and shows `visit` each node that has answered or has no listener, again with each look. Returns
    /// when these are all.
    pub(crate) async fn ask_nodes(&self, mut visit: impl FnMut(&NodeRow)) -> Result<(), Failure> {
        let request = Token::random();
        self.request_acknowledgement(request).await?;
        let mut pause = EVERYWHERE.first;
        loop {
            let rows = self.node_rows(request).await?;
            let settled = rows.iter().filter(|row| row.heard || row.listener_lost);
            if settled.inspect(|row| visit(row)).count() == rows.len() {
                return Ok(());
            }
            sleep(pause).await;
            pause = EVERYWHERE.after(pause);
        }
    }

    /// The registry, for people.
    pub(crate) async fn node_descriptions(&self) -> Result<Vec<NodeDescription>, Failure> {
        let rows = self.call(&self.texts.node_descriptions, &[]).repeatable().rows().await?;
        let rows = rows.iter().map(|row| {
            Ok::<_, tokio_postgres::Error>(NodeDescription {
                node: row.try_get("node")?,
                name: row.try_get("name")?,
                version: row.try_get("version")?,
                settings: row.try_get("settings")?,
                keys: row.try_get("keys")?,
                registered_at: time(row, "registered_at")?,
                listener_lost_at: row.try_get::<_, Option<SystemTime>>("listener_lost_at")?.map(DbTime::from),
            })
        });
        rows.collect::<Result<_, _>>().map_err(unexpected)
    }

    /// Removes rows whose beats have not moved, and notifies all nodes of it.
    pub(crate) async fn remove_nodes(&self, silent: &[NodeBeat]) -> Result<(), Failure> {
        let nodes: Vec<Uuid> = silent.iter().map(|row| row.node).collect();
        let beats: Vec<i64> = silent.iter().map(|row| row.beat).collect();
        self.call(&self.texts.remove_nodes, &[&nodes, &beats]).rows().await.map(|_| ())
    }

    /// Removes the node's own row, after its trust has ended.
    pub(crate) async fn leave(&self, node: Uuid) -> Result<(), Failure> {
        self.call(&self.texts.leave, &[&node]).rows().await.map(|_| ())
    }
}
