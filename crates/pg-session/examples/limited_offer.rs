//! A time-limited offer: a reduction that is valid until an instant, to the millisecond, by the database's clock.
//!
//! ```text
//! cargo run --example limited_offer                     # on a private PostgreSQL that goes away again
//! cargo run --example limited_offer -- postgres://…     # on yours: makes the tables in the schema example_limited_offer
//! ```

use std::error::Error;
use std::time::{Duration, SystemTime};

use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, Session, SessionManager, UserId};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Offer {
    code: String,
    percent: u32,
}

const PRICE: u32 = 80;

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
    config.schema = "example_limited_offer".to_owned();
    config.migrations = Migrations::Apply;
    let shop = SessionManager::connect(&url, config).await?;

    // In life the end of the campaign, the same for all. A time that has passed makes the attribute absent.
    #[allow(clippy::disallowed_methods, reason = "an application has a clock of its own")]
    let end = SystemTime::now() + Duration::from_secs(2);
    let offer = Offer { code: "FLASH25".to_owned(), percent: 25 };
    let session = shop.create(UserId::named("ann")).set_until("offer", &offer, end).await?;
    println!("during the campaign: {}", price_tag(&session)?);

    while session.contains("offer") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("after the campaign: {}", price_tag(&session)?);
    println!("the handle is the same, its version too: {}", session.version());

    let again = shop.get(session.id()).await?.ok_or("the session itself goes on")?;
    println!("read again: {}", price_tag(&again)?);
    Ok(())
}

/// Decoded once on this node for all who read it. Nothing here looks at a clock.
fn price_tag(session: &Session) -> Result<String, pg_session::Error> {
    let Some(offer) = session.get_shared::<Offer>("offer")? else {
        return Ok(format!("{PRICE} euros"));
    };
    Ok(format!("{} euros with {}", PRICE - PRICE * offer.percent / 100, offer.code))
}
