//! A visitor fills a cart and signs in: the session gets a new id and keeps the cart. The old id answers for a
//! moment, so that the page's other requests are not thrown out, and never shows the new user.
//!
//! ```text
//! cargo run --example sign_in                     # on a private PostgreSQL that goes away again
//! cargo run --example sign_in -- postgres://…     # on yours: makes the tables in the schema session_example
//! ```

use std::error::Error;
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, SessionManager, UpdateError, UserId};

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
    config.schema = "session_example".to_owned();
    config.migrations = Migrations::Apply;
    let sessions = SessionManager::connect(&url, config).await?;

    // The visitor is anonymous. An attacker may have planted this id.
    let mut session = sessions.create_anonymous().set("cart", &["book"]).set("page", "/welcome").await?;
    let old = session.id();
    println!("a visitor: user {:?}, {:?}", session.user_id(), session.keys());

    // After the password was checked. What is set and not saved goes along; of the rest, what is named.
    session.set("name", "Ann")?;
    sessions.rotate(&mut session).user(UserId::named("ann")).keep(["cart"]).await?;
    println!("signed in: a new id: {}, {:?}", session.id() != old, session.keys());

    // A request of the same page, which left with the old cookie.
    let Some(mut parallel) = sessions.get(old).await? else { return Err("the grace is over".into()) };
    println!(
        "the old id: user {:?}, {:?}, rotated: {}",
        parallel.user_id(),
        parallel.keys(),
        parallel.is_retired()
    );
    parallel.set("cart", &["book", "pen"])?;
    match sessions.save(&mut parallel).await {
        Err(UpdateError::Rotated) => println!("and nothing is saved through it"),
        other => return Err(format!("it must not be saved: {other:?}").into()),
    }

    // Typing the password again is a change of privilege, too: a new id, the same user, all attributes.
    session.set_for("elevated", &true, Duration::from_secs(15 * 60))?;
    sessions.rotate(&mut session).grace(Duration::ZERO).await?;
    let answers = sessions.get(old).await?.is_some();
    println!("elevated: {:?}; without a grace the old ids are dead at once: {}", session.keys(), !answers);

    println!("logged out: {}", sessions.delete(session.id()).await?);
    let report = sessions.shutdown(Duration::from_secs(5)).await;
    println!("{}", if report.is_complete() { "done" } else { "some writes were left behind" });
    Ok(())
}
