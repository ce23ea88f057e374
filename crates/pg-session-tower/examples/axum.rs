//! A shop on axum: a cart that survives the login, and "log out the others".
//!
//! `DATABASE_URL=postgres://… cargo run --example axum`, then open the address.

use std::{env, error::Error, net::SocketAddr};

use axum::{Router, extract::Path, routing::get, routing::post};
use pg_session_tower::prelude::*;

async fn shop(session: Session) -> Result<String, SessionError> {
    let name: Option<String> = session.get("name").await?;
    let cart: Vec<String> = session.get("cart").await?.unwrap_or_default();
    Ok(format!("{} has {cart:?}", name.as_deref().unwrap_or("a visitor")))
}

async fn add(session: Session, Path(item): Path<String>) -> Result<String, SessionError> {
    let add = |cart: Option<Vec<String>>| [cart.unwrap_or_default(), vec![item.clone()]].concat();
    Ok(format!("{:?}", session.modify("cart", add).await?)) // in one step: no click is lost
}

async fn login(session: Session, Path(name): Path<String>) -> Result<&'static str, SessionError> {
    session.login(UserId::named(&name)).await?; // after you have looked at a password
    session.set("name", &name).await?;
    Ok("signed in")
}

async fn logout_others(session: Session) -> Result<String, SessionError> {
    Ok(format!("{} logged out", session.logout_others().await?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let manager = SessionManager::connect(&url, config).await?;
    let sessions = SessionConfig::from_env(manager)?.keep_at_login(["cart"]);
    let app = Router::new()
        .route("/", get(shop))
        .route("/add/{item}", post(add))
        .route("/login/{name}", post(login))
        .route("/logout-others", post(logout_others))
        .layer(SessionLayer::from(sessions));
    let address = env::var("ADDRESS").unwrap_or("127.0.0.1:3000".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?)
}
