//! Step-up authentication: a page that is not dangerous needs a session, a dangerous one a password that was typed
//! just now. The proof is an attribute that expires by itself, on every node, without a write.
//!
//! ```text
//! cargo run --example step_up                     # on a private PostgreSQL that goes away again
//! cargo run --example step_up -- postgres://…     # on yours: makes the tables in the schema example_step_up
//! ```

use std::error::Error;
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, Session, SessionId, SessionManager, UpdateError, UserId};

/// How long a typed password counts. In production a quarter of an hour. The example is shorter.
const ELEVATED: Duration = Duration::from_secs(2);

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
    config.schema = "example_step_up".to_owned();
    config.migrations = Migrations::Apply;
    let (a, b) =
        (SessionManager::connect(&url, config.clone()).await?, SessionManager::connect(&url, config).await?);

    let id = a.create(UserId::named("ann")).await?.id();
    println!("show the profile: {}", profile(&a, id).await?);
    println!("change the e-mail address: {}", change_address(&a, id).await?);

    let session = step_up(&a, id, "correct horse").await?;
    println!("the password was typed, version {}", session.version());
    b.catch_up().await?; // the other node learns of it within milliseconds; here we want to be sure
    println!("change the e-mail address on a: {}", change_address(&a, id).await?);
    println!("change the e-mail address on b: {}", change_address(&b, id).await?);

    // Each node measures the database's clock for itself, so they notice the end one after the other.
    while is_elevated(a.get(id).await?.as_ref()) || is_elevated(b.get(id).await?.as_ref()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("later, on a: {}", change_address(&a, id).await?);
    println!("later, on b: {}", change_address(&b, id).await?);
    let session = a.get(id).await?.ok_or("the session itself goes on")?;
    println!("no write was needed: still version {}", session.version());
    Ok(())
}

async fn profile(node: &SessionManager, id: SessionId) -> Result<&'static str, pg_session::Error> {
    Ok(if node.get(id).await?.is_some() { "yes" } else { "log in" })
}

async fn change_address(node: &SessionManager, id: SessionId) -> Result<&'static str, pg_session::Error> {
    Ok(if is_elevated(node.get(id).await?.as_ref()) { "yes" } else { "type your password" })
}

/// An attribute that has expired is absent, from its instant on, also in a handle that was read before.
fn is_elevated(session: Option<&Session>) -> bool {
    session.is_some_and(|session| session.contains("elevated"))
}

async fn step_up(node: &SessionManager, id: SessionId, password: &str) -> Result<Session, UpdateError> {
    // Represents the check of a password; a wrong one changes nothing.
    let right = password == "correct horse";
    node.modify(id, |session| if right { session.set_for("elevated", &true, ELEVATED) } else { Ok(()) }).await
}
