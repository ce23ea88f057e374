//! A node: one process with one `SessionManager`, and the clients that use it at random.
//!
//! On its standard output, it writes lines for the controller: ready, trusted, not trusted, and what its shutdown
//! left. It ends when its standard input does: by order, or because the controller is gone.

mod client;
mod locker;
mod meeting;
mod padded;
mod pinner;
mod pulse;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use pg_session::{Config, Migrations, SessionManager, StatementMode};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::client::focus;
use crate::history::{self, Journal, Op};
use crate::plan::{self, NodePlan, Removed};
use crate::rng::Rng;
use crate::slots::Slots;

/// How long a shutdown may take: longer than a statement.
const SHUTDOWN_MAX: Duration = Duration::from_secs(8);

/// What a node tells the controller.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Word {
    /// The node did not start, and why.
    Refused(String),
    /// It serves.
    Ready,
    Trusted(bool),
    /// It has ended in order, and this was left behind; empty if nothing was.
    Ended(String),
}

/// What all tasks of a node share.
pub struct Node {
    pub plan: NodePlan,
    pub manager: SessionManager,
    pub journal: Journal,
    pub slots: Slots,
    pub rng: Rng,
    operations: AtomicU64,
}

impl Node {
    pub fn next_op(&self) -> Op {
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        history::op(self.plan.node, self.plan.incarnation, number)
    }
}

/// Runs until the standard input ends.
pub async fn run(plan: NodePlan) -> Result<()> {
    let manager = match connect(&plan).await {
        Ok(manager) => manager,
        Err(error) => {
            say(&Word::Refused(format!("{error:?}")));
            return Ok(());
        }
    };
    if let Some(guard) = plan.without.and_then(Removed::guard) {
        manager.probes().remove(guard);
    }
    let process = history::process_of(history::op(plan.node, plan.incarnation, 0));
    let node = Arc::new(Node {
        journal: Journal::create(&plan.dir, process).context("the history cannot be made")?,
        slots: Slots::open(&plan.dir).context("the file of the slots cannot be opened")?,
        rng: Rng::new(plan.seed).fork(process),
        operations: AtomicU64::new(0),
        manager,
        plan,
    });
    say(&Word::Ready);
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(pulse::run(Arc::clone(&node), stopped.clone()));
    for number in 0..plan::CLIENTS {
        tasks.spawn(client::run(Arc::clone(&node), number, stopped.clone()));
    }
    for number in 0..plan::PINNERS {
        tasks.spawn(pinner::run(Arc::clone(&node), number, stopped.clone()));
    }
    tasks.spawn(meeting::run(Arc::clone(&node), stopped.clone()));
    for number in 0..plan::LOCKERS {
        tasks.spawn(locker::run(Arc::clone(&node), number, stopped.clone()));
    }
    // Its end is the order to end; nothing is ever sent.
    let ordered = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    ordered.await?.context("the standard input cannot be read")?;
    // The clients go on meanwhile: a shutdown has to cope with work in flight.
    let report = node.manager.shutdown(SHUTDOWN_MAX).await;
    stop.send_replace(true);
    while let Some(task) = tasks.join_next().await {
        task.context("a client has panicked")?;
    }
    // Reads went on to the end, so the accesses of the last milliseconds may be left; nothing else may.
    let is_complete = report.writes_left == 0 && report.locks_left == 0 && report.all_tasks_ended;
    say(&Word::Ended(if is_complete { String::new() } else { format!("{report:?}") }));
    Ok(())
}

async fn connect(plan: &NodePlan) -> Result<SessionManager, pg_session::Error> {
    let mut config = Config::default();
    plan::SCHEMA.clone_into(&mut config.schema);
    config.migrations = Migrations::Apply;
    config.trust_window = plan::TRUST_WINDOW;
    config.observed_hits_interval = 1;
    config.query_timeout = plan::QUERY_TIMEOUT;
    config.sessions_per_user_max = plan::SESSIONS_PER_USER_MAX;
    config.pool_connections_max = plan::POOL_CONNECTIONS;
    config.write_queue_max = plan::WRITE_QUEUE_MAX;
    config.load_queue_max = plan::LOAD_QUEUE_MAX;
    config.last_access_flush_interval = Duration::from_secs(2);
    config.cleanup_interval = Duration::from_secs(5);
    if plan.unnamed {
        config.statement_mode = StatementMode::Unnamed;
    }
    let listener: tokio_postgres::Config = plan.listener_url.parse().map_err(|_| unparsable())?;
    let builder = SessionManager::builder(config).url(&plan.pool_url)?.listen_on(listener);
    let builder = if plan.commits_first { builder.notify_after_updates() } else { builder };
    builder.connect().await
}

/// Only the controller makes these.
fn unparsable() -> pg_session::Error {
    unreachable!("the controller's URLs are well formed")
}

/// One line, at once: the controller waits for it.
#[allow(clippy::print_stdout, reason = "the standard output is how a node talks to the controller")]
pub fn say(word: &Word) {
    if let Ok(line) = serde_json::to_string(word) {
        println!("{line}");
    }
}
