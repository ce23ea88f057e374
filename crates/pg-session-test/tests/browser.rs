//! What a browser of the test kit does beside the front page's tests: its cookies age, and it posts JSON.

#![allow(clippy::expect_used, reason = "tests may panic")]

use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use pg_session_test::{Browser, Node, TestDatabase};
use pg_session_tower::{Session, SessionError, SessionLayer};

fn application(node: &Node) -> Router {
    Router::new()
        .route("/login", post(async |session: Session| Ok::<_, SessionError>(session.login(42).await?)))
        .route("/echo", post(echo))
        .layer(SessionLayer::from(node.web()))
}

/// The type of the body, and the body.
async fn echo(headers: HeaderMap, body: String) -> String {
    format!("{} {body}", headers[CONTENT_TYPE].to_str().expect("text"))
}

#[tokio::test]
async fn cookies_age_with_the_time_of_the_database() {
    let database = TestDatabase::new().await;
    let node = database.node().await;
    let mut aging = Browser::new(application(&node)).with_time_of(&database);
    let mut other = Browser::new(application(&node));
    for browser in [&mut aging, &mut other] {
        browser.post("/login").await.success();
        assert!(browser.session_token().is_some());
    }
    database.let_pass(database.config().absolute_timeout + Duration::from_secs(60)).await;
    assert_eq!((aging.session_token().is_some(), other.session_token().is_some()), (false, true));
}

#[tokio::test]
async fn a_browser_posts_json() {
    let node = TestDatabase::new().await.node().await;
    let mut browser = Browser::new(application(&node));
    let reply = browser.post_json("/echo", &["apples", "pears"]).await.success();
    assert_eq!(reply.text(), r#"application/json ["apples","pears"]"#);
}
