//! What the layer costs: requests/s of one axum handler over HTTP with a signed, cached session, and without any; and the same
//! without the network, where the difference is the layer's alone. Both in one run, in turns.
//!
//! `cargo run --release --example overhead`, on a private PostgreSQL.

#![allow(clippy::disallowed_methods, reason = "it measures; no session is judged by this clock")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, header::COOKIE};
use axum::{Router, routing::get};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use pg_sandbox::Sandbox;
use pg_session::{Config, KeyRing, Migrations, SessionManager, Signer, SigningKey};
use pg_session_tower::{Session, SessionError, SessionLayer};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(1_500);
const CONNECTIONS: usize = 16;

async fn with_session(session: Session) -> Result<String, SessionError> {
    let name: Option<String> = session.get("name").await?;
    Ok(format!("hello {}", name.unwrap_or_default()))
}

async fn without() -> String {
    format!("hello {}", "ann")
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let sandbox = Sandbox::start()?;
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let manager = SessionManager::connect(&sandbox.url(), config).await?;
    let signer = Signer::new(KeyRing::new(&SigningKey::generate()?));
    let session = manager.create(42).set("name", "ann").await?;
    let cookie = format!("__Host-session={}", signer.issue(session.id(), session.version()).expose_into());
    let bare = Router::new().route("/", get(without));
    let layered =
        Router::new().route("/", get(with_session)).layer(SessionLayer::new(manager.clone(), signer));

    let (before, after) = compare("over HTTP", async |with| {
        let app = if with { &layered } else { &bare };
        over_http(app.clone(), &cookie).await
    })
    .await?;
    println!("with / without: {:.3}", after / before);
    let (before, after) = compare("in memory", async |with| {
        let app = if with { &layered } else { &bare };
        in_memory(app, &cookie).await
    })
    .await?;
    println!("the layer, the session and the extractor: {:.2} µs a request", 1e6 / after - 1e6 / before);
    let stats = manager.status().cache;
    println!("{stats:?}");
    Ok(())
}

/// The medians of rounds in turns: requests/s without, and with sessions.
async fn compare(what: &str, mut round: impl AsyncFnMut(bool) -> Outcome<f64>) -> Outcome<(f64, f64)> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    round(false).await?;
    round(true).await?;
    for _ in 0..ROUNDS {
        without.push(round(false).await?);
        with.push(round(true).await?);
    }
    without.sort_by(f64::total_cmp);
    with.sort_by(f64::total_cmp);
    let (without, with) = (without[ROUNDS / 2], with[ROUNDS / 2]);
    println!("{what}: {without:.0} requests/s without sessions, {with:.0} with");
    Ok((without, with))
}

async fn over_http(app: Router, cookie: &str) -> Outcome<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let began = Instant::now();
    let clients: Vec<_> =
        (0..CONNECTIONS).map(|_| tokio::spawn(client(addr, cookie.to_owned(), began + ROUND))).collect();
    let mut requests = 0_u32;
    for client in clients {
        requests += client.await??;
    }
    server.abort();
    Ok(f64::from(requests) / began.elapsed().as_secs_f64())
}

async fn client(addr: SocketAddr, cookie: String, end: Instant) -> Outcome<u32> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut requests = 0;
    while Instant::now() < end {
        let request = Request::builder().uri("/").header("host", "localhost").header(COOKIE, &cookie);
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        check(&response.into_body().collect().await?.to_bytes())?;
        requests += 1;
    }
    Ok(requests)
}

async fn in_memory(app: &Router, cookie: &str) -> Outcome<f64> {
    const REQUESTS: u32 = 20_000;
    let began = Instant::now();
    for _ in 0..REQUESTS {
        let request = Request::builder().uri("/").header(COOKIE, cookie).body(Body::empty())?;
        let response = app.clone().oneshot(request).await?;
        check(&response.into_body().collect().await?.to_bytes())?;
    }
    Ok(f64::from(REQUESTS) / began.elapsed().as_secs_f64())
}

fn check(body: &[u8]) -> Outcome<()> {
    if body == b"hello ann" { Ok(()) } else { Err(format!("not the session's: {body:?}").into()) }
}
