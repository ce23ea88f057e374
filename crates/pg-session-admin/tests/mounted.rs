//! The routers inside of other applications, below paths of their choice, with their sign-in.

#![allow(clippy::expect_used, reason = "what panics here fails its test, also outside the test functions")]

/// The application that the documentation shows.
#[path = "../examples/console.rs"]
#[allow(dead_code, reason = "the tests need no `main`")]
mod example;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::{Extension, Router};
use pg_session::SessionManager;
use pg_session_admin::{Admin, Change, Operator, Secret};
use pg_session_test::{Browser, Node, TestDatabase, eventually};

const CONSOLE: &str = "/ops/sessions";
const TOKEN: &str = "the-admin-token-0123456789abcdef";

async fn logged_in(node: &Node, name: &str, password: &str) -> Browser {
    let mut browser = Browser::new(example::application(node.web()));
    let reply = browser.post_form("/login", &[("name", name), ("password", password)]).await;
    assert_eq!((reply.status, reply.location()), (StatusCode::SEE_OTHER, Some(CONSOLE)));
    browser
}

fn form_token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"form_token\" value=\"").expect("a form");
    rest.split('"').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_host_application_signs_operators_in_and_out() {
    let node = TestDatabase::new().await.node().await;
    let mut visitor = Browser::new(example::application(node.web()));
    for path in ["", "/cluster", "/sessions?user=7", "/sign-in", "/stream?page=cluster", "/console.js"] {
        let reply = visitor.get(&format!("{CONSOLE}{path}")).await;
        assert_eq!((reply.status, reply.location()), (StatusCode::SEE_OTHER, Some("/login")), "{path}");
    }
    let mut customer = logged_in(&node, "bob", "battery staple").await;
    assert_eq!(customer.get(&format!("{CONSOLE}/cluster")).await.status, StatusCode::FORBIDDEN);

    let mut ann = logged_in(&node, "ann", "correct horse").await;
    let start = ann.get(CONSOLE).await;
    assert_eq!(start.location(), Some("/ops/sessions/cluster"));
    for page in ["cluster", "sessions", "events", "locks", "health"] {
        let text = ann.get(&format!("{CONSOLE}/{page}")).await.success().text();
        // Every link leads to a page below the path of the host.
        let links: Vec<&str> = ["href=\"", "src=\"", "action=\"", "data-stream=\""]
            .iter()
            .flat_map(|name| text.split(*name).skip(1).filter_map(|rest| rest.split('"').next()))
            .collect();
        assert!(links.len() > 6, "{links:?}");
        for link in links {
            assert!(link.starts_with("/ops/sessions/") || link == "#main", "{page}: {link}");
        }
        assert!(text.contains("<span>1</span>") && !text.contains("read-only"), "the operator: {text}");
    }
    for file in ["console.css", "console.js"] {
        ann.get(&format!("{CONSOLE}/{file}")).await.success();
    }
    // The token's sign-in does not exist here.
    assert_eq!(ann.get(&format!("{CONSOLE}/sign-in")).await.status, StatusCode::NOT_FOUND);
    let entry = ann.post_form(&format!("{CONSOLE}/sign-in"), &[("token", TOKEN)]).await;
    assert_eq!(entry.status, StatusCode::NOT_FOUND);

    let ended = node.user(1).delete().await.expect("the operator's own session ends");
    assert_eq!(ended, 1);
    assert_eq!(ann.get(&format!("{CONSOLE}/cluster")).await.location(), Some("/login"));
}

#[tokio::test]
async fn a_mounted_console_ends_sessions_by_its_own_forms_only() {
    let database = TestDatabase::new().await;
    let (node, other) = (database.node().await, database.node().await);
    let victim = node.create(7).await.expect("a session");
    node.audit().start(Duration::from_secs(3_600)).await.expect("the role owns the tables");
    let mut ann = logged_in(&node, "ann", "correct horse").await;
    let page = ann.get(&format!("{CONSOLE}/sessions?user=7")).await.success().text();
    assert!(page.contains(&victim.id().handle().to_string()));
    assert!(!page.contains(&victim.id().expose().to_string()));
    let token = form_token(&page);
    let revocations = format!("{CONSOLE}/revocations");
    let order = |token: &str| {
        [("form_token", token), ("user", "7"), ("cause", "admin"), ("everywhere", "true")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let post = async |browser: &mut Browser, token: &str| {
        let order = order(token);
        let fields = order.each_ref().map(|(name, value)| (name.as_str(), value.as_str()));
        browser.post_form(&revocations, &fields).await
    };

    let mut without_cookie = ann.clone();
    without_cookie.remove_cookie("pg-session-console-form");
    assert_eq!(post(&mut without_cookie, &token).await.status, StatusCode::FORBIDDEN);
    let mut planted = ann.clone();
    for value in ["", "x", &"g".repeat(token.len())] {
        planted.set_cookie("pg-session-console-form", value);
        assert_eq!(post(&mut planted, value).await.status, StatusCode::FORBIDDEN, "{value}");
    }
    assert_eq!(post(&mut ann, "").await.status, StatusCode::FORBIDDEN);
    for (name, value) in [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site")] {
        let mut foreign = ann.clone().header(name, value);
        assert_eq!(post(&mut foreign, &token).await.status, StatusCode::FORBIDDEN, "{value}");
    }
    assert!(node.get(victim.id()).bypass_cache().await.expect("a read").is_some(), "nothing has ended");

    // Another node of the application accepts the form: the browser brings what proves it.
    ann.move_to(example::application(other.web()));
    let receipt = post(&mut ann, &token).await.success().text();
    assert!(receipt.contains("1 session ended: user 7, cause admin."), "{receipt}");
    assert!(receipt.contains("No node can serve them any more: 2 nodes answered"), "{receipt}");
    assert!(node.get(victim.id()).await.expect("a read").is_none());
    // The audit log of the database has the operator, and the receipt a moment later.
    eventually("the receipt is in the audit log", async || {
        let entries = node.audit().page(None, None).await.expect("the entries");
        assert_eq!((entries.len(), entries[0].actor.as_deref(), &*entries[0].cause), (1, Some("1"), "admin"));
        entries[0].receipt.is_some()
    })
    .await;
    let events = ann.get(&format!("{CONSOLE}/events")).await.success().text();
    assert!(events.contains("<td>console</td><td>1</td><td>user 7</td><td>admin</td>"), "{events}");
}

/// Names the operator that a header names: for tests only.
async fn by_header(mut request: Request, next: Next) -> axum::response::Response {
    let name = request.headers().get("x-test-operator").and_then(|name| name.to_str().ok());
    if let Some(name) = name.map(str::to_owned) {
        request.extensions_mut().insert(Operator::named(name));
    }
    next.run(request).await
}

#[tokio::test]
async fn operators_may_only_look_unless_the_host_says_so() {
    let node = TestDatabase::new().await.node().await;
    let session = node.create(7).await.expect("a session");
    let changes: Arc<Mutex<Vec<Change>>> = Arc::default();
    let seen = Arc::clone(&changes);
    let admin = Admin::builder(SessionManager::clone(&node))
        .token(Secret::new(TOKEN).expect("a secret"))
        .host("ops.example")
        .on_change(move |change| seen.lock().expect("no panic").push(change.clone()))
        .build();
    let app = Router::new()
        .nest("/deep/inside/console", admin.console().layer(middleware::from_fn(by_header)))
        .nest("/deep/inside/api", admin.api().layer(Extension(Operator::named("root").allow_changes())));
    let browser = || Browser::new(app.clone()).header("host", "ops.example");

    let name = "<b>&\"ann";
    let mut ann = browser().header("x-test-operator", name);
    let page = ann.get("/deep/inside/console/sessions?user=7").await.success().text();
    assert!(page.contains("read-only") && page.contains("&lt;b&gt;&amp;") && !page.contains("<b>"), "{page}");
    assert!(!page.contains("form_token"), "no form changes something: {page}");
    let token = ann.cookie("pg-session-console-form").expect("a cookie").to_owned();
    let order = [("form_token", token.as_str()), ("user", "7"), ("cause", "admin")];
    let refused = ann.post_form("/deep/inside/console/revocations", &order).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);

    // Without an operator, the token is asked for, on known hosts.
    let mut other = browser();
    let reply = other.get("/deep/inside/console/cluster").await;
    assert_eq!(reply.location(), Some("/deep/inside/console/sign-in"));
    let reply = other.post_form("/deep/inside/console/sign-in", &[("token", TOKEN)]).await;
    assert_eq!(reply.location(), Some("/deep/inside/console/cluster"));
    other.get("/deep/inside/console/cluster").await.success();
    let mut foreign = Browser::new(app.clone()).header("host", "evil.example");
    let reply = foreign.get("/deep/inside/console/sign-in").await;
    assert_eq!(reply.status, StatusCode::MISDIRECTED_REQUEST);

    // The API needs the token, also of an operator of the host, and names its own path.
    let order = br#"{"user":"7","cause":"admin"}"#.to_vec();
    let json = Some("application/json");
    let path = "/deep/inside/api/revocations";
    let reply = browser().send(Method::POST, path, json, order.clone()).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert!(node.get(session.id()).bypass_cache().await.expect("a read").is_some());
    let bearer = format!("Bearer {TOKEN}");
    let mut program = browser().header("authorization", &bearer);
    let document: serde_json::Value = program.get("/deep/inside/api/openapi.json").await.success().json();
    assert_eq!(document["servers"][0]["url"], "/deep/inside/api");
    let reply = program.send(Method::POST, path, json, order).await.success();
    assert_eq!(reply.json::<serde_json::Value>()["ended"], 1);
    let changes = changes.lock().expect("no panic");
    assert_eq!((changes.len(), changes[0].what.as_str(), changes[0].ended), (1, "user 7", Some(1)));
}
