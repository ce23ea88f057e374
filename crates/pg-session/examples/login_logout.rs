//! What a web application does with sessions, without the web: log in on several devices, ask for the password again
//! before a risky step, change the password and log out everywhere else, and lose a race against a logout.
//!
//! ```text
//! cargo run --example login_logout                     # on a private PostgreSQL that goes away again
//! cargo run --example login_logout -- postgres://…     # on yours: makes the tables in the schema session_example
//! ```

use std::error::Error;
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, Session, SessionId, SessionManager, UpdateError, UserId};

/// How long a password that was just typed opens the risky pages.
const ELEVATED: Duration = Duration::from_secs(15 * 60);

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

    let ann = UserId::named("ann");
    let laptop = log_in(&sessions, ann, "laptop").await?;
    let phone = log_in(&sessions, ann, "phone").await?;
    let tablet = log_in(&sessions, ann, "tablet").await?;

    println!("delete the account? {}", risky_page(&sessions, phone).await?);
    step_up(&sessions, phone).await?;
    println!("and after the password was typed again? {}", risky_page(&sessions, phone).await?);

    slow_request(&sessions, laptop).await?;

    // A new password: all other sessions of the user end, and this one stays.
    let ended = sessions.user(ann).delete_except(phone).await?;
    println!("{ended} other session ended with the new password");
    for (device, id) in [("laptop", laptop), ("tablet", tablet), ("phone", phone)] {
        let state = if sessions.get(id).await?.is_some() { "logged in" } else { "logged out" };
        println!("{device}: {state}");
    }

    println!("{} session ended with \"log out everywhere\"", sessions.user(ann).delete().await?);
    let report = sessions.shutdown(Duration::from_secs(5)).await;
    println!("{}", if report.is_complete() { "done" } else { "some writes were left behind" });
    Ok(())
}

/// After the password was checked. The id goes into the cookie; nothing is ever taken from a cookie that came in.
async fn log_in(
    sessions: &SessionManager,
    user: UserId,
    device: &str,
) -> Result<SessionId, pg_session::Error> {
    let session = sessions.create(user).set("device", device).await?;
    println!("{device}: logged in");
    Ok(session.id())
}

/// Needs a password that was typed in the last quarter of an hour. The attribute disappears by itself.
async fn risky_page(sessions: &SessionManager, id: SessionId) -> Result<&'static str, pg_session::Error> {
    let session = sessions.get(id).await?;
    let elevated = session.is_some_and(|session| session.contains("elevated"));
    Ok(if elevated { "yes" } else { "type your password again" })
}

async fn step_up(sessions: &SessionManager, id: SessionId) -> Result<Session, UpdateError> {
    sessions.modify(id, |session| session.set_for("elevated", &true, ELEVATED)).await
}

/// Reads its session, takes its time, and saves it: in between the user logs out. The logout wins.
async fn slow_request(sessions: &SessionManager, id: SessionId) -> Result<(), Box<dyn Error>> {
    let mut session = sessions.get(id).await?.ok_or("the laptop is logged in")?;
    session.set("last_page", "/inbox")?;

    sessions.delete(id).await?;

    match sessions.save(&mut session).await {
        Err(UpdateError::NotFound) => println!("laptop: logged out, and the slow request did not undo it"),
        Ok(()) => return Err("an update brought a deleted session back".into()),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
