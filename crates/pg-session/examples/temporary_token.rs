//! A short-lived token for another service's API, kept in the session and shared by all nodes: fetched when there is none,
//! used while it lasts, gone a little before it ends.
//!
//! ```text
//! cargo run --example temporary_token                     # on a private PostgreSQL that goes away again
//! cargo run --example temporary_token -- postgres://…     # on yours: makes the tables in the schema example_temporary_token
//! ```

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, SessionId, SessionManager, UpdateError, UserId};

/// No request sets out with a token that ends on the way.
const MARGIN: Duration = Duration::from_millis(500);

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
    config.schema = "example_temporary_token".to_owned();
    config.migrations = Migrations::Apply;
    let (a, b) =
        (SessionManager::connect(&url, config.clone()).await?, SessionManager::connect(&url, config).await?);

    let bank = Bank::default();
    let id = a.create(UserId::named("ann")).await?.id();
    println!("a calls the bank with {}", token(&a, id, &bank).await?);
    println!("a calls again with {}", token(&a, id, &bank).await?);
    b.catch_up().await?; // the other node learns of it within milliseconds; here we want to be sure
    println!("b calls with {}", token(&b, id, &bank).await?);

    while a.get(id).await?.is_some_and(|session| session.contains("bank_token")) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("later, b calls with {}", token(&b, id, &bank).await?);
    println!("the bank was asked for {} tokens", bank.issued.load(Ordering::Relaxed));
    Ok(())
}

/// The token of this session, from memory if there is one.
async fn token(node: &SessionManager, id: SessionId, bank: &Bank) -> Result<String, Box<dyn Error>> {
    let mut session = node.get(id).await?.ok_or("logged out")?;
    if let Some(token) = session.get("bank_token")? {
        return Ok(token);
    }
    let (token, lives) = bank.issue();
    session.set_for("bank_token", &token, lives.saturating_sub(MARGIN))?;
    match node.save(&mut session).check_attributes().await {
        Ok(()) => Ok(token),
        // Another request fetched one meanwhile. Ours is as good, for this call.
        Err(UpdateError::Conflict { .. }) => Ok(token),
        Err(error) => Err(error.into()),
    }
}

/// Represents the API. Its tokens are secrets, which never leave the server: that is why they are in the session.
#[derive(Default)]
struct Bank {
    issued: AtomicU32,
}

impl Bank {
    fn issue(&self) -> (String, Duration) {
        (format!("token {}", self.issued.fetch_add(1, Ordering::Relaxed) + 1), Duration::from_secs(3))
    }
}
