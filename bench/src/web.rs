//! `pg-session-bench-web APP [DATABASE_URL | REDIS_URL]`: one axum application, with the sessions of APP. The bench starts
//! it, reads its address, sends requests, and closes its standard input to end it.
//!
//! Each application does the same: `POST /login/{user}` starts a session. `GET /` answers with the user and one
//! attribute. `POST /count` adds one to the session's counter, and `GET /count` reads it.

#![allow(clippy::disallowed_methods, reason = "a benchmark; nothing here expires by this clock")]

#[path = "web/jwt.rs"]
mod jwt;
#[path = "web/none.rs"]
mod none;
#[path = "web/ours.rs"]
mod ours;
#[path = "web/tower.rs"]
mod tower;

use anyhow::{Context, bail};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

/// The attribute that every page shows.
const THEME: &str = "dark";

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let app = arguments.next().context("usage: pg-session-bench-web APP [URL]")?;
    let url = arguments.next().unwrap_or_default();
    let router = match app.as_str() {
        "ours" => ours::router(&url).await?,
        "sqlx" => tower::sqlx(&url).await?,
        "moka" => tower::moka(&url).await?,
        "redis" => tower::redis(&url).await?,
        "jwt" => jwt::router()?,
        "none" => none::router(),
        other => bail!("there is no application {other}"),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let ended = async {
        // Only its end says anything.
        let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    };
    tokio::select! {
        served = axum::serve(listener, router) => served.context("the server ended"),
        () = ended => Ok(()),
    }
}

/// What `GET /` answers.
fn page(user: i64, theme: &str) -> String {
    format!("user {user}, theme {theme}")
}
