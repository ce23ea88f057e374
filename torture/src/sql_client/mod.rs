//! The SQL client: a process that uses the SQL contract beside the nodes, as a service in another language does. It creates,
//! changes and ends sessions with functions and by hand, and rolls a part of that back.
//!
//! Its answers show no attributes: what it wrote is what the nodes' reads have to show.

mod connection;
mod listener;
mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::history::{self, Journal, Op, SQL_CLIENT};
use crate::node::{Word, say};
use crate::plan::NodePlan;
use crate::rng::Rng;
use crate::slots::Slots;

/// They make about half of all changes.
const WORKERS: u64 = 12;

/// What all tasks of the SQL client share.
struct SqlClient {
    plan: NodePlan,
    journal: Journal,
    slots: Slots,
    rng: Rng,
    operations: AtomicU64,
    /// A session on no place. All its changes are rolled back.
    unchanged: Mutex<Option<Uuid>>,
}

impl SqlClient {
    fn next_op(&self) -> Op {
        history::op(SQL_CLIENT, self.plan.incarnation, self.operations.fetch_add(1, Ordering::Relaxed))
    }

    fn unchanged(&self) -> Option<Uuid> {
        *self.unchanged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_unchanged(&self, session: Option<Uuid>) {
        *self.unchanged.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }
}

/// Runs until the standard input ends.
pub async fn run(plan: NodePlan) -> Result<()> {
    let process = history::process_of(history::op(SQL_CLIENT, plan.incarnation, 0));
    let sql_client = Arc::new(SqlClient {
        journal: Journal::create(&plan.dir, process).context("the history cannot be made")?,
        slots: Slots::open(&plan.dir).context("the file of the slots cannot be opened")?,
        rng: Rng::new(plan.seed).fork(process),
        operations: AtomicU64::new(0),
        unchanged: Mutex::new(None),
        plan,
    });
    say(&Word::Ready);
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(listener::run(Arc::clone(&sql_client), stopped.clone()));
    for number in 0..WORKERS {
        tasks.spawn(worker::run(Arc::clone(&sql_client), number, stopped.clone()));
    }
    // Its end is the order to end; nothing is ever sent.
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    ended.await?.context("the standard input cannot be read")?;
    stop.send_replace(true);
    while let Some(task) = tasks.join_next().await {
        task.context("a worker has panicked")?;
    }
    say(&Word::Ended(String::new()));
    Ok(())
}
