//! A session's life on two nodes of an application: created on one, read from memory on both, changed, and ended.
//!
//! ```text
//! cargo run --example quickstart                       # on a private PostgreSQL that goes away again
//! cargo run --example quickstart -- postgres://…       # on yours: makes the tables in the schema session_example
//! ```

use std::error::Error;

use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, SessionManager, UserId};

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

    // Each node of an application makes one manager. Here, two of them live in one process.
    let mut config = Config::default();
    config.schema = "session_example".to_owned();
    config.migrations = Migrations::Apply;
    let a = SessionManager::connect(&url, config.clone()).await?;
    let b = SessionManager::connect(&url, config).await?;

    let mut session = a.create(UserId::from(42)).set("role", "admin").await?;
    let id = session.id();
    println!("a: created {id:?}, version {}", session.version());

    for _ in 0..2 {
        let session = b.get(id).await?.ok_or("the session lives")?;
        let role: Option<String> = session.get("role")?;
        let source = if session.is_from_cache() { "memory" } else { "the database" };
        println!("b: role is {}, read from {source}", role.as_deref().unwrap_or("unknown"));
    }

    session.set("role", "user")?;
    a.save(&mut session).await?;
    println!("a: changed the role, version {}", session.version());

    // The notification travels within milliseconds. A barrier makes sure that b has handled it.
    b.catch_up().await?;
    let seen = b.get(id).await?.ok_or("the session lives")?;
    println!("b: role is {}, version {}", seen.get::<String>("role")?.unwrap_or_default(), seen.version());

    a.delete(id).await?;
    b.catch_up().await?;
    println!(
        "b: after the logout on a, the session is {}",
        if b.get(id).await?.is_none() { "gone" } else { "there" }
    );

    let deadline = std::time::Duration::from_secs(5);
    let complete = a.shutdown(deadline).await.is_complete() & b.shutdown(deadline).await.is_complete();
    println!(
        "both nodes are down, {}",
        if complete { "nothing was left behind" } else { "some writes were left behind" }
    );
    Ok(())
}
