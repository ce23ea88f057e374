//! One cart, many tabs, two nodes: read, change, save if no other request has changed it, otherwise again. And the same with
//! `modify`, which does so by itself.
//!
//! ```text
//! cargo run --example concurrent_cart                     # on a private PostgreSQL that goes away again
//! cargo run --example concurrent_cart -- postgres://…     # on yours: makes the tables in the schema example_concurrent_cart
//! ```

use std::error::Error;

use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, SessionId, SessionManager, UpdateError, UserId};

/// A click is tried so often before the shop says sorry.
const TRIES_MAX: u32 = 50;

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
    config.schema = "example_concurrent_cart".to_owned();
    config.migrations = Migrations::Apply;
    let (a, b) =
        (SessionManager::connect(&url, config.clone()).await?, SessionManager::connect(&url, config).await?);
    let id = a.create(UserId::named("ann")).set("theme", "light").await?.id();

    let mut tabs = Vec::new();
    for item in 0..10 {
        for node in [&a, &b] {
            tabs.push(tokio::spawn(add(node.clone(), id, item)));
        }
    }
    let mut refused = 0;
    for tab in tabs {
        refused += tab.await??;
    }
    println!("20 clicks at once, {} saved, each refused save was tried again", count(&a, id).await?);
    println!("refused because another tab was quicker: {refused} times");

    // The same, without a loop of our own. It reads again only after a conflict.
    let session = a.modify(id, |session| {
        let mut cart: Vec<u32> = session.get("cart")?.unwrap_or_default();
        cart.retain(|&item| item < 5);
        session.set("cart", &cart)
    });
    println!(
        "after taking half of it out: {}",
        session.await?.get::<Vec<u32>>("cart")?.unwrap_or_default().len()
    );
    Ok(())
}

/// Adds an item to the cart, and says how often that was refused. Only the attributes that it changes are compared: a
/// new theme in another tab does not refuse it.
async fn add(node: SessionManager, id: SessionId, item: u32) -> Result<u32, Trouble> {
    for refused in 0..TRIES_MAX {
        let mut session = node.get(id).await?.ok_or("logged out")?;
        let mut cart: Vec<u32> = session.get("cart")?.unwrap_or_default();
        cart.push(item);
        session.set("cart", &cart)?;
        match node.save(&mut session).check_attributes().await {
            Ok(()) => return Ok(refused),
            Err(UpdateError::Conflict { .. }) => {} // the next `get` shows what the other one saved
            Err(error) => return Err(error.into()),
        }
    }
    Err("too many tabs; please try again".into())
}

async fn count(node: &SessionManager, id: SessionId) -> Result<usize, Trouble> {
    let session = node.get(id).await?.ok_or("logged out")?;
    Ok(session.get::<Vec<u32>>("cart")?.unwrap_or_default().len())
}
