//! The console: pages for an operator, rendered here. Read-only unless the application allows changes.
//!
//! A request must name a known host. If it changes something, it must not come from another site.
//! It must have the cookie of a sign-in, or an [`Operator`](crate::Operator) of the host
//! application. The pages run no script but `console.js`, and load nothing from elsewhere.

mod cookies;
mod forms;
mod kept;
mod pages;
mod sessions;
mod sign_in;
mod sign_ins;
mod stream;
mod tabs;
mod visit;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, NestedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pg_session::{Finding, NodeInfo, SessionManager};
use pg_session_web::{RequestHead, is_from_another_site};
use tokio::sync::Semaphore;

use self::kept::Kept;
use self::sign_ins::SignIns;
use crate::head::Head;
use crate::{Admin, Diagnose};

const STYLE: &str = include_str!("console.css");
/// Without one, browsers ask for `/favicon.ico`, which is not the console's.
const ICON: &str = include_str!("icon.svg");
const SCRIPT: &str = include_str!("console.js");
/// No inline script or style, nothing from another host, no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Where an operator begins.
const FIRST_PAGE: &str = "/cluster";
/// Bytes of a posted form.
const FORM_BYTES_MAX: usize = 16 * 1024;
/// Open pages that receive updates.
const STREAMS_MAX: usize = 32;
/// How long the findings of the doctor are shown before it runs again. It starts a node each time.
const FINDINGS_AGE_MAX: Duration = Duration::from_secs(60);
/// The same for the nodes: each question costs each node a write.
const NODES_AGE_MAX: Duration = Duration::from_secs(5);

/// What the console keeps.
pub(crate) struct Console {
    allow_changes: bool,
    /// `None`: any host.
    hosts: Option<Vec<String>>,
    diagnose: Option<Diagnose>,
    sign_ins: SignIns,
    streams: Arc<Semaphore>,
    findings: Kept<Vec<Finding>>,
    nodes: Kept<Vec<NodeInfo>>,
}

impl Console {
    /// A browser that has signed in with a token is known by its cookie only. So hosts are names of
    /// this machine, and those that the application gives. A page of another site can make its own
    /// name lead here.
    pub(crate) fn new(
        allow_changes: bool,
        hosts: Vec<String>,
        has_token: bool,
        diagnose: Option<Diagnose>,
    ) -> Self {
        let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        let hosts = match (has_token, hosts.is_empty()) {
            (true, _) => Some(own.into_iter().chain(hosts).collect()),
            (false, false) => Some(hosts),
            (false, true) => None,
        };
        Self {
            allow_changes,
            hosts,
            diagnose,
            sign_ins: SignIns::default(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            findings: Kept::new(FINDINGS_AGE_MAX),
            nodes: Kept::new(NODES_AGE_MAX),
        }
    }

    fn knows_host(&self, head: &impl RequestHead) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        head.host().is_some_and(|host| hosts.iter().any(|known| known.eq_ignore_ascii_case(host)))
    }

    /// What the doctor has found within the last minute. `None` if the application does not say how a node is made.
    pub(crate) async fn findings(&self) -> Option<Result<Vec<Finding>, String>> {
        let diagnose = self.diagnose.as_ref()?;
        let ask = async { Box::pin(diagnose()?.diagnose()).await.map_err(|error| error.to_string()) };
        Some(self.findings.get(ask).await)
    }

    /// The nodes, as they answered within the last seconds.
    async fn nodes(&self, manager: &SessionManager) -> Result<Vec<NodeInfo>, String> {
        self.nodes.get(async { manager.nodes().await.map_err(|error| error.to_string()) }).await
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("allow_changes", &self.allow_changes)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// The pages.
pub(crate) fn router(admin: &Admin) -> Router {
    let signed_in = Router::new()
        .route("/", get(async |path: NestedPath| to(visit::base(&path), FIRST_PAGE)))
        .route("/cluster", get(pages::cluster))
        .route("/sessions", get(sessions::search))
        .route("/sessions/{handle}", get(sessions::show))
        .route("/events", get(pages::events))
        .route("/locks", get(pages::locks))
        .route("/health", get(pages::health))
        .route("/stream", get(stream::stream))
        .route("/revocations", post(forms::revoke))
        .route("/sign-out", post(sign_in::sign_out))
        .route_layer(middleware::from_fn_with_state(admin.clone(), visit::require));
    Router::new()
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/console.css", get(async || text("text/css; charset=utf-8", STYLE)))
        .route("/icon.svg", get(async || text("image/svg+xml", ICON)))
        .route("/console.js", get(async || text("text/javascript; charset=utf-8", SCRIPT)))
        .merge(signed_in)
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .route_layer(middleware::from_fn_with_state(admin.clone(), guard))
        .fallback(no_page)
        .with_state(admin.clone())
}

/// Another path.
async fn no_page() -> Response {
    (StatusCode::NOT_FOUND, "the console has no page here; begin at its first page\n").into_response()
}

/// Refuses other hosts and other sites, and adds the headers that every page has.
async fn guard(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let is_known = admin.0.console.knows_host(&Head(&request));
    let is_foreign = is_from_another_site(&Head(&request));
    let mut response = if !is_known {
        tracing::warn!("a request to the console was refused: its host is unknown");
        (
            StatusCode::MISDIRECTED_REQUEST,
            "this host is unknown to the console; name it with --console-host\n",
        )
            .into_response()
    } else if is_foreign {
        tracing::warn!("a request to the console was refused: a page of another site has caused it");
        (StatusCode::FORBIDDEN, "a page of another site has caused this request\n").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn to(base: &str, page: &str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, format!("{base}{page}"))]).into_response()
}

fn text(content_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header::HOST;

    use super::*;

    #[test]
    fn only_known_hosts_are_served() {
        let knows = |has_token: bool, known: &[&str], hosts: &[&str]| {
            let known = known.iter().map(ToString::to_string).collect();
            let console = Console::new(false, known, has_token, None);
            let mut request = Request::new(Body::empty());
            for host in hosts {
                request.headers_mut().append(HOST, HeaderValue::from_str(host).unwrap());
            }
            console.knows_host(&Head(&request))
        };
        let with_token = |hosts: &[&str]| knows(true, &["Ops.Example"], hosts);
        for host in
            ["localhost", "localhost:7480", "127.0.0.1:1", "[::1]:7480", "ops.example", "OPS.EXAMPLE:443"]
        {
            assert!(with_token(&[host]), "{host}");
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
            assert!(!with_token(&[host]), "{host}");
        }
        assert!(!with_token(&[]) && !with_token(&["localhost", "evil.example"]));
        // The host application signs in: it decides who asks, and may name its hosts.
        assert!(knows(false, &[], &["any.example"]));
        assert!(
            knows(false, &["a.example"], &["a.example"]) && !knows(false, &["a.example"], &["localhost"])
        );
    }
}
