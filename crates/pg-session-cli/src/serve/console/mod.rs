//! The console: pages for an operator, rendered here. Read-only unless the program was started with `--allow-changes`.
//!
//! Who gets in: a request must name a known host, must not come from another site if it changes something, and must carry
//! the cookie of a sign-in. The pages run no script but `console.js`, and load nothing from elsewhere.

mod forms;
mod kept;
mod pages;
mod sessions;
mod sign_in;
mod sign_ins;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pg_session::{Finding, NodeInfo, SessionManager};
use pg_session_web::host_of;
use tokio::sync::Semaphore;

use self::kept::Kept;
use self::sign_ins::SignIns;
use super::Server;
use super::auth_head::AuthHead;
use crate::connection::Place;
use crate::why::Why;

const STYLE: &str = include_str!("console.css");
const SCRIPT: &str = include_str!("console.js");
/// No inline script or style, nothing from another host, no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Bytes of a posted form.
const FORM_BYTES_MAX: usize = 16 * 1024;
/// Open pages that receive updates.
const STREAMS_MAX: usize = 32;
/// How long the findings of the doctor are shown before it runs again. It starts a node each time.
const FINDINGS_AGE_MAX: Duration = Duration::from_secs(60);
/// The same for the nodes: each question costs each node a write.
const NODES_AGE_MAX: Duration = Duration::from_secs(5);

/// What the console keeps.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) allow_changes: bool,
    hosts: Vec<String>,
    place: Place,
    sign_ins: SignIns,
    streams: Arc<Semaphore>,
    findings: Kept<Vec<Finding>>,
    nodes: Kept<Vec<NodeInfo>>,
}

impl Console {
    pub(super) fn new(allow_changes: bool, hosts: Vec<String>, place: Place) -> Self {
        Self {
            allow_changes,
            hosts,
            place,
            sign_ins: SignIns::default(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            findings: Kept::new(FINDINGS_AGE_MAX),
            nodes: Kept::new(NODES_AGE_MAX),
        }
    }

    /// Names of this machine, and those of `--console-host`. A page of another site can make its own name lead here.
    fn knows_host(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(HOST).iter().map(|value| value.to_str().map(host_of));
        let (Some(Ok(host)), None) = (hosts.next(), hosts.next()) else { return false };
        let own = ["localhost", "127.0.0.1", "[::1]"];
        own.into_iter()
            .chain(self.hosts.iter().map(String::as_str))
            .any(|known| known.eq_ignore_ascii_case(host))
    }

    /// What the doctor has found within the last minute.
    async fn findings(&self) -> Result<Vec<Finding>, String> {
        let diagnose = async { Ok::<_, Why>(Box::pin(self.place.builder()?.diagnose()).await?) };
        self.findings.get(diagnose).await
    }

    /// The nodes, as they answered within the last seconds.
    async fn nodes(&self, manager: &SessionManager) -> Result<Vec<NodeInfo>, String> {
        self.nodes.get(async { Ok(manager.nodes().await?) }).await
    }
}

/// The pages. Nothing without `--console`.
pub(super) fn router(server: &Arc<Server>) -> Router<Arc<Server>> {
    if server.console.is_none() {
        return Router::new();
    }
    let signed_in = Router::new()
        .route("/console", get(async || to("/console/cluster")))
        .route("/console/cluster", get(pages::cluster))
        .route("/console/sessions", get(sessions::search))
        .route("/console/sessions/{handle}", get(sessions::show))
        .route("/console/events", get(pages::events))
        .route("/console/locks", get(pages::locks))
        .route("/console/health", get(pages::health))
        .route("/console/stream", get(stream::stream))
        .route("/console/revocations", post(forms::revoke))
        .route("/console/sign-out", post(sign_in::sign_out))
        .route_layer(middleware::from_fn_with_state(Arc::clone(server), sign_in::require));
    Router::new()
        .route("/console/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/console/console.css", get(async || text("text/css; charset=utf-8", STYLE)))
        .route("/console/console.js", get(async || text("text/javascript; charset=utf-8", SCRIPT)))
        .merge(signed_in)
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .route_layer(middleware::from_fn_with_state(Arc::clone(server), guard))
}

/// Refuses other hosts and other sites, and adds the headers that every page has.
async fn guard(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let is_known = server.console.as_ref().is_some_and(|console| console.knows_host(request.headers()));
    let refusal = server.sessions.refuse(&AuthHead::of(&request));
    let mut response = if !is_known {
        tracing::warn!("a request to the console was refused: its host is unknown");
        (StatusCode::MISDIRECTED_REQUEST, "this host is unknown; name it with --console-host\n")
            .into_response()
    } else if let Some(refusal) = refusal {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::FORBIDDEN);
        (status, refusal.body).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn to(page: &'static str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, page)]).into_response()
}

fn text(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        place: Place,
    }

    #[test]
    fn only_known_hosts_are_served() {
        let place = Program::parse_from(["test"]).place;
        let console = Console::new(false, vec!["Ops.Example".to_owned()], place);
        let knows = |hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, HeaderValue::from_str(host).unwrap());
            }
            console.knows_host(&headers)
        };
        for host in
            ["localhost", "localhost:7480", "127.0.0.1:1", "[::1]:7480", "ops.example", "OPS.EXAMPLE:443"]
        {
            assert!(knows(&[host]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "ops.example.evil",
            "[::2]",
            "@localhost",
        ] {
            assert!(!knows(&[host]), "{host}");
        }
        assert!(!knows(&[]) && !knows(&["localhost", "evil.example"]));
    }
}
