//! A shop on actix-web: a cart that survives the login, and "log out the others".
//!
//! `DATABASE_URL=postgres://… cargo run --example actix`, then open the address.

use std::{env, error::Error};

use actix_web::{App, HttpServer, web};
use pg_session_actix::prelude::*;

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
    session.login(UserId::named(&name)).await?; // after you have looked at a password
    session.set("name", &*name).await?;
    Ok("signed in")
}

async fn logout_others(session: Session) -> Result<String, SessionError> {
    Ok(format!("{} logged out", session.logout_others().await?))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let manager = SessionManager::connect(&url, config).await?;
    let sessions = SessionMiddleware::from(SessionConfig::from_env(manager)?.keep_at_login(["cart"]));
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
