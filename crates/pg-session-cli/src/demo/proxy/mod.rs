//! `pg-session demo --proxy`: nginx asks `pg-session serve` who is signed in, in front of an application that has no code for
//! sessions.
//!
//! ```text
//! client ─▶ nginx ─┬─ auth_request ─▶ pg-session serve ── PostgreSQL ── a node, which logs users in
//!                  └─▶ application: reads the header X-Session-User
//! ```

mod load;
mod nginx;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::HeaderMap;
use pg_session::{Config, Migrations, Session, SessionManager, Signer, SigningKey};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::load::{get, per_second};
use self::nginx::Nginx;
use super::Ending;
use super::print::{self, count, took};
use super::reporter::{DemoError, Reporter};
use super::server::Server;
use crate::failure::{Failure, ensure};

/// Times that each of both is measured, in turn: what else the machine does then disturbs both alike.
const ROUNDS: usize = 4;
const USER: i64 = 42;

/// What runs until the end of the demo. Dropping it ends all of it.
struct Site {
    node: SessionManager,
    session: Session,
    signer: Signer,
    /// The header of a client that is signed in.
    cookie: String,
    nginx: Nginx,
    _serve: (Child, BufReader<ChildStdout>),
    _application: JoinSet<()>,
}

/// Plays, and stays until `stop` if the demo is not to end by itself.
pub(super) async fn play(
    server: &Server,
    once: bool,
    reporter: &Reporter,
    stop: &CancellationToken,
) -> Result<Ending, DemoError> {
    let show = async {
        let site =
            reporter.step("nginx, `pg-session serve`, and an application without session code", open(server));
        let site = site.await?;
        story(&site, reporter).await?;
        Ok::<_, DemoError>(site)
    };
    let site = tokio::select! {
        site = show => site?,
        () = stop.cancelled() => return Err(DemoError::Interrupted),
    };
    if !once {
        let session =
            sign_in(&site.node).await.map_err(|failure| reporter.failed("a user signs in", &failure))?;
        print::headline("Try it; Ctrl-C ends everything")?;
        let cookie = cookie(&site.signer, &session);
        print::text(&format!("   curl -H '{cookie}' http://{}/", site.nginx.addr()))?;
        stop.cancelled().await;
    }
    reporter.frame("The end")?;
    let end = async {
        let report = site.node.shutdown(Duration::from_secs(5)).await;
        ensure(report.writes_left == 0 && report.all_tasks_ended, || format!("{report:?}"))?;
        Ok((String::new(), ()))
    };
    reporter.step("the node ends in order", end).await?;
    Ok(if once { Ending::Held } else { Ending::Watched })
}

async fn open(server: &Server) -> Result<(String, Site), Failure> {
    let Some(sandbox) = server.sandbox() else { return Err(Failure::new("leave out --database-url")) };
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let node = SessionManager::connect(&sandbox.url(), config).await?;
    let key = SigningKey::generate()?.expose_base64();
    let session = sign_in(&node).await?;
    let (application, at) = application().await?;
    let mut serve = Command::new(std::env::current_exe()?)
        .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &sandbox.url()])
        .env("SESSION_KEY", key.as_str())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = serve.stdout.take().ok_or_else(|| Failure::new("the program has no pipe"))?;
    let (mut out, mut line) = (BufReader::new(out), String::new());
    out.read_line(&mut line).await?;
    let url = line.trim().strip_prefix("serving on ").ok_or_else(|| Failure::new("`serve` did not start"))?;
    let nginx = Nginx::start(url, at).await?;
    let signer = Signer::from_base64(&key)?;
    let cookie = cookie(&signer, &session);
    let site = Site { node, session, cookie, signer, nginx, _serve: (serve, out), _application: application };
    Ok((format!("http://{}/", site.nginx.addr()), site))
}

async fn sign_in(node: &SessionManager) -> Result<Session, Failure> {
    Ok(node.create(USER).await?)
}

fn cookie(signer: &Signer, session: &Session) -> String {
    let token = signer.issue(session.id(), session.version());
    format!("Cookie: __Host-session={}", token.expose())
}

/// All that it knows of sessions is the name of a header.
async fn application() -> Result<(JoinSet<()>, SocketAddr), Failure> {
    let greet = async |headers: HeaderMap| {
        let user = headers.get("x-session-user").and_then(|user| user.to_str().ok());
        format!("hello, user {}\n", user.unwrap_or("nobody"))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // It serves until the task is aborted.
        drop(axum::serve(listener, Router::new().fallback(greet)).await);
    });
    Ok((tasks, addr))
}

async fn story(site: &Site, reporter: &Reporter) -> Result<(), DemoError> {
    let addr = site.nginx.addr();
    reporter.act("A login is required")?;
    let known = async {
        let answer = get(addr, "/orders", &[&site.cookie]).await?;
        ensure(answer == (200, format!("hello, user {USER}\n")), || format!("{answer:?}"))?;
        Ok((answer.1.trim().to_owned(), ()))
    };
    reporter.step("with the cookie, the application receives the user", known).await?;
    let unknown = async {
        let (status, _) = get(addr, "/orders", &["X-Session-User: 42"]).await?;
        ensure(status == 401, || format!("status {status}"))?;
        Ok(("401, and the application is not asked".to_owned(), ()))
    };
    reporter.step("without it, a client that names a user itself is refused", unknown).await?;
    let forged = async {
        let answer = get(addr, "/orders", &[&site.cookie, "X-Session-User: 1"]).await?;
        ensure(answer == (200, format!("hello, user {USER}\n")), || format!("{answer:?}"))?;
        Ok(("nginx replaces the header".to_owned(), ()))
    };
    reporter.step("with it, no client names another user", forged).await?;

    reporter.act("What it costs")?;
    let cost = async {
        let (mut alone, mut asked) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.push(per_second(addr, "/alone/", "").await?);
            asked.push(per_second(addr, "/", &site.cookie).await?);
        }
        Ok((String::new(), (middle(alone), middle(asked))))
    };
    let (alone, asked) = reporter.step("both in turn, on this machine", cost).await?;
    print::text(&format!("   nginx alone                    {:>9} requests/s", count(alone)))?;
    print::text(&format!("   with forward authentication    {:>9} requests/s", count(asked)))?;
    print::text(&format!("   that is {} % of nginx alone", asked * 100 / alone.max(1)))?;

    reporter.act("Logout")?;
    let logout = async {
        let began = Instant::now();
        site.node.delete(site.session.id()).await?;
        while get(addr, "/orders", &[&site.cookie]).await?.0 != 401 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok((format!("after {}", took(began.elapsed())), ()))
    };
    reporter.step("the node ends the session: nginx answers 401", logout).await
}

/// The upper one of the two in the middle.
fn middle(mut rates: Vec<u64>) -> u64 {
    rates.sort_unstable();
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}
