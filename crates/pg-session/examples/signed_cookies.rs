//! Signed cookies: what was not signed by us costs no query, a client never sees less than it has seen, and keys rotate
//! without logging a user out.
//!
//! ```text
//! cargo run --example signed_cookies                     # on a private PostgreSQL that goes away again
//! cargo run --example signed_cookies -- postgres://…     # on yours: makes the tables in the schema example_signed_cookies
//! ```

use std::error::Error;

use pg_sandbox::Sandbox;
use pg_session::{Config, KeyRing, Migrations, Session, SessionManager, Signer, SigningKey, UserId};

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
    config.schema = "example_signed_cookies".to_owned();
    config.migrations = Migrations::Apply;
    let (a, b) =
        (SessionManager::connect(&url, config.clone()).await?, SessionManager::connect(&url, config).await?);

    // In life the keys come from the configuration, the same on all nodes: `SigningKey::from_base64`.
    let (old, new) = (SigningKey::generate()?, SigningKey::generate()?);
    let signer = Signer::new(KeyRing::new(&old));

    let mut session = a.create(UserId::named("ann")).set("name", "Ann").await?;
    let cookie = signer.issue(session.id(), session.version()).expose_into();
    println!("ann, on b: {}", page(&b, &signer, &cookie).await?);

    let queries = b.status().loads.statements;
    let forged = cookie.chars().rev().collect::<String>();
    let bare_id = session.id().expose().to_string(); // as it is in the table
    for (what, wrong) in [("a forged cookie", &forged), ("an id without a signature", &bare_id)] {
        println!("{what}: {}", page(&b, &signer, wrong).await?);
    }
    println!("queries for these: {}", b.status().loads.statements - queries);

    // After a change the client gets a new cookie with the new version. The next request goes to the other node, which
    // may not have learned of it: it does not answer with less than the cookie says.
    session.set("name", "Ann Smith")?;
    a.save(&mut session).await?;
    let newer = signer.issue(session.id(), session.version()).expose_into();
    println!("renamed, and at once on b: {}", page(&b, &signer, &newer).await?);

    // Each step on all nodes before the next.
    signer.replace(signer.ring().with_verifying(&new)?);
    signer.replace(signer.ring().with_signing(&new)?);
    println!("the keys are rotated: {}", page(&b, &signer, &cookie).await?);
    signer.replace(signer.ring().without(old.id())?);
    println!("the old key is gone: {}", page(&b, &signer, &cookie).await?);
    Ok(())
}

/// A request: the cookie is verified before anything is asked, and what fails is an anonymous visitor.
async fn page(node: &SessionManager, signer: &Signer, cookie: &str) -> Result<String, pg_session::Error> {
    let Ok(verified) = signer.verify(cookie) else {
        return Ok("the login page".to_owned());
    };
    let session = node.get(verified.id).min_version(verified.version).await?;
    session.as_ref().map_or_else(|| Ok("the login page".to_owned()), greeting)
}

fn greeting(session: &Session) -> Result<String, pg_session::Error> {
    Ok(format!("hello {}", session.get::<String>("name")?.unwrap_or_default()))
}
