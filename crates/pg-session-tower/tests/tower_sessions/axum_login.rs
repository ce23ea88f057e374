//! Applications that were written for axum-login: only their store is ours.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use axum_login::{AuthManagerLayerBuilder, AuthSession, AuthUser, AuthnBackend, login_required};
use pg_session::{Config, SessionManager, UserId};
use pg_session_tower::PgSessionStore;
use serde::Deserialize;
use tower_sessions::SessionManagerLayer;
use tower_sessions::cookie::Key;

use crate::http_tests::browser::Browser;
use crate::http_tests::example::Server;
use crate::http_tests::world::{Site, eventually, shared_url};

#[derive(Clone, Debug)]
struct User {
    id: i64,
    name: &'static str,
    password: String,
}

impl AuthUser for User {
    type Id = i64;
    fn id(&self) -> i64 {
        self.id
    }
    fn session_auth_hash(&self) -> &[u8] {
        self.password.as_bytes()
    }
}

/// The table of users, which all nodes read.
#[derive(Clone)]
struct Users(Arc<Mutex<Vec<User>>>);

impl Users {
    fn new() -> Self {
        let user = |id, name, password: &str| User { id, name, password: password.to_owned() };
        Self(Arc::new(Mutex::new(vec![user(1, "ann", "apples"), user(2, "bob", "pears")])))
    }

    fn find(&self, is_it: impl Fn(&User) -> bool) -> Option<User> {
        self.0.lock().unwrap().iter().find(|user| is_it(user)).cloned()
    }
}

#[derive(Clone, Deserialize)]
struct Credentials {
    name: String,
    password: String,
    next: Option<String>,
}

#[derive(Deserialize)]
struct NewPassword {
    password: String,
}

impl AuthnBackend for Users {
    type User = User;
    type Credentials = Credentials;
    type Error = Infallible;
    async fn authenticate(&self, credentials: Credentials) -> Result<Option<User>, Infallible> {
        Ok(self.find(|user| user.name == credentials.name && user.password == credentials.password))
    }
    async fn get_user(&self, id: &i64) -> Result<Option<User>, Infallible> {
        Ok(self.find(|user| user.id == *id))
    }
}

type Auth = AuthSession<Users>;

async fn login(mut auth: Auth, Form(credentials): Form<Credentials>) -> Response {
    let next = credentials.next.clone();
    let Some(user) = auth.authenticate(credentials).await.unwrap() else {
        return Redirect::to("/login").into_response();
    };
    auth.login(&user).await.unwrap();
    Redirect::to(next.as_deref().unwrap_or("/")).into_response()
}

async fn logout(mut auth: Auth) -> Redirect {
    auth.logout().await.unwrap();
    Redirect::to("/login")
}

async fn change_password(mut auth: Auth, Form(new): Form<NewPassword>) -> StatusCode {
    let mut user = auth.user.clone().unwrap();
    user.password = new.password;
    let id = user.id;
    *auth.backend.0.lock().unwrap().iter_mut().find(|user| user.id == id).unwrap() = user.clone();
    auth.login(&user).await.unwrap();
    StatusCode::NO_CONTENT
}

/// A node of the application.
async fn serve(store: PgSessionStore, users: &Users, key: &Key) -> SocketAddr {
    let sessions = SessionManagerLayer::new(store).with_signed(key.clone());
    let app = Router::new()
        .route("/", get(async |auth: Auth| auth.user.unwrap().name))
        .route("/password", post(change_password))
        .route_layer(login_required!(Users, login_url = "/login"))
        .route("/login", get(async || "name and password").post(login))
        .route("/logout", get(logout))
        .layer(AuthManagerLayerBuilder::new(users.clone(), sessions).build());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    addr
}

/// Two nodes of it, each with a store that `store` has made.
async fn two_nodes(store: fn(SessionManager) -> PgSessionStore) -> (Site, SocketAddr, SocketAddr) {
    let site = Site::new(|_, _| panic!("it serves nothing")).await;
    let (users, key) = (Users::new(), Key::generate());
    let here = serve(store(site.node.clone()), &users, &key).await;
    let there = serve(store(site.other_node().await), &users, &key).await;
    (site, here, there)
}

fn knowing_users(node: SessionManager) -> PgSessionStore {
    PgSessionStore::new(node)
        .user_of(|data| data.get("axum-login.data")?.get("user_id")?.as_i64().map(UserId::from))
}

async fn signed_in(addr: SocketAddr, fields: &str) -> Browser {
    let mut browser = Browser::new(addr);
    let reply = browser.form("/login", fields).await;
    assert_eq!((reply.status, reply.all("location")), (StatusCode::SEE_OTHER, vec!["/".to_owned()]));
    browser
}

const ANN: &str = "name=ann&password=apples";
const BOB: &str = "name=bob&password=pears";

async fn is_refused(browser: &mut Browser) -> bool {
    browser.get("/").await.status == StatusCode::TEMPORARY_REDIRECT
}

#[tokio::test]
async fn axum_login_logs_in_and_out_on_two_nodes() {
    for store in [PgSessionStore::new as fn(_) -> _, knowing_users] {
        let (site, here, there) = two_nodes(store).await;
        let mut browser = Browser::new(here);
        let reply = browser.get("/").await;
        assert_eq!(reply.status, StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(reply.all("location"), ["/login?next=%2F"]);
        assert_eq!(browser.page("/login").await, "name and password");
        let reply = browser.form("/login", "name=ann&password=pears").await;
        assert_eq!(reply.all("location"), ["/login"]);
        assert!(browser.jar.is_empty() && is_refused(&mut browser).await);

        let mut browser = signed_in(here, &format!("{ANN}&next=%2F")).await;
        let mut elsewhere = browser.tab_at(there);
        assert_eq!(browser.page("/").await, "ann");
        assert_eq!(elsewhere.page("/").await, "ann");
        assert_eq!(browser.get("/logout").await.all("location"), ["/login"]);
        assert!(browser.jar.is_empty(), "the cookie is removed");
        eventually("the other node learns of it", async || is_refused(&mut elsewhere).await).await;
        assert_eq!(site.rows().await, 0);
    }
}

#[tokio::test]
async fn axum_login_password_change_ends_other_sessions() {
    let (site, here, there) = two_nodes(PgSessionStore::new).await;
    let (mut laptop, mut phone) = (signed_in(here, ANN).await, signed_in(there, ANN).await);
    assert_eq!(phone.form("/password", "password=plums").await.status, StatusCode::NO_CONTENT);
    assert!(is_refused(&mut laptop).await, "it was signed in with the former password");
    assert!(laptop.jar.is_empty(), "its cookie is removed");
    assert_eq!(phone.page("/").await, "ann");
    assert_eq!(site.rows().await, 1, "axum-login has ended the laptop's session");
    assert_eq!(laptop.form("/login", ANN).await.all("location"), ["/login"]);
}

#[tokio::test]
async fn store_that_knows_axum_login_users_ends_them() {
    let (site, here, there) = two_nodes(knowing_users).await;
    let (mut laptop, mut phone) = (signed_in(here, ANN).await, signed_in(there, ANN).await);
    let mut bob = signed_in(there, BOB).await;
    assert_eq!(site.node.user(1).delete().await.unwrap(), 2);
    assert!(is_refused(&mut laptop).await);
    eventually("the other node learns of it", async || is_refused(&mut phone).await).await;
    assert_eq!(bob.page("/").await, "bob");
}

/// axum-login gives a session a new id unless a user is signed in already. So an attacker who has planted a signed-in session
/// in a browser would share the session of the user who logs in there.
#[tokio::test]
async fn axum_login_user_cannot_enter_session_of_another() {
    let (site, here, _) = two_nodes(knowing_users).await;
    let mut browser = signed_in(here, ANN).await;
    assert_eq!(browser.form("/login", BOB).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(browser.page("/").await, "ann");
    assert_eq!(site.node.user(2).list().await.unwrap().len(), 0);
    assert_eq!(browser.get("/logout").await.status, StatusCode::SEE_OTHER);
    assert_eq!(signed_in(here, BOB).await.page("/").await, "bob");
}

/// The example, run as its reader runs it.
#[tokio::test]
async fn axum_login_user_can_be_logged_out_by_pg_session() {
    let (_server, addr) = Server::start("axum_login", &shared_url());
    let other_node = SessionManager::connect(&shared_url(), Config::default()).await.expect("it starts");
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
