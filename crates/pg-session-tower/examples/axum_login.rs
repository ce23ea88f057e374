//! axum-login on pg-session: an application built on tower-sessions changes its store, and nothing else.
//!
//! `DATABASE_URL=postgres://… cargo run --features tower-sessions --example axum_login`, then `curl` the address.

use std::{convert::Infallible, env, error::Error};

use axum::{Router, extract::Path, http::StatusCode, routing::get, routing::post};
use axum_login::{AuthManagerLayerBuilder, AuthSession, AuthUser, AuthnBackend, login_required};
use pg_session::{Config, Migrations, SessionManager, UserId};
use pg_session_tower::PgSessionStore;
use tower_sessions::SessionManagerLayer;

/// Two users. In life they are in a table.
const USERS: [(i64, &str, &str); 2] = [(1, "ann", "apples"), (2, "bob", "pears")];

#[derive(Clone, Debug)]
struct User(i64, &'static str, &'static str);

impl AuthUser for User {
    type Id = i64;
    fn id(&self) -> i64 {
        self.0
    }
    fn session_auth_hash(&self) -> &[u8] {
        self.2.as_bytes()
    }
}

#[derive(Clone)]
struct Backend;

impl AuthnBackend for Backend {
    type User = User;
    type Credentials = (String, String);
    type Error = Infallible;
    async fn authenticate(&self, (name, password): (String, String)) -> Result<Option<User>, Infallible> {
        let found = USERS.into_iter().find(|user| (user.1, user.2) == (&*name, &*password));
        Ok(found.map(|(id, name, password)| User(id, name, password)))
    }
    async fn get_user(&self, id: &i64) -> Result<Option<User>, Infallible> {
        let found = USERS.into_iter().find(|user| user.0 == *id);
        Ok(found.map(|(id, name, password)| User(id, name, password)))
    }
}

async fn login(mut auth: AuthSession<Backend>, Path(words): Path<(String, String)>) -> StatusCode {
    match auth.authenticate(words).await {
        Ok(Some(user)) if auth.login(&user).await.is_ok() => StatusCode::OK,
        Ok(None) => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn home(auth: AuthSession<Backend>) -> String {
    format!("hello {}", auth.user.map_or("nobody", |user| user.1))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let manager = SessionManager::connect(&url, config).await?;
    // Was: `PostgresStore::new(pool)`. The second line is optional: it lets pg-session know whose session it is.
    let store = PgSessionStore::new(manager)
        .user_of(|data| data.get("axum-login.data")?.get("user_id")?.as_i64().map(UserId::from));
    let sessions = SessionManagerLayer::new(store).with_signed(tower_sessions::cookie::Key::generate());
    let app = Router::new()
        .route("/", get(home))
        .route_layer(login_required!(Backend))
        .route("/login/{name}/{password}", post(login))
        .layer(AuthManagerLayerBuilder::new(Backend, sessions).build());
    let listener =
        tokio::net::TcpListener::bind(env::var("ADDRESS").unwrap_or("127.0.0.1:3000".into())).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
