//! PostgreSQL's queue of notifications, really full: no commit that notifies succeeds any more (SQLSTATE 54000).
//!
//! The queue reaches from its slowest reader to its newest entry. It is full at 8 GB, which PostgreSQL 16 and earlier
//! cannot change. Sleepers, listeners that never come to read, keep it so:
//!
//! ```text
//! sleeper  sleeper  sleeper                                        nodes
//!    |--1 %---|--1 %---|------------------- 8 GB --------------------|
//! ```
//!
//! All but the last percent is written once, before there are nodes that would have to read it. Then each fault writes
//! what is left, and ends with the slowest sleeper, who makes room for the next fault.

use std::collections::VecDeque;

use anyhow::{Result, ensure};
use tokio_postgres::Client;

use super::client::connect;
use crate::rng::Rng;

/// Notifications, of 8 kB each, between two sleepers, and in one transaction.
const STEP: i32 = 10_000;
/// Sleepers at the beginning. If a run has more faults than these, each of the further ones writes all of the 8 GB.
const SLEEPERS: usize = 16;
/// Transactions that fill any queue.
const STEPS_MAX: usize = 150;
/// Of `too many notifications in the NOTIFY queue`.
const FULL: &str = "54000";

/// A queue that is nearly full.
pub struct Queue {
    /// The slowest first.
    sleepers: VecDeque<Client>,
    /// Listens at the end: the next listener in this database begins at its position.
    _scout: Client,
}

impl Queue {
    /// Fills it but for the last step. Takes the better part of a minute, and 8 GB of the server's disk.
    pub async fn fill(url: &str) -> Result<Self> {
        let writer = connect(url).await?;
        let mut sleepers = VecDeque::new();
        for _ in 0..SLEEPERS {
            sleepers.push_back(fall_asleep(url).await?);
            write(&writer, STEP).await?;
        }
        write_until_full(&writer).await?;
        let scout = connect(url).await?;
        scout.batch_execute("LISTEN torture_scout").await?;
        drop(sleepers.pop_front());
        // The server forgets what all have read only when a client writes, which no client can, or asks.
        while write(&writer, 1).await.is_err() {
            writer.batch_execute("SELECT pg_notification_queue_usage()").await?;
        }
        Ok(Self { sleepers, _scout: scout })
    }

    /// Fills the rest, leaves it so for a while, and ends the slowest sleeper: nothing else. The nodes have to find out that
    /// there is room again.
    pub async fn overflow(&mut self, url: &str, rng: &mut Rng) -> Result<()> {
        let sleeper = match self.sleepers.pop_front() {
            Some(sleeper) => sleeper,
            None => fall_asleep(url).await?,
        };
        let writer = connect(url).await?;
        write_until_full(&writer).await?;
        tokio::time::sleep(rng.millis(2_000, 4_000)).await;
        ensure!(write(&writer, 1).await.is_err(), "the queue did not stay full");
        drop(sleeper);
        Ok(())
    }
}

/// A listener in an open transaction reads nothing.
async fn fall_asleep(url: &str) -> Result<Client> {
    let sleeper = connect(url).await?;
    sleeper.batch_execute("LISTEN torture_sleeper").await?;
    sleeper.batch_execute("BEGIN").await?;
    sleeper.batch_execute("SELECT 1").await?;
    Ok(sleeper)
}

async fn write_until_full(writer: &Client) -> Result<()> {
    // Large steps, then smaller ones: one that does not fit leaves what did fit behind, and takes room as well.
    for _ in 0..STEPS_MAX {
        let Err(error) = write(writer, STEP).await else { continue };
        ensure!(error.code().is_some_and(|code| code.code() == FULL), "the queue cannot be filled: {error}");
        while write(writer, 1).await.is_ok() {}
        return Ok(());
    }
    anyhow::bail!("the queue did not become full")
}

async fn write(writer: &Client, notifications: i32) -> Result<(), tokio_postgres::Error> {
    let write = "SELECT count(pg_notify('torture_unread', repeat('.', 7980) || n)) FROM generate_series(1, $1::integer) n";
    writer.execute(write, &[&notifications]).await?;
    Ok(())
}
