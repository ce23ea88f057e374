//! The four tests that the front page shows.

use std::time::Duration;

use pg_session_test::{Browser, Node, TestDatabase};

use crate::application::application;

async fn signed_in(node: &Node) -> Browser {
    let mut browser = Browser::new(application(node));
    browser.post("/login").await.success();
    browser
}

#[tokio::test]
async fn a_login_survives_a_restart() {
    let mut node = TestDatabase::new().await.node().await;
    let mut browser = signed_in(&node).await;
    node.restart().await;
    browser.move_to(application(&node));
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
async fn a_disconnected_node_answers_503_and_never_guesses() {
    let node = TestDatabase::new().await.node().await;
    let mut browser = signed_in(&node).await;
    node.cut();
    node.wait_until_not_trusted().await;
    assert_eq!(browser.get("/me").await.status, 503);
}
