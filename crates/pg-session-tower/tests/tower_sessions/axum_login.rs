//! axum-login on the store: the example, run as its reader runs it.

use pg_sandbox::Sandbox;
use pg_session::{Config, SessionManager};

use crate::http_tests::browser::Browser;
use crate::http_tests::example::Server;
use crate::http_tests::world::eventually;

#[tokio::test]
async fn axum_login_user_can_be_logged_out_by_pg_session() {
    let sandbox = Sandbox::start().expect("PostgreSQL starts");
    let (_server, addr) = Server::start("axum_login", &sandbox.url());
    let other_node = SessionManager::connect(&sandbox.url(), Config::default()).await.expect("it starts");
    let mut browser = Browser::new(addr);
    assert_eq!(browser.get("/").await.status, 401);
    assert_eq!(browser.request("POST", "/login/ann/pears").await.status, 401);
    assert_eq!(browser.request("POST", "/login/ann/apples").await.status, 200);
    assert_eq!(browser.page("/").await, "hello ann");

    let sessions = other_node.user(1).list().await.expect("a list");
    assert_eq!(sessions.len(), 1, "the store recorded the user");

    assert_eq!(other_node.user(1).delete().await.expect("they end"), 1);
    eventually("the example learns of it", async || browser.get("/").await.status == 401).await;
}
