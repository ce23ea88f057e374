//! A login at an OpenID Connect provider, on axum: authorization code flow with state, nonce and PKCE.
//!
//! `DATABASE_URL=postgres://… PROVIDER=127.0.0.1:9000 CLIENT_SECRET=… cargo run --example openid_connect`
//!
//! Open the address that it prints, not `localhost`: the provider leads back there, and cookies belong to one host name.
//!
//! In a project of its own:
//!
//! ```text
//! cargo add pg-session-tower base64 hmac http-body-util percent-encoding serde_json sha2
//! cargo add axum --features form,query
//! cargo add hyper --features client,http1
//! cargo add hyper-util --features tokio
//! cargo add serde --features derive
//! cargo add tokio --features macros,net,rt-multi-thread,time
//! ```
//!
//! `provider.rs` is what the application knows of the provider.

mod provider;

use std::env;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Form, Router};
use pg_session_tower::TakenFlow;
use pg_session_tower::prelude::*;
use provider::{ANSWER_TIME_MAX, Claims, Provider};
use serde::Deserialize;
use tokio::net::TcpListener;

#[derive(Deserialize)]
struct Start {
    #[serde(default)]
    next: NextPage,
}

/// What the provider sends back through the browser.
#[derive(Deserialize)]
struct Callback {
    code: String,
    state: String,
}

async fn home(session: Session) -> Result<String, SessionError> {
    let name: Option<String> = session.get("name").await?;
    Ok(name.unwrap_or_else(|| "a visitor".to_owned()))
}

/// The provider answers with a redirect.
async fn login(
    session: Session,
    provider: State<Arc<Provider>>,
    start: Query<Start>,
) -> Result<Redirect, SessionError> {
    let flow = session.flow("example").return_to(start.next.as_str()).begin().await?;
    Ok(Redirect::to(&provider.authorize(flow.state(), flow.nonce(), &flow.code_challenge(), "query")))
}

/// The provider answers with a form that its page posts.
async fn login_by_form(
    session: Session,
    provider: State<Arc<Provider>>,
    start: Query<Start>,
) -> Result<Redirect, SessionError> {
    let flow = session.flow("example").form_post().return_to(start.next.as_str()).begin().await?;
    Ok(Redirect::to(&provider.authorize(flow.state(), flow.nonce(), &flow.code_challenge(), "form_post")))
}

async fn callback(
    session: Session,
    State(provider): State<Arc<Provider>>,
    Query(callback): Query<Callback>,
) -> Response {
    let flow = session.flow("example").take(&callback.state).await;
    finish(&session, &provider, &callback.code, flow).await
}

async fn callback_by_form(
    session: Session,
    State(provider): State<Arc<Provider>>,
    Form(callback): Form<Callback>,
) -> Response {
    let flow = session.flow("example").form_post().take(&callback.state).await;
    finish(&session, &provider, &callback.code, flow).await
}

async fn finish(
    session: &Session,
    provider: &Provider,
    code: &str,
    flow: Result<TakenFlow, pg_session_tower::Error>,
) -> Response {
    let flow = match flow {
        Ok(flow) => flow,
        Err(error) => return SessionError::from(error).into_response(),
    };
    let claims = provider.claims(code, flow.code_verifier(), flow.nonce());
    let claims = match tokio::time::timeout(ANSWER_TIME_MAX, claims).await {
        Ok(Ok(claims)) => claims,
        Ok(Err(error)) => return (StatusCode::BAD_GATEWAY, format!("{error}\n")).into_response(),
        Err(_) => return (StatusCode::GATEWAY_TIMEOUT, "The provider did not answer.\n").into_response(),
    };
    match sign_in(session, &claims).await {
        Ok(()) => Redirect::to(flow.return_to().as_str()).into_response(),
        Err(error) => SessionError::from(error).into_response(),
    }
}

async fn sign_in(session: &Session, claims: &Claims) -> Result<(), pg_session_tower::Error> {
    // Of several providers, each has its own subjects.
    session.login(UserId::named(&format!("{} {}", claims.iss, claims.sub))).await?;
    session.set("name", &claims.name).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let variable = |name: &str| env::var(name).map_err(|_| format!("set {name}"));
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let manager = SessionManager::connect(&variable("DATABASE_URL")?, config).await?;
    // The page of the provider posts the form, which is another site.
    let sessions = SessionConfig::from_env(manager)?.accept_cross_site_at(["/callback"]);
    let listener = TcpListener::bind(env::var("ADDRESS").unwrap_or("127.0.0.1:3000".into())).await?;
    let own = format!("http://{}", listener.local_addr()?);
    let provider = Provider {
        address: variable("PROVIDER")?,
        secret: variable("CLIENT_SECRET")?,
        redirect_uri: format!("{own}/callback"),
    };
    let app = Router::new()
        .route("/", get(home))
        .route("/login", get(login))
        .route("/login-by-form", get(login_by_form))
        .route("/callback", get(callback).post(callback_by_form))
        .layer(SessionLayer::from(sessions))
        .with_state(Arc::new(provider));
    println!("{own}");
    Ok(axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?)
}
