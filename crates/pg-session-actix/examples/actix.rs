//! A shop on actix-web: a cart that survives the login, and "log out the others".
//!
//! `DATABASE_URL=postgres://… SESSION_KEY=$(openssl rand -base64 32) cargo run --example actix`, then open the address.

use std::{env, error::Error};

use actix_web::{App, HttpServer, web};
use pg_session::{Config, KeyRing, Migrations, SessionManager, Signer, SigningKey};
use pg_session_actix::{Session, SessionConfig, SessionError, SessionMiddleware};

async fn shop(session: Session) -> Result<String, SessionError> {
    let name: Option<String> = session.get("name").await?;
    let cart: Vec<String> = session.get("cart").await?.unwrap_or_default();
    Ok(format!("{} has {cart:?}", name.as_deref().unwrap_or("a visitor")))
}

async fn add(session: Session, item: web::Path<String>) -> Result<String, SessionError> {
    let add = |cart: Option<Vec<String>>| [cart.unwrap_or_default(), vec![item.to_string()]].concat();
    Ok(format!("{:?}", session.modify("cart", add).await?)) // in one step: no click is lost
}

async fn login(session: Session, name: web::Path<String>) -> Result<&'static str, SessionError> {
    session.login(pg_session::UserId::named(&name)).await?; // after you have looked at a password
    session.set("name", &*name).await?;
    Ok("signed in")
}

async fn logout_others(session: Session) -> Result<String, SessionError> {
    Ok(format!("{} logged out", session.logout_others().await?))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let manager = SessionManager::connect(&env::var("DATABASE_URL")?, config).await?;
    let signer = Signer::new(KeyRing::new(&SigningKey::from_base64(&env::var("SESSION_KEY")?)?));
    let sessions = SessionMiddleware::from(SessionConfig::new(manager, signer).keep_at_login(["cart"]));
    let app = move || {
        App::new()
            .wrap(sessions.clone()) // made once: workers share it
            .route("/", web::get().to(shop))
            .route("/add/{item}", web::post().to(add))
            .route("/login/{name}", web::post().to(login))
            .route("/logout-others", web::post().to(logout_others))
    };
    let server = HttpServer::new(app).bind(env::var("ADDRESS").unwrap_or("127.0.0.1:3000".into()))?;
    println!("http://{}", server.addrs()[0]);
    Ok(server.run().await?)
}
