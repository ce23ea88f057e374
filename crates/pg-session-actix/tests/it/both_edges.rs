//! An axum node and an actix node serve the same users with the same cookie.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use pg_session_tower::{Session, SessionError, SessionLayer};
use pg_session_web::SessionConfig;

use crate::edge;
use crate::http::world::{Site, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_axum_node_and_an_actix_node_serve_one_user() {
    let site = Site::new(edge::serve).await;
    let on_actix = site.browser();
    let on_axum = serve(SessionConfig::new(site.other_node().await, site.signer.clone()));

    let mut browser = on_actix.tab_at(on_axum);
    assert_eq!(browser.page("/login/42").await, "signed in");
    let mut same = browser.tab_at(site.serve(site.sessions()));
    assert_eq!(same.page("/user").await, "42", "signed in on axum, known on actix");
    same.page("/set/cart/apples").await;
    browser.jar.clone_from(&same.jar);
    assert_eq!(browser.page("/get/cart").await, "apples", "written on actix, read on axum at once");
    same.page("/elevate").await;
    let mut former = browser.tab();
    browser.jar.clone_from(&same.jar);
    assert_eq!(browser.page("/get/cart").await, "apples", "under the new id");
    assert_eq!(former.page("/get/cart").await, "apples", "under the old one, for the grace");
    assert_eq!(same.page("/logout").await, "true");
    eventually("axum learns of it", async || browser.page("/get/cart").await == "none").await;
}

fn serve(sessions: SessionConfig) -> SocketAddr {
    let app = Router::new()
        .route("/login/{user}", get(login))
        .route("/get/{key}", get(read))
        .layer(SessionLayer::from(sessions));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let addr = listener.local_addr().expect("a port");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    tokio::spawn(async { axum::serve(listener, app).await.expect("it serves for ever") });
    addr
}

async fn login(session: Session, Path(user): Path<i64>) -> Result<&'static str, SessionError> {
    session.login(user).await?;
    Ok("signed in")
}

async fn read(session: Session, Path(key): Path<String>) -> Result<String, SessionError> {
    Ok(session.get(&key).await?.unwrap_or_else(|| "none".to_owned()))
}
