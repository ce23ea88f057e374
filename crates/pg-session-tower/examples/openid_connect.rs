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
//! The provider here speaks plain HTTP and signs its tokens with the client's secret (HS256). For another one, the crate
//! `openidconnect` does what `Provider` does. The session's part stays the same.

#![allow(clippy::disallowed_methods, reason = "the end of an id token is real time")]

use std::env;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Form, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pg_session_tower::pg_session::UserId;
use pg_session_tower::prelude::*;
use pg_session_tower::{BegunFlow, TakenFlow};
use serde::Deserialize;
use sha2::Sha256;
use tokio::net::{TcpListener, TcpStream};

const CLIENT_ID: &str = "shop";
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

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
    Ok(Redirect::to(&provider.authorize(&flow, "query")))
}

/// The provider answers with a form that its page posts.
async fn login_by_form(
    session: Session,
    provider: State<Arc<Provider>>,
    start: Query<Start>,
) -> Result<Redirect, SessionError> {
    let flow = session.flow("example").form_post().return_to(start.next.as_str()).begin().await?;
    Ok(Redirect::to(&provider.authorize(&flow, "form_post")))
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
    let claims = match tokio::time::timeout(ANSWER_TIME_MAX, provider.claims(code, &flow)).await {
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

/// The provider, and how it knows this application.
struct Provider {
    address: String,
    secret: String,
    redirect_uri: String,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    exp: u64,
    nonce: String,
    name: String,
}

impl Provider {
    fn authorize(&self, flow: &BegunFlow, mode: &str) -> String {
        format!(
            "http://{}/authorize?response_type=code&scope=openid%20profile&client_id={CLIENT_ID}&redirect_uri={}\
             &response_mode={mode}&state={}&nonce={}&code_challenge={}&code_challenge_method=S256",
            self.address,
            utf8_percent_encode(&self.redirect_uri, NON_ALPHANUMERIC),
            flow.state(),
            flow.nonce(),
            flow.code_challenge(),
        )
    }

    /// Exchanges the code for an id token, and verifies that.
    async fn claims(&self, code: &str, flow: &TakenFlow) -> Result<Claims, Box<dyn Error + Send + Sync>> {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let form = format!(
            "grant_type=authorization_code&client_id={CLIENT_ID}&client_secret={}&redirect_uri={}&code={}&code_verifier={}",
            encode(&self.secret),
            encode(&self.redirect_uri),
            encode(code),
            encode(flow.code_verifier()),
        );
        let stream = TokioIo::new(TcpStream::connect(&self.address).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(connection);
        let request = hyper::Request::post("/token")
            .header("host", &self.address)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))?;
        let answer = sender.send_request(request).await?;
        if answer.status() != 200 {
            return Err(format!("The provider has refused the code with status {}.", answer.status()).into());
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        let tokens: Tokens = serde_json::from_slice(&body)?;
        self.verify(&tokens.id_token, flow.nonce())
    }

    fn verify(&self, token: &str, nonce: &str) -> Result<Claims, Box<dyn Error + Send + Sync>> {
        let (signed, signature) = token.rsplit_once('.').ok_or("The id token has no signature.")?;
        let (header, claims) = signed.split_once('.').ok_or("The id token has no claims.")?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
        if header.alg != "HS256" {
            return Err("The id token has another algorithm than HS256.".into());
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes())?;
        mac.update(signed.as_bytes());
        mac.verify_slice(&URL_SAFE_NO_PAD.decode(signature)?)?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        if claims.iss != format!("http://{}", self.address) || claims.aud != CLIENT_ID || claims.exp <= now {
            return Err("The id token is of another provider, for another client, or too old.".into());
        }
        if claims.nonce != nonce {
            return Err("The id token belongs to another login.".into());
        }
        Ok(claims)
    }
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
