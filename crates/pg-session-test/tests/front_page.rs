//! The tests of this crate's front page.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests may panic")]

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use pg_session_test::{Browser, Node, TestDatabase};
use pg_session_tower::{Session, SessionError, SessionLayer};

fn app(node: &Node) -> Router {
    let me = async |session: Session| -> Result<String, SessionError> {
        Ok(if session.user_id().await?.is_some() { "signed in" } else { "visitor" }.to_owned())
    };
    let login = async |session: Session| -> Result<(), SessionError> { Ok(session.login(42).await?) };
    let logout_others = async |session: Session| -> Result<String, SessionError> {
        Ok(session.logout_others().await?.to_string())
    };
    Router::new()
        .route("/me", get(me))
        .route("/login", post(login))
        .route("/logout-others", post(logout_others))
        .layer(SessionLayer::from(node.web()))
}

async fn signed_in(node: &Node) -> Browser {
    let mut browser = Browser::new(app(node));
    browser.post("/login").await.success();
    browser
}

#[tokio::test]
async fn a_login_survives_a_restart() {
    let mut node = TestDatabase::new().await.node().await;
    let mut browser = signed_in(&node).await;
    node.restart().await;
    browser.move_to(app(&node));
    assert_eq!(browser.get("/me").await.text(), "signed in");
}

#[tokio::test]
async fn a_user_is_signed_out_after_49_idle_hours() {
    let database = TestDatabase::new().await;
    let node = database.node().await;
    let mut browser = signed_in(&node).await;
    database.let_pass(Duration::from_secs(49 * 3600)).await;
    assert_eq!(browser.get("/me").await.text(), "visitor");
}

#[tokio::test]
async fn logging_out_the_others_ends_them_on_every_node() {
    let database = TestDatabase::new().await;
    let (a, b) = (database.node().await, database.node().await);
    let (mut phone, mut laptop) = (signed_in(&a).await, signed_in(&b).await);
    assert_eq!(laptop.post("/logout-others").await.text(), "1");
    database.catch_up().await;
    assert_eq!(phone.get("/me").await.text(), "visitor");
}

#[tokio::test]
async fn a_disconnected_node_refuses_instead_of_guessing() {
    let node = TestDatabase::new().await.node().await;
    let mut browser = signed_in(&node).await;
    node.cut();
    node.wait_until_not_trusted().await;
    assert_eq!(browser.get("/me").await.status, 503);
}
