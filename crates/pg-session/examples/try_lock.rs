//! Two tabs press "pay" at once: the second one gets an error instead of waiting. The lock belongs to the session, so other
//! users pay undisturbed.
//!
//! ```text
//! cargo run --example try_lock                     # on a private PostgreSQL that goes away again
//! cargo run --example try_lock -- postgres://…     # on yours: makes the tables in the schema example_try_lock
//! ```

use std::error::Error;

use pg_sandbox::Sandbox;
use pg_session::{Config, LockError, Migrations, SessionId, SessionManager, UserId};
use tokio::sync::oneshot;

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
    config.schema = "example_try_lock".to_owned();
    config.migrations = Migrations::Apply;
    let (a, b) =
        (SessionManager::connect(&url, config.clone()).await?, SessionManager::connect(&url, config).await?);
    let ann = a.create(UserId::named("ann")).await?.id();
    let bob = b.create(UserId::named("bob")).await?.id();

    // Ann's first tab is at the bank until `answer` is sent.
    let (answer, bank) = oneshot::channel();
    let (at_the_bank, arrived) = oneshot::channel();
    let first = {
        let a = a.clone();
        tokio::spawn(async move {
            pay(&a, ann, async {
                let _ = at_the_bank.send(()); // the receiver waits below
                bank.await.is_ok()
            })
            .await
        })
    };
    arrived.await?;
    println!("ann's second tab, on b: {}", pay(&b, ann, async { true }).await?);
    println!("bob: {}", pay(&b, bob, async { true }).await?);
    let _ = answer.send(()); // to the first tab, which waits for it
    println!("ann's first tab: {}", first.await??);
    println!("ann's second tab again: {}", pay(&b, ann, async { true }).await?);

    a.delete(ann).await?;
    println!("ann, logged out: {}", pay(&a, ann, async { true }).await?);
    Ok(())
}

/// One payment of a session at a time.
async fn pay(
    node: &SessionManager,
    id: SessionId,
    bank: impl Future<Output = bool>,
) -> Result<&'static str, LockError> {
    // Zero: do not wait. `Locks::try_lock` does the same for locks without a session.
    let lease = match node.locks().session_lock(id, "pay").wait(std::time::Duration::ZERO).await {
        Ok(lease) => lease,
        Err(LockError::Held { .. }) => return Ok("another tab is paying already"),
        Err(LockError::SessionGone) => return Ok("please log in"),
        Err(error) => return Err(error),
    };
    let paid = bank.await;
    lease.release().await?;
    Ok(if paid { "paid" } else { "the bank said no" })
}
