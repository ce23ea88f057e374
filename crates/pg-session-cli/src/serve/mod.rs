//! `pg-session serve`: answers a proxy's question who is signed in, from this process's memory.
//!
//! In the order of the life of the process: [`options`] are checked, the node connects, [`listener`] accepts connections
//! and passes requests to [`auth`] and [`health`], and with an admin token to `pg-session-admin`. A signal ends it: requests
//! in flight are answered, last accesses are written.
//!
//! It never answers from a state that it cannot prove: that is status 503.

mod auth;
mod auth_head;
mod health;
mod listener;
mod options;
mod secret;
mod trust;

use std::io::{self, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get};
use pg_session::SessionManager;
use pg_session_admin::{Admin, Change};
use pg_session_web::SessionConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::auth::ProxyAccess;
pub(crate) use self::options::Options;
use self::options::Settings;
use crate::failure::{Failure, ensure, exit};
use crate::signals::Signals;

/// How long the node may take to write what it still holds.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// What every request is answered with.
#[derive(Debug)]
struct Server {
    sessions: SessionConfig,
    proxies: ProxyAccess,
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

async fn serve(options: Options) -> Result<(), Failure> {
    let json = options.json;
    let settings = Settings::of(options)?;
    let mut signals = Signals::catch()?;
    let address = settings.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::new(format!("cannot listen on {address}: {error}; choose another --listen"))
    })?;
    let manager = tokio::select! {
        manager = settings.connect() => manager?,
        _ = signals.next() => return Ok(()),
    };
    let limits = settings.limits(manager.config().trust_window);
    let stop = CancellationToken::new();
    let sessions = SessionConfig::from_env(manager.clone())?.cookie(settings.cookie.clone());
    let (admin, admin_routes) = match settings.admin {
        Some(settings) => {
            let with_console = settings.console;
            let admin = settings.builder(manager.clone()).on_change(print).build();
            let console = if with_console { admin.console() } else { Router::new() };
            (Some(admin.clone()), Router::new().nest("/api/v1", admin.api()).nest("/console", console))
        }
        None => (None, Router::new()),
    };
    let server = Arc::new(Server { sessions, proxies: settings.proxies, stop: stop.clone() });
    let app = router(server).merge(admin_routes);
    let url = format!("http://{}", listener.local_addr()?);
    if json {
        writeln!(io::stdout(), "{}", serde_json::json!({ "event": "serving", "url": url }))?;
    } else {
        writeln!(io::stdout(), "serving on {url}")?;
    }
    let reports = tokio::spawn(trust::report(manager.clone(), json));
    let mut serving = pin!(listener::run(listener, app, limits, &stop));
    tokio::select! {
        () = &mut serving => {}
        _ = signals.next() => {
            stop.cancel();
            admin.iter().for_each(Admin::close);
            serving.await;
        }
    }
    reports.abort();
    let report = manager.shutdown(SHUTDOWN_WAIT).await;
    ensure(report.is_complete(), || format!("the node left something behind: {report:?}"))
}

/// A line of JSON for each change.
fn print(change: &Change) {
    let line = serde_json::json!({ "event": "revocation", "change": change });
    if let Err(error) = writeln!(io::stdout(), "{line}") {
        tracing::error!(%error, %line, "a change could not be written to stdout");
    }
}

fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/trust", get(health::trust))
        .route("/metrics", get(health::metrics))
        // Envoy appends the path of the client's request, and sends its method.
        .route("/auth", any(auth::authenticate))
        .route("/auth/", any(auth::authenticate))
        .route("/auth/{*path}", any(auth::authenticate))
        .with_state(server)
}
