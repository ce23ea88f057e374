//! The layer of this library.

use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use pg_session::{Config, Migrations, SessionManager, Signer, SigningKey};
use pg_session_tower::{Session, SessionError, SessionLayer};

pub(crate) async fn router(url: &str) -> anyhow::Result<Router> {
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let manager = SessionManager::connect(url, config).await?;
    let signer = Signer::from_base64(&SigningKey::generate()?.expose_base64())?;
    Ok(Router::new()
        .route("/login/{user}", post(login))
        .route("/", get(page))
        .route("/count", post(add).get(count))
        .layer(SessionLayer::new(manager, signer)))
}

async fn login(session: Session, Path(user): Path<i64>) -> Result<(), SessionError> {
    session.login(user).await?;
    session.set("theme", crate::THEME).await?;
    Ok(())
}

async fn page(session: Session) -> Result<String, SessionError> {
    let user = session.user_id().await?.and_then(pg_session::UserId::as_integer).unwrap_or_default();
    let theme: Option<String> = session.get("theme").await?;
    Ok(crate::page(user, &theme.unwrap_or_default()))
}

async fn add(session: Session) -> Result<String, SessionError> {
    let count = session.modify("count", |count: Option<u64>| count.unwrap_or(0) + 1).await?;
    Ok(count.to_string())
}

async fn count(session: Session) -> Result<String, SessionError> {
    let count: Option<u64> = session.get("count").await?;
    Ok(count.unwrap_or(0).to_string())
}
