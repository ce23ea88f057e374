//! A login at an OpenID Connect provider, on axum: authorization code flow with state, nonce and PKCE. And its back-channel
//! logout: register `/backchannel-logout` at the provider.
//!
//! `DATABASE_URL=postgres://… PROVIDER=127.0.0.1:9000 CLIENT_SECRET=… cargo run --example openid_connect`
//!
//! Open the address that it prints, not `localhost`: the provider leads back there, and cookies belong to one host name.
//!
//! In a project of its own:
//!
//! ```text
//! cargo add pg-session-tower base64 hmac http-body-util percent-encoding serde_json sha2 tokio-postgres
//! cargo add axum --features form,json,query
//! cargo add hyper --features client,http1
//! cargo add hyper-util --features tokio
//! cargo add serde --features derive
//! cargo add tokio --features macros,net,rt-multi-thread,time
//! ```
//!
//! `provider.rs` is what the application knows of the provider.

mod backchannel;
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
use backchannel::Logouts;
use pg_session_tower::TakenFlow;
use pg_session_tower::prelude::*;
use provider::{ANSWER_TIME_MAX, Claims, Provider};
use serde::Deserialize;
use tokio::net::TcpListener;

struct Shop {
    provider: Provider,
    logouts: Logouts,
}

type Shared = Arc<Shop>;

#[derive(Deserialize)]
struct Start {
    #[serde(default)]
    next: NextPage,
}

/// What the provider sends back through the browser: a code, or an error.
#[derive(Deserialize)]
struct Callback {
    state: String,
    code: Option<String>,
    error: Option<String>,
}

async fn home(session: Session) -> Result<String, SessionError> {
    let name: Option<String> = session.get("name").await?;
    Ok(name.unwrap_or_else(|| "a visitor".to_owned()))
}

/// The provider answers with a redirect.
async fn login(session: Session, shop: State<Shared>, start: Query<Start>) -> Result<Redirect, SessionError> {
    let flow = session.flow("example").return_to(start.next.as_str()).begin().await?;
    Ok(Redirect::to(&shop.provider.authorize(flow.state(), flow.nonce(), &flow.code_challenge(), "query")))
}

/// The provider answers with a form that its page posts.
async fn login_by_form(
    session: Session,
    shop: State<Shared>,
    start: Query<Start>,
) -> Result<Redirect, SessionError> {
    let flow = session.flow("example").form_post().return_to(start.next.as_str()).begin().await?;
    Ok(Redirect::to(&shop.provider.authorize(
        flow.state(),
        flow.nonce(),
        &flow.code_challenge(),
        "form_post",
    )))
}

async fn callback(
    session: Session,
    State(shop): State<Shared>,
    Query(callback): Query<Callback>,
) -> Response {
    let flow = session.flow("example").take(&callback.state).await;
    finish(&session, &shop, &callback, flow).await
}

async fn callback_by_form(
    session: Session,
    State(shop): State<Shared>,
    Form(callback): Form<Callback>,
) -> Response {
    let flow = session.flow("example").form_post().take(&callback.state).await;
    finish(&session, &shop, &callback, flow).await
}

async fn finish(
    session: &Session,
    shop: &Shop,
    callback: &Callback,
    flow: Result<TakenFlow, pg_session_tower::Error>,
) -> Response {
    let flow = match flow {
        Ok(flow) => flow,
        Err(error) => return SessionError::from(error).into_response(),
    };
    let code = match (&callback.error, &callback.code) {
        (None, Some(code)) => code,
        (Some(error), _) if error == "access_denied" => {
            return (StatusCode::UNAUTHORIZED, provider::ACCESS_DENIED).into_response();
        }
        _ => return (StatusCode::BAD_GATEWAY, provider::NO_CODE).into_response(),
    };
    let claims = shop.provider.claims(code, flow.code_verifier(), flow.nonce());
    let claims = match tokio::time::timeout(ANSWER_TIME_MAX, claims).await {
        Ok(Ok(claims)) => claims,
        Ok(Err(error)) => return (StatusCode::BAD_GATEWAY, format!("{error}\n")).into_response(),
        Err(_) => return (StatusCode::GATEWAY_TIMEOUT, "The provider did not answer.\n").into_response(),
    };
    match sign_in(session, shop, &claims).await {
        Ok(true) => Redirect::to(flow.return_to().as_str()).into_response(),
        Ok(false) => {
            (StatusCode::BAD_REQUEST, "The provider has ended your session. Log in again.\n").into_response()
        }
        Err(error) => SessionError::from(error).into_response(),
    }
}

/// Returns false, and signs no user in, if the provider has ended its session meanwhile.
async fn sign_in(session: &Session, shop: &Shop, claims: &Claims) -> Result<bool, pg_session_tower::Error> {
    let mut login = session.login(backchannel::user(&claims.iss, &claims.sub));
    let label = claims.sid.as_ref().map(|sid| provider::label(&claims.iss, sid));
    if let Some(label) = &label {
        login = login.label(label);
    }
    login.await?;
    session.set("name", &claims.name).await?;
    let Some(label) = label else { return Ok(true) };
    let is_alive = shop.logouts.has_ended(&label).await.map(|ended| !ended).unwrap_or_else(|failure| {
        eprintln!("login: {failure}");
        false
    });
    if !is_alive {
        session.logout().await?;
    }
    Ok(is_alive)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let variable = |name: &str| env::var(name).map_err(|_| format!("set {name}"));
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let database_url = variable("DATABASE_URL")?;
    let manager = SessionManager::connect(&database_url, config.clone()).await?;
    let logouts =
        Logouts::new(database_url, manager.clone(), config).await.map_err(|error| error as Box<dyn Error>)?;
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
        .merge(backchannel::route())
        .with_state(Arc::new(Shop { provider, logouts }));
    println!("{own}");
    Ok(axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?)
}
