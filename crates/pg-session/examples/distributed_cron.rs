//! A job that every node starts at the same time and one carries out: the lock says who, and the job's own table says
//! whether it has been done.
//!
//! ```text
//! cargo run --example distributed_cron                     # on a private PostgreSQL that goes away again
//! cargo run --example distributed_cron -- postgres://…     # on yours: makes the tables in the schema example_distributed_cron
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, LockError, Migrations, SessionManager};

type Trouble = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Trouble> {
    // Alive until the end of `main`, if no server was given.
    let (url, _sandbox) = match std::env::args().nth(1) {
        Some(url) => (url, None),
        None => {
            let sandbox = Sandbox::start()?;
            (sandbox.url(), Some(sandbox))
        }
    };
    let mut config = Config::default();
    config.schema = "example_distributed_cron".to_owned();
    config.migrations = Migrations::Apply;

    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(SessionManager::connect(&url, config.clone()).await?);
    }
    let reports = Reports::default();
    for night in ["monday", "tuesday"] {
        // Midnight strikes on all nodes.
        let runs = nodes.iter().enumerate().map(|(number, node)| {
            tokio::spawn(midnight(node.clone(), format!("node {number}"), night, reports.clone()))
        });
        let mut sent = 0;
        for run in runs.collect::<Vec<_>>() {
            sent += usize::from(run.await??);
        }
        println!("{night}: the report was sent {sent} time by {} nodes", nodes.len());
    }
    println!("the lock is free: {}", nodes[0].locks().holder("nightly-report").await?.is_none());
    Ok(())
}

/// Whether this node sent the report. One that comes late finds the work done: a lock keeps two from working at once, not
/// from working one after the other.
async fn midnight(
    node: SessionManager,
    name: String,
    night: &'static str,
    reports: Reports,
) -> Result<bool, Trouble> {
    let lock = node.locks().lock("nightly-report").label(&name).lease(Duration::from_secs(30));
    let lease = match lock.wait(Duration::from_secs(10)).await {
        Ok(lease) => lease,
        Err(LockError::Held { .. }) => return Ok(false), // another node still runs the job
        Err(error) => return Err(error.into()),
    };
    let is_new = reports.send(night);
    lease.release().await?;
    Ok(is_new)
}

/// Represents the table of reports that were sent.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<BTreeSet<&'static str>>>);

impl Reports {
    fn send(&self, night: &'static str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(night)
    }
}
