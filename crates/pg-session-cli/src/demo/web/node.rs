//! One node: a process with its own memory, its own connections and its own web server. Started by [`nodes`](super::nodes)
//! only, and ended by the end of its orders.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use pg_sandbox::Proxy;
use pg_session::{Config, KeyRing, Migrations, SessionManager, Signer, SigningKey};
use pg_session_web::{CookiePolicy, SessionConfig};

use super::observer::Observer;
use super::orders::{Edge, Neighbour, Orders, Report, Setup};
use super::shop::{CART, Shop};
use super::{on_actix, on_axum};
use crate::failure::{Failure, ensure};
use crate::signals::Signals;

const POOL_CONNECTIONS: usize = 4;
/// How long a node may take to write what it still holds.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// Carries the hidden command out.
pub(crate) async fn run() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If stderr is closed as well, the exit code is what is left to say it.
            let _ = writeln!(std::io::stderr(), "pg-session demo-node: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Failure> {
    // A terminal sends Ctrl-C to all processes in it. The demo receives it, and ends the nodes in order.
    let _caught = Signals::catch()?;
    let mut orders = Orders::read();
    let setup: Setup = orders.next().await?;
    let (listener, sessions, wire) = match open(&setup).await {
        Ok(open) => open,
        Err(failure) => return report(&Report::Failed(failure.to_string())),
    };
    report(&Report::Listening(listener.local_addr()?.port()))?;
    let neighbours: Vec<Neighbour> = orders.next().await?;

    let manager = sessions.manager().clone();
    let observer = Observer::new(manager.clone());
    let shop = Arc::new(Shop::new(&setup, neighbours, Arc::clone(&observer), wire));
    tokio::select! {
        served = serve_on(setup.edge, listener, sessions, shop) => served?,
        () = observer.run() => {}
        // Browsers keep their connections open, so the node does not wait for them; submitted writes are committed below.
        () = orders.end() => {}
    }
    let report = manager.shutdown(SHUTDOWN_WAIT).await;
    ensure(report.is_complete(), || format!("{} left something behind: {report:?}", setup.name))
}

async fn open(setup: &Setup) -> Result<(TcpListener, SessionConfig, Proxy), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, setup.port)).map_err(|error| {
        Failure::new(format!("port {}: {error}; choose the first of three free ones with --port", setup.port))
    })?;
    listener.set_nonblocking(true)?;
    let wire = Proxy::start(setup.postgres).await?;
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    config.pool_connections_max = POOL_CONNECTIONS;
    let manager = SessionManager::builder(config)
        .postgres(tokio_postgres::Config::from_str(&setup.postgres_url)?)
        .listen_on(tokio_postgres::Config::from_str(&wire.url_for(&setup.postgres_url))?)
        .connect()
        .await?;
    manager.wait_until_trusted().await?;
    let signer = Signer::new(KeyRing::new(&SigningKey::from_base64(&setup.key)?));
    let sessions = SessionConfig::new(manager, signer)
        .cookie(CookiePolicy::named("pg-session-demo")?)
        .keep_at_login([CART]);
    Ok((listener, sessions, wire))
}

async fn serve_on(
    edge: Edge,
    listener: TcpListener,
    sessions: SessionConfig,
    shop: Arc<Shop>,
) -> Result<(), Failure> {
    match edge {
        Edge::Axum => on_axum::serve(listener, sessions, shop).await,
        Edge::Actix => on_actix::serve(listener, sessions, shop).await,
    }
}

/// Tells the demo, which reads one line.
fn report(report: &Report) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(report)?)?;
    Ok(out.flush()?)
}
