//! The processor time of PostgreSQL: of the processes that serve one database, and of those that serve all.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use tokio_postgres::Client;

use super::Database;

/// The processes to be looked at. Those that start later are not counted.
pub(crate) struct Usage {
    processes: Vec<i32>,
}

impl Usage {
    pub(crate) async fn of(database: &Database) -> anyhow::Result<Self> {
        let client: Client = database.client().await?;
        let text = "SELECT pid FROM pg_stat_activity
                    WHERE pid <> pg_backend_pid()
                        AND (datname = current_database() OR backend_type NOT IN ('client backend', 'autovacuum worker'))";
        let processes = client.query(text, &[]).await?.iter().map(|row| row.get(0)).collect();
        Ok(Self { processes })
    }

    /// What they have computed since they started, to the nanosecond, as the scheduler counts it.
    pub(crate) fn so_far(&self) -> anyhow::Result<Duration> {
        let computed = self.processes.iter().map(|process| {
            let path = format!("/proc/{process}/schedstat");
            let text = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
            let nanos = text.split_whitespace().next().context("an empty schedstat")?.parse()?;
            Ok(Duration::from_nanos(nanos))
        });
        computed.sum()
    }
}
