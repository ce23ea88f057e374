//! The floor under combined creates: what PostgreSQL alone makes of rows like ours that are inserted many at a time. Two
//! connections, as ours has statements in flight, and half of what is in flight in each statement; no tasks that wait for
//! it, no memory to keep, no limit to look up, nothing to be returned. It is a lower bound for every client that combines creates and waits for the flush.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::bare_batches::{CONNECTIONS, drive};
use super::ours::Tables;
use crate::book::Figures;
use crate::servers::Database;

/// Our table, filled, and the connections to it.
pub(crate) struct BareInserts {
    database: Database,
    connections: Vec<(Client, Statement)>,
    /// A fresh session's, as the library writes them.
    attributes: String,
    creates: AtomicU64,
    rows_before: i64,
}

impl BareInserts {
    pub(crate) async fn new(tables: &Tables) -> anyhow::Result<Self> {
        let database = tables.database.clone();
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let client = database.client().await?;
            client.batch_execute("SET pg_session.direct_writes = 'library'").await?;
            let statement = client
                .prepare(
                    "INSERT INTO sessions (id, user_id, version, idle_limited, created_at, updated_at, last_accessed_at,
                                           expires_at, attributes, has_overflow)
                     SELECT b.id, b.user_id, 1, true, now(), now(), now(), now() + interval '30 days', b.attributes, false
                     FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS b (id, user_id, attributes)",
                )
                .await?;
            connections.push((client, statement));
        }
        let client = database.client().await?;
        let attributes = client.query_one("SELECT attributes FROM sessions LIMIT 1", &[]).await?.get(0);
        let rows_before = rows(&client).await?;
        Ok(Self { database, connections, attributes, creates: AtomicU64::new(0), rows_before })
    }

    /// One turn.
    pub(crate) async fn drive(&self, in_flight: usize, span: Duration) -> anyhow::Result<Figures> {
        let batch = async |client: &Client, statement: &Statement, rows: usize, _: u64| {
            // One lock order in the index.
            let mut ids: Vec<Uuid> = (0..rows).map(|_| Uuid::new_v4()).collect();
            ids.sort_unstable();
            let users: Vec<Uuid> = ids.iter().map(|_| Uuid::new_v4()).collect();
            let attributes: Vec<&str> = ids.iter().map(|_| &*self.attributes).collect();
            Ok(client.execute(statement, &[&ids, &users, &attributes]).await?)
        };
        drive(&self.connections, &self.creates, in_flight, span, batch).await
    }

    /// Looks whether everything that was counted is there.
    pub(crate) async fn verify(&self) -> anyhow::Result<()> {
        let more = rows(&self.database.client().await?).await? - self.rows_before;
        let counted = self.creates.load(Ordering::Relaxed);
        ensure!(
            u64::try_from(more) == Ok(counted),
            "{counted} creates were acknowledged, and the table has {more} more rows"
        );
        Ok(())
    }
}

async fn rows(client: &Client) -> anyhow::Result<i64> {
    Ok(client.query_one("SELECT count(*) FROM sessions", &[]).await?.get(0))
}
