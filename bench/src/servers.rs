//! The servers of a run: a private PostgreSQL as its package configures it, and a private Redis, twice.
//!
//! What makes them durable is not assumed but asked of the servers themselves, and is in the report.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use pg_sandbox::Sandbox;
use tokio_postgres::{Client, NoTls};

pub(crate) use self::listening::Arrivals;
pub(crate) use self::redis::{Listener, Persistence, Redis};
pub(crate) use self::usage::Usage;

mod listening;
mod redis;
mod usage;

/// More than PostgreSQL's default of 100, for pools of 32 beside several nodes, and for hundreds of listeners.
const MAX_CONNECTIONS: &str = "500";
/// Settings of PostgreSQL that the report shows; those of durability must be on.
const SHOWN: [&str; 8] = [
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "shared_buffers",
    "max_wal_size",
    "max_connections",
];

/// All servers. Dropping them ends them; so does the end of this process, however it ends.
#[derive(Debug)]
pub(crate) struct Servers {
    postgres: Sandbox,
    /// Databases that were made, and how many of them were dropped.
    made: AtomicUsize,
    dropped: AtomicUsize,
    pub(crate) settings: BTreeMap<String, String>,
    /// Where all servers have their directories: on one disk.
    pub(crate) directory: PathBuf,
    /// None if `redis-server` is not installed.
    pub(crate) redis: Option<Redises>,
}

/// The two Redises.
#[derive(Debug)]
pub(crate) struct Redises {
    /// `save ""`, no append-only file: nothing survives.
    pub(crate) volatile: Redis,
    /// `appendonly yes`, `appendfsync always`: as durable as a commit.
    pub(crate) durable: Redis,
}

impl Servers {
    /// # Errors
    /// If PostgreSQL is missing or not durable; if Redis is there and does not start or is not what it should be.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        eprintln!("starting PostgreSQL");
        let postgres = Sandbox::builder()
            .durable(true)
            .setting("max_connections", MAX_CONNECTIONS)
            .start()
            .context("PostgreSQL could not be started")?;
        let settings = settings_of(&postgres).await?;
        for durable in ["fsync", "synchronous_commit", "full_page_writes"] {
            let value = settings.get(durable).map_or("", String::as_str);
            ensure!(value == "on", "{durable} is {value:?}: this PostgreSQL is not durable");
        }
        // Beside the sandbox's own directory.
        let directory =
            postgres.socket_dir().ancestors().nth(2).context("the sandbox has no directory")?.to_owned();
        let redis = match redis::installed() {
            Some(version) => {
                eprintln!("starting Redis {version}, twice");
                let volatile = Redis::start(&directory, Persistence::None, &version).await?;
                let durable = Redis::start(&directory, Persistence::FsyncAlways, &version).await?;
                Some(Redises { volatile, durable })
            }
            None => {
                eprintln!("redis-server is not installed: its contenders and ratios are left out");
                None
            }
        };
        Ok(Self {
            postgres,
            made: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            settings,
            directory,
            redis,
        })
    }

    /// A fresh database: what is notified in another does not wake its listeners.
    pub(crate) async fn database(&self) -> anyhow::Result<Database> {
        let name = format!("bench_{}", self.made.fetch_add(1, Ordering::Relaxed));
        let admin = connect(&self.postgres.url()).await?;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        Ok(Database { url: format!("postgres://postgres@{}/{name}", self.postgres.addr()) })
    }

    /// Drops everything that was filled in. So no autovacuum, checkpoint or rewrite works on it during another
    /// contender's turn.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        let admin = connect(&self.postgres.url()).await?;
        let made = self.made.load(Ordering::Relaxed);
        for number in self.dropped.swap(made, Ordering::Relaxed)..made {
            admin.batch_execute(&format!("DROP DATABASE IF EXISTS bench_{number} WITH (FORCE)")).await?;
        }
        admin.batch_execute("CHECKPOINT").await?;
        if let Some(redis) = &self.redis {
            redis.volatile.clear().await?;
            redis.durable.clear().await?;
        }
        Ok(())
    }

    /// Ends everything and says if that failed.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        drop(self.redis);
        self.postgres.close().context("PostgreSQL could not be stopped")
    }
}

/// One database of the run.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) url: String,
}

/// How long a commit's flush takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flush {
    /// As long as the disk needs.
    Normal,
    /// Three milliseconds longer.
    Slow,
}

impl Database {
    /// For connections that are made from now on.
    pub(crate) async fn set_flush(&self, flush: Flush) -> anyhow::Result<()> {
        if flush == Flush::Normal {
            return Ok(());
        }
        let script = "DO $$ BEGIN
                EXECUTE pg_catalog.format('ALTER DATABASE %I SET commit_delay = 3000', current_database());
                EXECUTE pg_catalog.format('ALTER DATABASE %I SET commit_siblings = 0', current_database());
            END $$";
        Ok(self.client().await?.batch_execute(script).await?)
    }

    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        connect(&self.url).await
    }

    /// Statistics for the planner, and no checkpoint of what was just filled in within the next turns.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        let client = self.client().await?;
        client.batch_execute("VACUUM ANALYZE").await?;
        client.batch_execute("CHECKPOINT").await?;
        Ok(())
    }
}

/// A connection whose other half is driven by a task until it is dropped.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("no connection to PostgreSQL")?;
    tokio::spawn(async move {
        // At the end of a run the server ends its connections: clients with open requests get the error.
        let _ = connection.await;
    });
    Ok(client)
}

async fn settings_of(postgres: &Sandbox) -> anyhow::Result<BTreeMap<String, String>> {
    let client = connect(&postgres.url()).await?;
    let mut settings = BTreeMap::new();
    for name in SHOWN {
        let row = client.query_one(&format!("SHOW {name}"), &[]).await?;
        settings.insert(name.to_owned(), row.get(0));
    }
    Ok(settings)
}
