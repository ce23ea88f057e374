//! tower-sessions with the stores that its documentation recommends.

use anyhow::Context;
use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use time::Duration;
use tower_sessions::session::Error;
use tower_sessions::{CachingSessionStore, Expiry, Session, SessionManagerLayer, SessionStore};
use tower_sessions_moka_store::MokaStore;
use tower_sessions_redis_store::RedisStore;
use tower_sessions_redis_store::fred::prelude::{Builder, ClientLike, Config};
use tower_sessions_sqlx_store::PostgresStore;
use tower_sessions_sqlx_store::sqlx::postgres::PgPoolOptions;

/// Connections to either store.
const CONNECTIONS: u32 = 32;
/// Sessions in the memory of a node.
const CACHED_MAX: u64 = 100_000;

pub(crate) async fn sqlx(url: &str) -> anyhow::Result<Router> {
    Ok(router(postgres(url).await?))
}

pub(crate) async fn moka(url: &str) -> anyhow::Result<Router> {
    Ok(router(CachingSessionStore::new(MokaStore::new(Some(CACHED_MAX)), postgres(url).await?)))
}

pub(crate) async fn redis(url: &str) -> anyhow::Result<Router> {
    let size = usize::try_from(CONNECTIONS)?;
    let pool = Builder::from_config(Config::from_url(url)?).build_pool(size)?;
    pool.init().await.context("no connection to Redis")?;
    Ok(router(RedisStore::new(pool)))
}

async fn postgres(url: &str) -> anyhow::Result<PostgresStore> {
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(url).await?;
    let store = PostgresStore::new(pool);
    store.migrate().await?;
    Ok(store)
}

fn router<S: SessionStore + Clone>(store: S) -> Router {
    Router::new()
        .route("/login/{user}", post(login))
        .route("/", get(page))
        .route("/count", post(add).get(count))
        .layer(SessionManagerLayer::new(store).with_expiry(Expiry::OnInactivity(Duration::days(1))))
}

/// An error of the session as an answer.
struct Failed(Error);

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl axum::response::IntoResponse for Failed {
    fn into_response(self) -> axum::response::Response {
        (axum::http::StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}

async fn login(session: Session, Path(user): Path<i64>) -> Result<(), Failed> {
    session.cycle_id().await?;
    session.insert("user", user).await?;
    Ok(session.insert("theme", crate::THEME).await?)
}

async fn page(session: Session) -> Result<String, Failed> {
    let user: Option<i64> = session.get("user").await?;
    let theme: Option<String> = session.get("theme").await?;
    Ok(crate::page(user.unwrap_or_default(), &theme.unwrap_or_default()))
}

async fn add(session: Session) -> Result<String, Failed> {
    let count = session.get::<u64>("count").await?.unwrap_or(0) + 1;
    session.insert("count", count).await?;
    Ok(count.to_string())
}

async fn count(session: Session) -> Result<String, Failed> {
    Ok(session.get::<u64>("count").await?.unwrap_or(0).to_string())
}
