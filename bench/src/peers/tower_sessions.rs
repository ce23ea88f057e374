//! `tower-sessions-sqlx-store` through its own `SessionStore` trait: alone, and behind its moka cache as its
//! documentation shows. A session is one row; an update writes it whole.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use time::OffsetDateTime;
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::CachingSessionStore;
use tower_sessions_moka_store::MokaStore;
use tower_sessions_sqlx_store::PostgresStore;
use tower_sessions_sqlx_store::sqlx::postgres::PgPoolOptions;

use super::{Peer, Stored};
use crate::payload::{COUNTER, Payload};
use crate::servers::{Database, Servers};

/// As many connections as any pooled contender has; sqlx's default is 10.
const CONNECTIONS: u32 = 32;
/// Sessions that one statement fills in.
const CHUNK: usize = 20_000;

/// The store's table, filled.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    database: Database,
    store: PostgresStore,
    payload: Payload,
    ids: Arc<[Id]>,
}

impl Table {
    pub(crate) async fn fill(servers: &Servers, payload: Payload, sessions: usize) -> anyhow::Result<Self> {
        let database = servers.database().await?;
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(&database.url).await?;
        let store = PostgresStore::new(pool);
        store.migrate().await?;
        let ids: Arc<[Id]> = (0..sessions).map(|_| Id::default()).collect();
        let client = database.client().await?;
        for chunk in ids.chunks(CHUNK) {
            let keys: Vec<String> = chunk.iter().map(Id::to_string).collect();
            // The store's own encoding.
            let rows: Result<Vec<Vec<u8>>, _> =
                chunk.iter().map(|&id| rmp_serde::to_vec(&record(id, payload, 0))).collect();
            client
                .execute(
                    "INSERT INTO tower_sessions.session (id, data, expiry_date)
                     SELECT id, data, now() + interval '30 days' FROM unnest($1::text[], $2::bytea[]) AS s (id, data)",
                    &[&keys, &rows?],
                )
                .await?;
        }
        database.settle().await?;
        Ok(Self { database, store, payload, ids })
    }

    /// The store alone.
    pub(crate) fn plain(&self) -> TowerSessions<PostgresStore> {
        TowerSessions { table: self.clone(), store: self.store.clone() }
    }

    /// The store behind moka, with room for every session.
    pub(crate) fn cached(&self) -> TowerSessions<CachingSessionStore<MokaStore, PostgresStore>> {
        let moka = MokaStore::new(Some(self.ids.len() as u64 * 2));
        TowerSessions { table: self.clone(), store: CachingSessionStore::new(moka, self.store.clone()) }
    }
}

/// The store as a contender.
pub(crate) struct TowerSessions<S> {
    table: Table,
    store: S,
}

#[async_trait]
impl<S: SessionStore> Peer for TowerSessions<S> {
    async fn warm(&self) -> anyhow::Result<()> {
        for id in &*self.table.ids {
            self.store.load(id).await?.context("a session is gone")?;
        }
        Ok(())
    }

    async fn read(&self, session: usize) -> anyhow::Result<()> {
        let record = self.store.load(&self.table.ids[session]).await?.context("a session is gone")?;
        std::hint::black_box(record);
        Ok(())
    }

    async fn update(&self, session: usize, count: u64) -> anyhow::Result<()> {
        let record = record(self.table.ids[session], self.table.payload, count);
        Ok(self.store.save(&record).await?)
    }

    async fn create(&self) -> anyhow::Result<()> {
        Ok(self.store.create(&mut record(Id::default(), self.table.payload, 0)).await?)
    }

    async fn stored(&self) -> anyhow::Result<Vec<Stored>> {
        // The table's, not the cache's; and all at once, for a hundred thousand loads take as long as everything else.
        let client = self.table.database.client().await?;
        let rows = client.query("SELECT id, data FROM tower_sessions.session", &[]).await?;
        let data: HashMap<String, &[u8]> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let mut stored = Vec::with_capacity(self.table.ids.len());
        for id in &*self.table.ids {
            let data = data.get(&id.to_string()).context("a session is gone")?;
            let record: Record = rmp_serde::from_slice(data)?;
            let count = record.data.get(COUNTER).and_then(|value| value.as_str()).context("no counter")?;
            stored.push(Stored { count: count.parse()?, version: None });
        }
        Ok(stored)
    }

    async fn rows(&self) -> anyhow::Result<u64> {
        let client = self.table.database.client().await?;
        let row = client.query_one("SELECT count(*) FROM tower_sessions.session", &[]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0))?)
    }
}

fn record(id: Id, payload: Payload, count: u64) -> Record {
    let mut data: HashMap<String, serde_json::Value> =
        payload.attributes().into_iter().map(|(key, value)| (key, value.into())).collect();
    data.insert(COUNTER.to_owned(), payload.counter(count).into());
    Record { id, data, expiry_date: OffsetDateTime::now_utc() + time::Duration::days(30) }
}
