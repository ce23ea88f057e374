//! Ours: tables filled with sessions, and nodes that serve them through the public API.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use pg_session::{Config, Migrations, SessionId, SessionManager, UserId};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use uuid::Uuid;

use super::{Peer, Stored};
use crate::payload::{COUNTER, Payload};
use crate::servers::{Database, Servers};

/// Sessions that one statement fills in.
const CHUNK: usize = 20_000;
/// Longer than any run.
const LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// How long a node may take to end.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

/// The tables of one database, filled.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    pub(crate) database: Database,
    payload: Payload,
    pub(crate) ids: Arc<[SessionId]>,
}

impl Tables {
    /// Migrates a fresh database and fills in numbered sessions.
    pub(crate) async fn fill(servers: &Servers, payload: Payload, sessions: usize) -> anyhow::Result<Self> {
        let (database, pattern) = migrate(servers, payload).await?;
        let ids: Vec<Uuid> = (0..sessions).map(|_| Uuid::new_v4()).collect();
        let client = database.client().await?;
        client.batch_execute("SET pg_session.direct_writes = 'library'").await?;
        for chunk in ids.chunks(CHUNK) {
            // Each as the library wrote the first one.
            client
                .execute(
                    "WITH made AS (
                         INSERT INTO sessions (id, user_id, version, idle_limited, created_at, updated_at,
                                               last_accessed_at, expires_at, attributes, has_overflow)
                         SELECT u.id, gen_random_uuid(), s.version, s.idle_limited, s.created_at, s.updated_at,
                                s.last_accessed_at, s.expires_at, s.attributes, s.has_overflow
                         FROM unnest($1::uuid[]) AS u (id) CROSS JOIN sessions s WHERE s.id = $2
                         RETURNING id
                     )
                     INSERT INTO session_attributes (session_id, key, value, version)
                     SELECT m.id, a.key, a.value, a.version
                     FROM made m CROSS JOIN session_attributes a WHERE a.session_id = $2
                     ORDER BY m.id",
                    &[&chunk, &pattern],
                )
                .await?;
        }
        Self::ready(database, payload, &client, pattern, ids).await
    }

    /// As [`fill`](Tables::fill) with slim sessions, but the server makes them, in the order of their ids and before their
    /// indices. `numbered` of them have numbers, evenly spread.
    pub(crate) async fn fill_inside(
        servers: &Servers,
        sessions: usize,
        numbered: usize,
    ) -> anyhow::Result<Self> {
        let (database, pattern) = migrate(servers, Payload::Slim).await?;
        let client = database.client().await?;
        client
            .batch_execute(&format!(
                "SET pg_session.direct_writes = 'library'; SET synchronous_commit = off; SET work_mem = '1GB';
                 SET maintenance_work_mem = '1GB';
                 CREATE TEMPORARY TABLE indices AS SELECT indexdef FROM pg_indexes
                 WHERE tablename = 'sessions' AND indexname <> 'sessions_pkey';
                 DROP INDEX sessions_user_id_idx, sessions_group_id_idx, sessions_expires_at_idx, sessions_rotated_to_idx;
                 INSERT INTO sessions (id, user_id, version, idle_limited, created_at, updated_at,
                                       last_accessed_at, expires_at, attributes, has_overflow)
                 SELECT u.id, md5(u.id::text)::uuid, s.version, s.idle_limited, s.created_at, s.updated_at,
                        s.last_accessed_at, s.expires_at, s.attributes, s.has_overflow
                 FROM (SELECT md5(n::text)::uuid AS id FROM generate_series(1, {sessions}) n ORDER BY 1) u
                 CROSS JOIN sessions s WHERE s.id = '{pattern}';
                 DO $$ DECLARE i text; BEGIN FOR i IN SELECT indexdef FROM indices LOOP EXECUTE i; END LOOP; END $$"
            ))
            .await?;
        let every = i64::try_from(sessions / numbered)?;
        let text = "SELECT md5(n::text)::uuid FROM generate_series(1::bigint, $1, $2) n";
        let rows = client.query(text, &[&i64::try_from(sessions)?, &every]).await?;
        let ids = rows.iter().map(|row| row.get(0)).collect();
        Self::ready(database, Payload::Slim, &client, pattern, ids).await
    }

    async fn ready(
        database: Database,
        payload: Payload,
        client: &Client,
        pattern: Uuid,
        ids: Vec<Uuid>,
    ) -> anyhow::Result<Self> {
        client.execute("DELETE FROM sessions WHERE id = $1", &[&pattern]).await?;
        database.settle().await?;
        let ids = ids.into_iter().map(SessionId::from_uuid).collect();
        Ok(Self { database, payload, ids })
    }

    /// A node as applications run it, but that it has room in memory for every session here.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        // Its shards fill unevenly, small ones most of all: so much more, and nothing is evicted.
        config.cache_sessions_max = self.ids.len() + self.ids.len() / 8 + 512;
        config
    }

    pub(crate) async fn node(&self, config: Config) -> anyhow::Result<Node> {
        self.node_that_notifies(config, Notify::AfterCommit).await
    }

    pub(crate) async fn node_that_notifies(&self, config: Config, notify: Notify) -> anyhow::Result<Node> {
        let builder = SessionManager::builder(config).url(&self.database.url)?;
        let builder = match notify {
            Notify::Inside => builder.notify_inside_updates(),
            Notify::AfterCommit => builder,
        };
        Ok(Node { manager: builder.connect().await?, tables: self.clone() })
    }

    /// Leaves the sessions without an index by user or by end: no list of a user's sessions, no clean-up.
    pub(crate) async fn drop_indices(&self) -> anyhow::Result<()> {
        let client = self.database.client().await?;
        Ok(client.batch_execute("DROP INDEX sessions_user_id_idx, sessions_expires_at_idx").await?)
    }

    /// As [`node`](Tables::node), without the limit of sessions per user.
    pub(crate) async fn unlimited(&self) -> anyhow::Result<Node> {
        let mut config = self.config();
        config.sessions_per_user_max = 0;
        self.node(config).await
    }

    /// As [`node`](Tables::node), with combining switched off: each update is a statement and a commit of its own, on as
    /// many connections as there may be.
    pub(crate) async fn uncombined(&self) -> anyhow::Result<Node> {
        let mut config = self.config();
        config.write_batch_max = 1;
        config.write_concurrency = 16;
        config.pool_connections_max = super::pool::CONNECTIONS;
        self.node(config).await
    }
}

/// A fresh database with the tables and one session, the pattern of all.
async fn migrate(servers: &Servers, payload: Payload) -> anyhow::Result<(Database, Uuid)> {
    let database = servers.database().await?;
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let manager = SessionManager::connect(&database.url, config).await?;
    let mut pattern = manager.create(UserId::from(Uuid::new_v4())).expires_in(LIFETIME);
    for (key, value) in payload.attributes() {
        pattern = pattern.set(&key, &value);
    }
    let pattern = pattern.await?.id().expose();
    let report = manager.shutdown(WAIT_MAX).await;
    ensure!(report.is_complete(), "the node that migrated left something behind: {report:?}");
    Ok((database, pattern))
}

/// When the updates of a node notify the other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notify {
    /// In the transaction of the update.
    Inside,
    /// In a transaction of its own, behind the commit, if other commits notify as well: as applications run it.
    AfterCommit,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) manager: SessionManager,
    pub(crate) tables: Tables,
}

impl Node {
    /// Reads every session once, without counting as an access: nothing is left to be written afterwards.
    pub(crate) async fn fill_memory(&self) -> anyhow::Result<()> {
        const READERS: usize = 256;
        let mut readers = JoinSet::new();
        for reader in 0..READERS {
            let node = self.clone();
            readers.spawn(async move {
                for &id in node.tables.ids.iter().skip(reader).step_by(READERS) {
                    node.manager.get(id).no_touch().await?.context("a session is gone")?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(joined) = readers.join_next().await {
            joined??;
        }
        Ok(())
    }
}

#[async_trait]
impl Peer for Node {
    async fn warm(&self) -> anyhow::Result<()> {
        self.fill_memory().await
    }

    async fn read(&self, session: usize) -> anyhow::Result<()> {
        let session = self.manager.get(self.tables.ids[session]).await?;
        std::hint::black_box(session.context("a session is gone")?);
        Ok(())
    }

    /// What a request does: reads the session, changes an attribute, saves it.
    async fn update(&self, session: usize, count: u64) -> anyhow::Result<()> {
        let session = self.manager.get(self.tables.ids[session]).await?;
        let mut session = session.context("a session is gone")?;
        session.set(COUNTER, &self.tables.payload.counter(count))?;
        self.manager.save(&mut session).await?;
        Ok(())
    }

    /// For a new user each: what a login does.
    async fn create(&self) -> anyhow::Result<()> {
        let mut create = self.manager.create(UserId::from(Uuid::new_v4()));
        for (key, value) in self.tables.payload.attributes() {
            create = create.set(&key, &value);
        }
        std::hint::black_box(create.await?);
        Ok(())
    }

    async fn stored(&self) -> anyhow::Result<Vec<Stored>> {
        let client = self.tables.database.client().await?;
        let ids: Vec<Uuid> = self.tables.ids.iter().map(|id| id.expose()).collect();
        let rows = client
            .query(
                "SELECT s.version, COALESCE(s.attributes::json -> $2 ->> 0, a.value) AS value
                 FROM unnest($1::uuid[]) WITH ORDINALITY AS u (id, n)
                 JOIN sessions s ON s.id = u.id
                 LEFT JOIN session_attributes a ON s.has_overflow AND a.session_id = u.id AND a.key = $2
                 ORDER BY u.n",
                &[&ids, &COUNTER],
            )
            .await?;
        let stored = rows.iter().map(|row| {
            let (version, value): (i64, String) = (row.get(0), row.get(1));
            let count = value.trim_matches('"').parse()?;
            Ok(Stored { count, version: Some(u64::try_from(version)?) })
        });
        stored.collect()
    }

    async fn rows(&self) -> anyhow::Result<u64> {
        let client = self.tables.database.client().await?;
        let row = client.query_one("SELECT count(*) FROM sessions", &[]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0))?)
    }
}
