//! The floor under an update: one prepared statement that updates one row of one table and notifies, as a transaction of
//! its own. On one connection, or on a pool of them.

use std::sync::Arc;

use anyhow::bail;
use async_trait::async_trait;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::pool::Pool;
use super::{Peer, Stored};
use crate::payload::Payload;
use crate::servers::{Database, Servers};

/// Where the updates are notified. One connection listens, as each of our nodes does.
pub(crate) const CHANNEL: &str = "bare";

/// The bare table, filled, and the connections to it.
pub(crate) struct Bare {
    database: Database,
    pool: Pool<(Client, Statement)>,
    ids: Arc<[Uuid]>,
    payload: Payload,
    _listener: Client,
}

impl Bare {
    pub(crate) async fn fill(
        servers: &Servers,
        payload: Payload,
        sessions: usize,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let (database, ids) = filled(servers, payload, sessions).await?;
        let mut idle = Vec::with_capacity(connections);
        for _ in 0..connections {
            idle.push(prepared(&database).await?);
        }
        let listener = database.client().await?;
        listener.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
        Ok(Self { database, pool: Pool::of(idle), ids, payload, _listener: listener })
    }
}

/// A database with the bare table, and the ids of its rows, sorted.
pub(super) async fn filled(
    servers: &Servers,
    payload: Payload,
    rows: usize,
) -> anyhow::Result<(Database, Arc<[Uuid]>)> {
    let database = servers.database().await?;
    let admin = database.client().await?;
    admin
        .batch_execute(
            "CREATE TABLE bare (id uuid PRIMARY KEY, version bigint NOT NULL, value text NOT NULL)
             WITH (fillfactor = 70)",
        )
        .await?;
    let mut ids: Vec<Uuid> = (0..rows).map(|_| Uuid::new_v4()).collect();
    admin
        .execute(
            "INSERT INTO bare SELECT id, 1, $2 FROM unnest($1::uuid[]) AS id",
            &[&ids, &payload.counter(0)],
        )
        .await?;
    database.settle().await?;
    ids.sort_unstable();
    Ok((database, ids.into()))
}

async fn prepared(database: &Database) -> anyhow::Result<(Client, Statement)> {
    let client = database.client().await?;
    let statement = client
        .prepare(&format!(
            "WITH done AS (UPDATE bare SET version = version + 1, value = $2 WHERE id = $1 RETURNING id, version)
             SELECT pg_notify('{CHANNEL}', id || '.' || version) FROM done"
        ))
        .await?;
    Ok((client, statement))
}

#[async_trait]
impl Peer for Bare {
    async fn read(&self, _: usize) -> anyhow::Result<()> {
        bail!("the bare statement's reads are not measured")
    }

    async fn update(&self, session: usize, count: u64) -> anyhow::Result<()> {
        let value = self.payload.counter(count);
        let connection = self.pool.get().await?;
        let (client, statement) = &*connection;
        client.query_one(statement, &[&self.ids[session], &value]).await?;
        Ok(())
    }

    async fn stored(&self) -> anyhow::Result<Vec<Stored>> {
        let client = self.database.client().await?;
        let rows = client
            .query(
                "SELECT b.version, b.value FROM unnest($1::uuid[]) WITH ORDINALITY AS u (id, n)
                 JOIN bare b ON b.id = u.id ORDER BY u.n",
                &[&&*self.ids],
            )
            .await?;
        let stored = rows.iter().map(|row| {
            let version = u64::try_from(row.get::<_, i64>(0))?;
            Ok(Stored { count: row.get::<_, &str>(1).parse()?, version: Some(version) })
        });
        stored.collect()
    }

    async fn rows(&self) -> anyhow::Result<u64> {
        let client = self.database.client().await?;
        let row = client.query_one("SELECT count(*) FROM bare", &[]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0))?)
    }
}
