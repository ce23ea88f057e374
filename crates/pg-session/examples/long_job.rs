//! A job that takes longer than its lease: the lease is renewed while it works, the job learns of a loss, and its
//! fence keeps a late write out.
//!
//! ```text
//! cargo run --example long_job                     # on a private PostgreSQL that goes away again
//! cargo run --example long_job -- postgres://…     # on yours: makes the tables in the schema example_long_job
//! ```

use std::error::Error;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, Fence, Lease, LockError, Migrations, SessionManager, UserId};

/// In production half a minute or more. The example is shorter.
const LEASE: Duration = Duration::from_secs(4);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Alive until the end of `main`, if no server was given.
    let (url, _sandbox) = match std::env::args().nth(1) {
        Some(url) => (url, None),
        None => {
            let sandbox = Sandbox::start()?;
            (sandbox.url(), Some(sandbox))
        }
    };
    let mut config = Config::default();
    config.schema = "example_long_job".to_owned();
    config.migrations = Migrations::Apply;
    let (a, b) =
        (SessionManager::connect(&url, config.clone()).await?, SessionManager::connect(&url, config).await?);

    let index = Index::default();

    // Twice as long as the lease. A task renews it each third of it; there is nothing to do here.
    let lease = a.locks().lock("rebuild-index").label("node a").lease(LEASE).await?;
    work(LEASE * 2).await;
    println!("after two leases the lock is held: {}", lease.is_held());
    println!("b would like to, but: {}", refusal(b.locks().try_lock("rebuild-index").await)?);

    // The next step is one that should survive a longer failure of the database.
    lease.extend(LEASE * 20).await?;
    println!("extended beyond ten leases: {}", lease.remaining() > LEASE * 10);
    println!("a writes: {}", index.write(lease.fence()));
    let late = lease.fence();
    lease.release().await?;

    let lease = b.locks().lock("rebuild-index").label("node b").lease(LEASE).await?;
    println!("b writes: {}", index.write(lease.fence()));
    println!("a once more, late: {}", index.write(late));
    lease.release().await?;

    // A lock of a session is lost with its session: the user logs out while an export of theirs is running.
    let id = a.create(UserId::named("ann")).await?.id();
    let lease = a.locks().session_lock(id, "export").lease(LEASE).await?;
    b.delete(id).await?;
    tokio::select! {
        () = work(LEASE * 60) => println!("the export is done"),
        loss = lease.lost() => println!("the export was stopped: {loss}"),
    }
    Ok(())
}

/// Represents work that takes its time.
async fn work(time: Duration) {
    tokio::time::sleep(time).await;
}

fn refusal(outcome: Result<Lease, LockError>) -> Result<LockError, Box<dyn Error>> {
    outcome.err().ok_or_else(|| "the lock was taken twice".into())
}

/// Represents what the lock protects. It refuses a fence that is lower than one it has seen.
#[derive(Default)]
struct Index(AtomicI64);

impl Index {
    fn write(&self, fence: Fence) -> &'static str {
        let highest = self.0.fetch_max(fence.get(), Ordering::SeqCst);
        if fence.get() >= highest { "accepted" } else { "refused, another holder has had the lock since" }
    }
}
