//! Caddy, Traefik and Envoy in front of an application that has no code for sessions, with the snippets of `docs/serve.md`. A
//! proxy that is not installed is skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use pg_session::UserId;

use super::behind_proxy::{Process, SECRET, python, received, snippet};
use super::server::{Application, Headers};
use crate::support::{POLL_INTERVAL, WAIT_MAX};

/// A running proxy, and the folder of its configuration.
struct Running {
    _process: Process,
    folder: PathBuf,
    url: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        // After an error, files stay in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Running {
    /// Status and body.
    async fn send(&self, method: Method, headers: Headers<'_>) -> (StatusCode, String) {
        self.send_to("/orders", method, headers).await
    }

    async fn send_to(&self, path: &str, method: Method, headers: Headers<'_>) -> (StatusCode, String) {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in [&[("host", "shop.example")][..], headers].concat() {
            request = request.header(name, value);
        }
        let request = request.body(Full::<Bytes>::default()).expect("a request");
        let answer =
            tokio::time::timeout(WAIT_MAX, client.request(request)).await.expect("an answer in time");
        let (head, body) = answer.expect("an answer").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        (head.status, String::from_utf8_lossy(&body).into_owned())
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a port").port()
}

/// Starts a proxy with this configuration, and waits until it listens. `None` if it is not installed.
async fn start(
    name: &str,
    port: u16,
    configuration: &str,
    command: impl FnOnce(&Path) -> Command,
) -> Option<Running> {
    let folder = std::env::temp_dir().join(format!("pg-session-{name}-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder");
    let path = folder.join("configuration.yaml");
    fs::write(&path, configuration).expect("a configuration");
    let mut command = command(&path);
    command.env("HOME", &folder).env("XDG_DATA_HOME", &folder).env("XDG_CONFIG_HOME", &folder);
    let process = Process::start(&mut command);
    if process.is_none() {
        fs::remove_dir_all(&folder).expect("the folder is removed");
    }
    let running = Running { _process: process?, folder, url: format!("http://127.0.0.1:{port}") };
    let began = Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(began.elapsed() < WAIT_MAX, "{name} does not listen");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Some(running)
}

/// The application gets the proved identity alone, the proxy shows no secret, and without `serve` no request passes.
async fn guards(name: &str, run: impl AsyncFnOnce(&str, u16) -> Option<Running>) {
    let app = Application::start(name).await;
    let session = app.manager.create(UserId::from(42)).set("role", "admin").await.expect("a session");
    let cookie = app.cookie(&session);
    let server =
        app.serve_with(&["--attribute", "role=X-Session-Role"], &[("PG_SESSION_PROXY_SECRET", SECRET)]);
    let Some((_python, port)) = python() else { return };
    let Some(proxy) = run(&server.url, port).await else { return };
    let cookie = [("cookie", cookie.as_str())];
    let began = Instant::now();
    // A proxy that listens may not have read its routes.
    while proxy.send(Method::GET, &cookie).await.0 != StatusCode::OK {
        assert!(began.elapsed() < WAIT_MAX, "{:?}", proxy.send(Method::GET, &cookie).await);
        tokio::time::sleep(POLL_INTERVAL).await;
    }

    let lies = [
        ("x-session-user", "1"),
        ("x-session-handle", "x"),
        ("x-session-role", "root"),
        ("x-pg-session-secret", "another secret"),
    ];
    let (status, body) = proxy.send(Method::GET, &[&cookie[..], &lies].concat()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(received(&body, "x-session-user"), ["42"]);
    assert_eq!(received(&body, "x-session-role"), ["admin"]);
    assert_eq!(received(&body, "x-session-handle"), [session.id().handle().to_string()]);
    assert!(!body.contains(SECRET), "the application gets the proxy's secret: {body}");

    for path in ["/", "/?page=2"] {
        let (status, body) = proxy.send_to(path, Method::GET, &cookie).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        assert_eq!(proxy.send_to(path, Method::GET, &[]).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    for headers in [&[][..], &lies, &[("x-pg-session-secret", SECRET)]] {
        assert_eq!(proxy.send(Method::GET, headers).await.0, StatusCode::UNAUTHORIZED, "{headers:?}");
    }
    let foreign =
        [&cookie[..], &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]].concat();
    assert_eq!(proxy.send(Method::POST, &foreign).await.0, StatusCode::FORBIDDEN, "another site's change");
    let disguised = [&foreign[..], &[("x-forwarded-method", "GET"), ("x-original-method", "GET")]].concat();
    assert_eq!(proxy.send(Method::POST, &disguised).await.0, StatusCode::FORBIDDEN);
    assert_eq!(proxy.send(Method::POST, &cookie).await.0, StatusCode::OK, "the application's own page");

    app.manager.delete(session.id()).await.expect("a deletion");
    let began = Instant::now();
    while proxy.send(Method::GET, &cookie).await.0 != StatusCode::UNAUTHORIZED {
        assert!(began.elapsed() < WAIT_MAX, "a session that has ended is served");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    server.stop();
    let (status, body) = proxy.send(Method::GET, &cookie).await;
    assert!(status.is_server_error(), "{status}: {body}");
}

#[tokio::test]
async fn caddy_guards_an_application_without_session_code() {
    guards("caddy", async |serve, application| {
        let port = free_port();
        let site = snippet("# Caddy", serve, application)
            .replace("shop.example {", &format!("http://shop.example:{port} {{"));
        let configuration = format!(
            "{{\n    admin off\n    auto_https off\n    log {{\n        level ERROR\n    }}\n}}\n{site}"
        );
        start("caddy", port, &configuration, |path| {
            let mut command = Command::new("caddy");
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(path);
            command
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn traefik_guards_an_application_without_session_code() {
    guards("traefik", async |serve, application| {
        let port = free_port();
        let configuration = snippet("# Traefik", serve, application);
        start("traefik", port, &configuration, |path| {
            let mut command = Command::new("traefik");
            command.arg(format!("--entrypoints.web.address=127.0.0.1:{port}"));
            command.arg(format!("--providers.file.filename={}", path.display()));
            command.args([
                "--log.level=ERROR",
                "--global.checknewversion=false",
                "--global.sendanonymoususage=false",
            ]);
            command
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn envoy_guards_an_application_without_session_code() {
    guards("envoy", async |serve, application| {
        let port = free_port();
        let filter = snippet("# Envoy", serve, application).replace('\n', "\n          ");
        let cluster = |name: &str, port: &str| {
            format!(
                "  - name: {name}\n    type: STATIC\n    load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: \
                 [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}] }}\n"
            )
        };
        let serve_port = serve.rsplit(':').next().expect("a port");
        let configuration = format!(
            r#"static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: shop
          route_config:
            virtual_hosts:
            - {{ name: shop, domains: ["*"], routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: shop }} }}] }}
          http_filters:
          {filter}
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
{}{}"#,
            cluster("pg_session", serve_port),
            cluster("shop", &application.to_string()),
        );
        start("envoy", port, &configuration, |path| {
            let mut command = Command::new("envoy");
            command.arg("-c").arg(path).args(["--disable-hot-restart", "-l", "error", "--concurrency", "1"]);
            command
        })
        .await
    })
    .await;
}
