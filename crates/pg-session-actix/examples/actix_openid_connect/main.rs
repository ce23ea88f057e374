//! A login at an OpenID Connect provider, on actix-web: authorization code flow with state, nonce and PKCE.
//!
//! `DATABASE_URL=postgres://… PROVIDER=127.0.0.1:9000 CLIENT_SECRET=… cargo run --example actix_openid_connect`
//!
//! Open the address that it prints, not `localhost`: the provider leads back there, and cookies belong to one host name.
//!
//! In a project of its own:
//!
//! ```text
//! cargo add pg-session-actix actix-web base64 hmac http-body-util percent-encoding serde_json sha2
//! cargo add hyper --features client,http1
//! cargo add hyper-util --features tokio
//! cargo add serde --features derive
//! cargo add tokio --features net,time
//! ```
//!
//! `provider.rs` is what the application knows of the provider.

mod provider;

use std::env;
use std::error::Error;

use actix_web::http::{StatusCode, header::LOCATION};
use actix_web::{App, HttpResponse, HttpServer, web};
use pg_session_actix::TakenFlow;
use pg_session_actix::prelude::*;
use provider::{ANSWER_TIME_MAX, Claims, Provider};
use serde::Deserialize;

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
async fn login(
    session: Session,
    provider: web::Data<Provider>,
    start: web::Query<Start>,
) -> Result<HttpResponse, SessionError> {
    let flow = session.flow("example").return_to(start.next.as_str()).begin().await?;
    Ok(redirect(&provider.authorize(flow.state(), flow.nonce(), &flow.code_challenge(), "query")))
}

/// The provider answers with a form that its page posts.
async fn login_by_form(
    session: Session,
    provider: web::Data<Provider>,
    start: web::Query<Start>,
) -> Result<HttpResponse, SessionError> {
    let flow = session.flow("example").form_post().return_to(start.next.as_str()).begin().await?;
    Ok(redirect(&provider.authorize(flow.state(), flow.nonce(), &flow.code_challenge(), "form_post")))
}

async fn callback(
    session: Session,
    provider: web::Data<Provider>,
    callback: web::Query<Callback>,
) -> Result<HttpResponse, SessionError> {
    let flow = session.flow("example").take(&callback.state).await?;
    finish(&session, &provider, &callback, &flow).await
}

async fn callback_by_form(
    session: Session,
    provider: web::Data<Provider>,
    callback: web::Form<Callback>,
) -> Result<HttpResponse, SessionError> {
    let flow = session.flow("example").form_post().take(&callback.state).await?;
    finish(&session, &provider, &callback, &flow).await
}

async fn finish(
    session: &Session,
    provider: &Provider,
    callback: &Callback,
    flow: &TakenFlow,
) -> Result<HttpResponse, SessionError> {
    let code = match (&callback.error, &callback.code) {
        (None, Some(code)) => code,
        (Some(error), _) if error == "access_denied" => {
            return Ok(HttpResponse::Unauthorized().body(provider::ACCESS_DENIED));
        }
        _ => return Ok(HttpResponse::BadGateway().body(provider::NO_CODE)),
    };
    let claims = provider.claims(code, flow.code_verifier(), flow.nonce());
    let claims = match tokio::time::timeout(ANSWER_TIME_MAX, claims).await {
        Ok(Ok(claims)) => claims,
        Ok(Err(error)) => return Ok(HttpResponse::build(StatusCode::BAD_GATEWAY).body(format!("{error}\n"))),
        Err(_) => return Ok(HttpResponse::GatewayTimeout().body("The provider did not answer.\n")),
    };
    sign_in(session, &claims).await?;
    Ok(redirect(flow.return_to().as_str()))
}

async fn sign_in(session: &Session, claims: &Claims) -> Result<(), SessionError> {
    // Of several providers, each has its own subjects.
    let mut login = session.login(UserId::named(&format!("{} {}", claims.iss, claims.sub)));
    // By its label, the provider's session can be ended. The example of pg-session-tower has its back-channel logout.
    if let Some(sid) = &claims.sid {
        login = login.label(&provider::label(&claims.iss, sid));
    }
    login.await?;
    Ok(session.set("name", &claims.name).await?)
}

fn redirect(page: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((LOCATION, page)).finish()
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let variable = |name: &str| env::var(name).map_err(|_| format!("set {name}"));
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let manager = SessionManager::connect(&variable("DATABASE_URL")?, config).await?;
    // The page of the provider posts the form, which is another site.
    let sessions = SessionConfig::from_env(manager)?.accept_cross_site_at(["/callback"]);
    let sessions = SessionMiddleware::from(sessions);
    let listener = std::net::TcpListener::bind(env::var("ADDRESS").unwrap_or("127.0.0.1:3000".to_owned()))?;
    let own = format!("http://{}", listener.local_addr()?);
    let provider = web::Data::new(Provider {
        address: variable("PROVIDER")?,
        secret: variable("CLIENT_SECRET")?,
        redirect_uri: format!("{own}/callback"),
    });
    let app = move || {
        App::new()
            .app_data(provider.clone())
            .wrap(sessions.clone()) // made once: workers share it
            .route("/", web::get().to(home))
            .route("/login", web::get().to(login))
            .route("/login-by-form", web::get().to(login_by_form))
            .route("/callback", web::get().to(callback))
            .route("/callback", web::post().to(callback_by_form))
    };
    println!("{own}");
    Ok(HttpServer::new(app).listen(listener)?.run().await?)
}
