//! The floor under combined updates: what PostgreSQL alone makes of rows that are updated many at a time. Two connections, as
//! ours has statements in flight, and half of what is in flight in each statement; no tasks that wait for it, no memory to
//! keep, no checks, no notifications. It is a lower bound for every client that combines updates and waits for the flush.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::try_join_all;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::bare;
use crate::book::{Figures, Metric};
use crate::payload::Payload;
use crate::servers::{Database, Servers};

pub(super) const CONNECTIONS: usize = 2;

/// The bare table, filled, and the connections to it.
pub(crate) struct BareBatches {
    database: Database,
    connections: Vec<(Client, Statement)>,
    /// Sorted: one lock order.
    ids: Arc<[Uuid]>,
    payload: Payload,
    updates: AtomicU64,
}

impl BareBatches {
    pub(crate) async fn fill(servers: &Servers, payload: Payload, rows: usize) -> anyhow::Result<Self> {
        let (database, ids) = bare::filled(servers, payload, rows).await?;
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let client = database.client().await?;
            // Or each list would be planned for as if it were short.
            client.batch_execute("SET plan_cache_mode = force_generic_plan").await?;
            let statement = client
                .prepare(
                    "UPDATE bare b SET version = b.version + 1, value = c.value
                     FROM unnest($1::uuid[], $2::text[]) AS c (id, value) WHERE b.id = c.id",
                )
                .await?;
            connections.push((client, statement));
        }
        Ok(Self { database, connections, ids, payload, updates: AtomicU64::new(0) })
    }

    /// One turn.
    pub(crate) async fn drive(&self, in_flight: usize, span: Duration) -> anyhow::Result<Figures> {
        let batch = async |client: &Client, statement: &Statement, rows: usize, number: u64| {
            let mut rows = fastrand::choose_multiple(0..self.ids.len(), rows);
            rows.sort_unstable();
            let ids: Vec<Uuid> = rows.into_iter().map(|row| self.ids[row]).collect();
            let values: Vec<String> = ids.iter().map(|_| self.payload.counter(number)).collect();
            Ok(client.execute(statement, &[&ids, &values]).await?)
        };
        drive(&self.connections, &self.updates, in_flight, span, batch).await
    }

    /// Looks whether everything that was counted is there.
    pub(crate) async fn verify(&self) -> anyhow::Result<()> {
        let client = self.database.client().await?;
        let row = client.query_one("SELECT (sum(version) - count(*))::bigint FROM bare", &[]).await?;
        let (stored, counted) = (row.get::<_, i64>(0), self.updates.load(Ordering::Relaxed));
        ensure!(
            u64::try_from(stored) == Ok(counted),
            "{counted} updates were acknowledged, and the table holds {stored}"
        );
        Ok(())
    }
}

/// One turn of batches: on each connection one after the other, of what is in flight the connection's share of rows. `batch`
/// receives the number of rows, and how many were written on its connection before; what it says was written is counted.
pub(super) async fn drive(
    connections: &[(Client, Statement)],
    counted: &AtomicU64,
    in_flight: usize,
    span: Duration,
    batch: impl AsyncFn(&Client, &Statement, usize, u64) -> anyhow::Result<u64>,
) -> anyhow::Result<Figures> {
    let begun = Instant::now();
    let rows = (in_flight / connections.len()).max(1);
    let turns = connections.iter().map(async |(client, statement)| {
        let mut count = 0;
        while begun.elapsed() < span {
            count += batch(client, statement, rows, count).await?;
        }
        anyhow::Ok(count)
    });
    let count: u64 = try_join_all(turns).await?.into_iter().sum();
    counted.fetch_add(count, Ordering::Relaxed);
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let per_second = count as f64 / begun.elapsed().as_secs_f64();
    Ok(vec![(Metric::PerSecond, per_second)])
}
