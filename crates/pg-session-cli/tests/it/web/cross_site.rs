//! Another site in a real browser: what its page can do with the session of a user of ours.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{Html, Response};
use axum::routing::{any, get};
use pg_session::{Config, Migrations, SessionManager};
use pg_session_tower::{Session, SessionConfig, SessionError, SessionLayer};
use tokio::net::TcpListener;

use super::chromium::{Browser, Driver};
use crate::support::{POLL_INTERVAL, WAIT_MAX, World};

/// The ways in which a page can cause a request.
const WAYS: [&str; 5] = ["/fetch", "/form", "/image", "/frame", "/socket"];

/// Of each way: the status of the answer, and the user whom the handler has seen, if it was reached.
type Arrivals = Arc<Mutex<BTreeMap<String, (u16, Option<String>)>>>;

const SEEN_USER: &str = "x-seen-user";

/// A page that causes a request in each way, with whatever cookies the browser sends along.
fn page(target: &str) -> String {
    let socket = target.replace("http://", "ws://");
    format!(
        r#"<!doctype html><title>page</title>
        <form method="post" action="{target}/form" target="answer"></form><iframe name="answer"></iframe>
        <img src="{target}/image"><iframe src="{target}/frame"></iframe>
        <script>
            document.forms[0].submit();
            fetch("{target}/fetch", {{ method: "POST", mode: "no-cors", credentials: "include" }});
            new WebSocket("{socket}/socket");
        </script>"#
    )
}

async fn reached(session: Session) -> Result<Response, SessionError> {
    let user = session.user_id().await?.map_or_else(|| "nobody".to_owned(), |user| user.to_string());
    session.set("changed", &true).await?;
    let mut response = Response::new("reached".into());
    response.headers_mut().insert(SEEN_USER, user.parse().expect("a number or a word"));
    Ok(response)
}

async fn login(session: Session) -> Result<&'static str, SessionError> {
    session.login(42).await?;
    Ok("signed in")
}

fn app(sessions: SessionConfig, origin: &str, arrivals: &Arrivals) -> Router {
    let (own, arrivals) = (page(origin), Arc::clone(arrivals));
    let record = move |request: Request, next: Next| {
        let arrivals = Arc::clone(&arrivals);
        async move {
            let path = request.uri().path().to_owned();
            let response = next.run(request).await;
            let user = response.headers().get(SEEN_USER).and_then(|user| user.to_str().ok());
            let arrival = (response.status().as_u16(), user.map(str::to_owned));
            arrivals.lock().expect("no test panics with it").insert(path, arrival);
            response
        }
    };
    let mut app = Router::new().route("/login", get(login)).route("/page", get(async || Html(own))).route(
        "/user",
        get(async |session: Session| {
            let user = session.user_id().await.map_err(SessionError::from)?;
            Ok::<_, SessionError>(user.map_or_else(|| "nobody".to_owned(), |user| user.to_string()))
        }),
    );
    for way in WAYS {
        app = app.route(way, any(reached));
    }
    app.layer(SessionLayer::from(sessions)).layer(from_fn(record))
}

/// Opens the page, and returns what arrived when all five requests have.
async fn arrivals_of(browser: &mut Browser, page: &str, arrivals: &Arrivals) -> Vec<(u16, Option<String>)> {
    arrivals.lock().expect("no test panics with it").clear();
    browser.open(page).await;
    let began = Instant::now();
    loop {
        let arrived = arrivals.lock().expect("no test panics with it").clone();
        let found: Vec<_> = WAYS.iter().filter_map(|way| arrived.get(*way).cloned()).collect();
        if found.len() == WAYS.len() {
            return found;
        }
        assert!(began.elapsed() < WAIT_MAX, "some requests never came: {arrived:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_site_in_a_browser_acts_for_no_user() {
    let world = World::new("cross_site").await;
    let mut config = Config::default();
    "cross_site".clone_into(&mut config.schema);
    config.migrations = Migrations::Apply;
    let node = SessionManager::connect(&world.url, config).await.expect("a node");
    let sessions = SessionConfig::development(node).expect("random numbers");

    let arrivals = Arrivals::default();
    let bind = || async { TcpListener::bind("127.0.0.1:0").await.expect("a free port") };
    let (own, other) = (bind().await, bind().await);
    let port = |listener: &TcpListener| listener.local_addr().expect("a port").port();
    // For a browser, these are two sites.
    let origin = format!("http://localhost:{}", port(&own));
    let elsewhere = format!("http://127.0.0.1:{}", port(&other));
    let app = app(sessions, &origin, &arrivals);
    let foreign = page(&origin);
    tokio::spawn(async { axum::serve(own, app).await });
    tokio::spawn(async { axum::serve(other, Router::new().fallback(async || Html(foreign))).await });

    let driver = Driver::start();
    let mut browser = driver.browser().await;
    browser.open(&format!("{origin}/login")).await;
    let user = Some("42".to_owned());
    let own = arrivals_of(&mut browser, &format!("{origin}/page"), &arrivals).await;
    assert_eq!(own, vec![(200, user); WAYS.len()], "{WAYS:?} of the own site act for the user");

    let foreign = arrivals_of(&mut browser, &elsewhere, &arrivals).await;
    let signed_out = (200, Some("nobody".to_owned()));
    assert_eq!(foreign, [(403, None), (403, None), signed_out.clone(), signed_out, (403, None)], "{WAYS:?}");
    browser.open(&format!("{origin}/user")).await;
    browser.wait_for("document.body.innerText === '42'").await;
    browser.close().await;
}
