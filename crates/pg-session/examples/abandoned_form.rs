//! A form of several pages: what was typed is kept for a while, each page renews it, sending it removes it, and a form
//! that was abandoned goes by itself.
//!
//! ```text
//! cargo run --example abandoned_form                     # on a private PostgreSQL that goes away again
//! cargo run --example abandoned_form -- postgres://…     # on yours: makes the tables in the schema example_abandoned_form
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, Session, SessionId, SessionManager, UpdateError, UserId};

/// How long a draft waits for its next page. In life half an hour.
const DRAFT_LIFETIME: Duration = Duration::from_secs(2);

type Draft = BTreeMap<String, String>;

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
    config.schema = "example_abandoned_form".to_owned();
    config.migrations = Migrations::Apply;
    let sessions = SessionManager::connect(&url, config).await?;

    let ann = sessions.create(UserId::named("ann")).await?.id();
    page(&sessions, ann, "name", "Ann").await?;
    page(&sessions, ann, "town", "Leeds").await?;
    println!("ann sends {:?}", send(&sessions, ann).await?);
    println!("and again: {:?}", send(&sessions, ann).await?);

    let bob = sessions.create(UserId::named("bob")).await?.id();
    let session = page(&sessions, bob, "name", "Bob").await?;
    println!("bob has typed {:?}, and goes for lunch", session.get::<Draft>("draft")?.unwrap_or_default());
    while session.contains("draft") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("bob sends {:?}", send(&sessions, bob).await?);
    Ok(())
}

/// One page was filled in: the draft grows, and lives on. Two tabs may do so at once; neither loses the other's word.
async fn page(
    sessions: &SessionManager,
    id: SessionId,
    field: &str,
    text: &str,
) -> Result<Session, UpdateError> {
    sessions
        .modify(id, |session| {
            let mut draft: Draft = session.get("draft")?.unwrap_or_default();
            draft.insert(field.to_owned(), text.to_owned());
            session.set_for("draft", &draft, DRAFT_LIFETIME)
        })
        .await
}

/// Takes the draft out of the session. The check makes sure that it is sent once, however often the button is pressed.
async fn send(sessions: &SessionManager, id: SessionId) -> Result<Option<Draft>, Box<dyn Error>> {
    let mut session = sessions.get(id).await?.ok_or("logged out")?;
    let Some(draft) = session.get("draft")? else { return Ok(None) };
    session.remove("draft");
    match sessions.save(&mut session).check_attributes().await {
        Ok(()) => Ok(Some(draft)),
        Err(UpdateError::Conflict { .. }) => Ok(None), // changed or sent by another tab
        Err(error) => Err(error.into()),
    }
}
