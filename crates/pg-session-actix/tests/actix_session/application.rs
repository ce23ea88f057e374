//! Applications that were written for actix-session: only their store is ours.

use std::net::SocketAddr;

use actix_session::{Session, SessionMiddleware};
use actix_web::cookie::Key;
use actix_web::error::ErrorUnauthorized;
use actix_web::{App, Error, HttpServer, rt, web};
use pg_session::SessionManager;
use pg_session_actix::PgSessionStore;
use serde::Deserialize;

use crate::http::browser::Browser;
use crate::http::world::{Site, eventually};

#[derive(Deserialize)]
struct Credentials {
    name: String,
}

fn shown(session: &Session) -> Result<String, Error> {
    let user: Option<String> = session.get("user")?;
    let counter: u32 = session.get("counter")?.unwrap_or(0);
    Ok(format!("{} {counter}", user.as_deref().unwrap_or("visitor")))
}

async fn index(session: Session) -> Result<String, Error> {
    shown(&session)
}

async fn count(session: Session) -> Result<String, Error> {
    let counter: u32 = session.get("counter")?.unwrap_or(0);
    session.insert("counter", counter + 1)?;
    shown(&session)
}

async fn login(session: Session, credentials: web::Form<Credentials>) -> Result<String, Error> {
    session.insert("user", &credentials.name)?;
    session.renew();
    shown(&session)
}

async fn logout(session: Session) -> &'static str {
    session.purge();
    "logged out"
}

/// Gives a signed-in user a new id with each request.
async fn secret(session: Session) -> Result<&'static str, Error> {
    match session.get::<String>("user")? {
        Some(_) => session.renew(),
        None => return Err(ErrorUnauthorized("log in")),
    }
    Ok("the secret")
}

/// A node of the application, in a thread of its own until the process ends.
fn serve(node: SessionManager, key: Key) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let app = move || {
            App::new()
                .wrap(SessionMiddleware::new(PgSessionStore::new(node.clone()), key.clone()))
                .route("/", web::get().to(index))
                .route("/count", web::post().to(count))
                .route("/login", web::post().to(login))
                .route("/logout", web::post().to(logout))
                .route("/secret", web::get().to(secret))
        };
        let server = HttpServer::new(app).workers(1).listen(listener).unwrap().run();
        rt::System::new().block_on(server).unwrap();
    });
    addr
}

async fn two_nodes() -> (Site, SocketAddr, SocketAddr) {
    let site = Site::new(|_, _| panic!("it serves nothing")).await;
    let key = Key::generate();
    let here = serve(site.node.clone(), key.clone());
    let there = serve(site.other_node().await, key);
    (site, here, there)
}

#[tokio::test]
async fn actix_session_logs_in_and_out_on_two_nodes() {
    let (site, here, there) = two_nodes().await;
    let mut browser = Browser::new(here);
    assert_eq!(browser.page("/").await, "visitor 0");
    assert!(browser.jar.is_empty(), "an empty state needs no cookie");
    assert_eq!(browser.post("/count").await, "visitor 1");
    assert_eq!(browser.post("/count").await, "visitor 2");
    let mut former = browser.tab();
    assert_eq!(browser.form("/login", "name=ann").await.body, "ann 2");
    assert_ne!(browser.jar, former.jar, "a login has a new id");
    assert_eq!(former.page("/").await, "visitor 0", "the former id is dead");

    let mut elsewhere = browser.tab_at(there);
    assert_eq!(elsewhere.post("/count").await, "ann 3");
    browser.jar = elsewhere.jar.clone();
    assert_eq!(browser.page("/").await, "ann 3", "the cookie names the version that the node must have");

    assert_eq!(elsewhere.post("/logout").await, "logged out");
    assert!(elsewhere.jar.is_empty(), "the cookie is removed");
    eventually("the other node learns of it", async || browser.page("/").await == "visitor 0").await;
    assert_eq!(site.rows().await, 0);
}

#[tokio::test]
async fn actix_session_renews_the_id_with_each_request() {
    let (site, here, there) = two_nodes().await;
    let mut browser = Browser::new(here);
    assert_eq!(browser.get("/secret").await.status, 401);
    assert_eq!(browser.form("/login", "name=ann").await.body, "ann 0");
    for addr in [here, there, here] {
        let mut former = browser.tab_at(addr);
        browser = browser.tab_at(addr);
        assert_eq!(browser.page("/secret").await, "the secret");
        assert_ne!(browser.jar, former.jar);
        assert_eq!(former.get("/secret").await.status, 401, "the former id is dead");
    }
    assert_eq!(site.rows().await, 1);
}
