//! `pg-session serve`: answers a proxy's question who is signed in, from this process's memory.
//!
//! In the order of the life of the process: [`options`] are checked, the node connects, [`listener`] accepts connections
//! and passes requests to [`auth`] and [`health`], and with an admin token to [`api`] and [`console`]. A signal ends it: requests in flight are answered, last accesses are
//! written.
//!
//! It never answers from a state that it cannot prove: that is status 503.

mod api;
mod audit;
mod auth;
mod auth_head;
mod console;
mod health;
mod listener;
mod observed;
mod options;
mod revoke;
mod secret;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get};
use pg_session::SessionManager;
use pg_session_web::SessionConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::audit::Audit;
use self::auth::ProxyAccess;
use self::console::Console;
use self::observed::Observed;
pub(crate) use self::options::Options;
use self::options::Settings;
use self::secret::Secret;
use crate::signals::Signals;
use crate::why::{Why, ensure, exit};

/// How long the node may take to write what it still holds.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// What every request is answered with.
#[derive(Debug)]
struct Server {
    sessions: SessionConfig,
    proxies: ProxyAccess,
    /// Without it, there is no API and no console.
    admin_token: Option<Secret>,
    console: Option<Console>,
    audit: Audit,
    observed: Observed,
    stop: CancellationToken,
}

impl Server {
    fn manager(&self) -> &SessionManager {
        self.sessions.manager()
    }
}

/// Runs the command until a signal. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    exit("serve", Box::pin(serve(options)).await)
}

async fn serve(options: Options) -> Result<(), Why> {
    let settings = Settings::of(options)?;
    let mut signals = Signals::catch()?;
    let address = settings.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Why::new(format!("cannot listen on {address}: {error}; choose another --listen")))?;
    let manager = tokio::select! {
        manager = settings.connect() => manager?,
        _ = signals.next() => return Ok(()),
    };
    let stop = CancellationToken::new();
    let sessions = SessionConfig::from_env(manager.clone())?.cookie(settings.cookie.clone());
    let server = Arc::new(Server {
        sessions,
        proxies: settings.proxies,
        admin_token: settings.admin_token,
        console: settings.console,
        audit: Audit::default(),
        observed: Observed::default(),
        stop: stop.clone(),
    });
    if server.console.is_some() {
        let (server, events) = (Arc::clone(&server), manager.events());
        tokio::spawn(async move { server.observed.run(events).await });
    }
    writeln!(io::stdout(), "serving on http://{}", listener.local_addr()?)?;
    tokio::select! {
        () = listener::run(listener, router(server), manager.config().trust_window, &stop) => {}
        _ = signals.next() => stop.cancel(),
    }
    let report = manager.shutdown(SHUTDOWN_WAIT).await;
    ensure(report.is_complete(), || format!("the node left something behind: {report:?}"))
}

fn router(server: Arc<Server>) -> Router {
    let admin = if server.admin_token.is_some() { api::router(&server) } else { Router::new() };
    Router::new()
        .merge(admin)
        .merge(console::router(&server))
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/trust", get(health::trust))
        .route("/metrics", get(health::metrics))
        // Envoy appends the path of the client's request, and sends its method.
        .route("/auth", any(auth::authenticate))
        .route("/auth/{*path}", any(auth::authenticate))
        .with_state(server)
}
