//! The examples of OpenID Connect, with a small provider that checks everything a provider has to check.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::HeaderName;
use sha2::{Digest, Sha256};

use crate::http::browser::{Browser, Reply};
use crate::http::example::Server;
use crate::http::world::shared_url;

pub const SECRET: &str = "the client's secret";

/// Codes that were given out and not taken, with the parameters of their authorization.
#[derive(Default)]
pub struct Provider {
    codes: Mutex<HashMap<String, HashMap<String, String>>>,
    /// What the next id token says instead of the truth.
    lies: Mutex<HashMap<&'static str, String>>,
    issuer: OnceLock<String>,
    /// The provider's own session of the user.
    pub sid: Mutex<&'static str>,
}

/// Starts it on a free port.
pub fn provide() -> (Arc<Provider>, SocketAddr) {
    let provider = Arc::new(Provider::default());
    let app = Router::new()
        .route("/authorize", get(authorize))
        .route("/token", post(token))
        .with_state(Arc::clone(&provider));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("a port");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    tokio::spawn(async { axum::serve(listener, app).await.expect("it serves for ever") });
    provider.issuer.set(format!("http://{address}")).expect("the first");
    (provider, address)
}

/// The user is signed in at the provider and agrees.
async fn authorize(
    State(provider): State<Arc<Provider>>,
    Query(asked): Query<HashMap<String, String>>,
) -> Response {
    assert_eq!((asked["response_type"].as_str(), asked["code_challenge_method"].as_str()), ("code", "S256"));
    let mut codes = provider.codes.lock().expect("no test panics with it");
    let code = format!("code-{}", codes.len());
    let (back, state, mode) = (&asked["redirect_uri"], &asked["state"], &asked["response_mode"]);
    let response = match mode.as_str() {
        "query" => Redirect::to(&format!("{back}?code={code}&state={state}")).into_response(),
        // What the form of its page posts.
        _ => format!("code={code}&state={state}").into_response(),
    };
    codes.insert(code, asked);
    response
}

async fn token(State(provider): State<Arc<Provider>>, Form(form): Form<HashMap<String, String>>) -> Response {
    let asked = provider.codes.lock().expect("no test panics with it").remove(&form["code"]);
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
    let Some(asked) = asked.filter(|asked| {
        form["client_secret"] == SECRET
            && asked["code_challenge"] == challenge
            && asked["redirect_uri"] == form["redirect_uri"]
            && asked["client_id"] == form["client_id"]
    }) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let lies = std::mem::take(&mut *provider.lies.lock().expect("no test panics with it"));
    let said = |name, truth: &str| lies.get(name).map_or_else(|| truth.to_owned(), String::clone);
    let claims = format!(
        r#"{{"iss":"{}","aud":"{}","sub":"ann","sid":"{}","exp":{},"nonce":"{}","name":"Ann"}}"#,
        said("iss", provider.issuer()),
        said("aud", &asked["client_id"]),
        provider.sid.lock().expect("no test panics with it"),
        said("exp", &(now() + 60).to_string()),
        said("nonce", &asked["nonce"]),
    );
    let header = format!(r#"{{"alg":"{}"}}"#, said("alg", "HS256"));
    let token = sign(&header, &claims, &said("key", SECRET));
    format!(r#"{{"id_token":"{token}","token_type":"Bearer"}}"#).into_response()
}

impl Provider {
    pub fn issuer(&self) -> &str {
        self.issuer.get().expect("it serves")
    }
}

/// Seconds since 1970.
#[allow(clippy::disallowed_methods, reason = "what a token says is real time")]
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A token with this header and these claims, signed with HMAC-SHA-256, whatever the header says.
pub fn sign(header: &str, claims: &str, key: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// A login of a browser as far as the provider's answer.
pub struct Login<'a> {
    shop: &'a mut Browser,
    provider: Browser,
}

impl Login<'_> {
    /// Begins a login, and answers what the provider sends back: an address, or a form.
    pub async fn begin(&mut self, path: &str) -> String {
        let reply = self.shop.get(path).await;
        assert_eq!(reply.status, 303, "{}", reply.body);
        let location = reply.all("location").concat();
        let (address, target) =
            location.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("an address");
        assert_eq!(address, self.provider.addr().to_string());
        let reply = self.provider.get(&format!("/{target}")).await;
        let back = reply.all("location").concat();
        if back.is_empty() {
            reply.body
        } else {
            back.split_once("/callback").expect("the callback").1.to_owned()
        }
    }
}

pub fn login(shop: &mut Browser, provider: SocketAddr) -> Login<'_> {
    Login { shop, provider: Browser::new(provider) }
}

pub fn arrival(reply: &Reply) -> (u16, String) {
    (reply.status.as_u16(), reply.all("location").concat())
}

/// With the example of this name.
pub async fn a_user_signs_in_at_an_openid_connect_provider(example: &str) {
    let (provider, address) = provide();
    let settings = [("PROVIDER", address.to_string()), ("CLIENT_SECRET", SECRET.to_owned())];
    let (_shop, shop) = Server::start_with(example, &shared_url(), &settings);
    let (mut browser, mut stranger) = (Browser::new(shop), Browser::new(shop));
    // The provider's redirects and forms come from another site.
    browser.headers.insert(HeaderName::from_static("sec-fetch-site"), "cross-site".parse().expect("a value"));

    // Two tabs, one by redirect and one by a form, come back in the other order.
    let first = login(&mut browser, address).begin("/login?next=/orders").await;
    let second = login(&mut browser, address).begin("/login-by-form?next=//evil.example").await;
    let refused = stranger.get(&format!("/callback{first}")).await;
    assert_eq!(refused.status, 400, "another browser: {}", refused.body);
    assert_eq!(arrival(&browser.form("/callback", &second).await), (303, "/".to_owned()));
    assert_eq!(browser.page("/").await, "Ann");
    assert_eq!(arrival(&browser.get(&format!("/callback{first}")).await), (303, "/orders".to_owned()));
    assert_eq!(browser.get(&format!("/callback{first}")).await.status, 400, "once");
    assert_eq!(browser.form("/callback", &second).await.status, 400, "once");

    // A token with other claims signs no user in.
    let mut browser = browser.tab();
    browser.jar.clear();
    for (claim, lie) in [
        ("nonce", "another"),
        ("iss", "http://evil.example"),
        ("aud", "another client"),
        ("exp", "1"),
        ("alg", "none"),
        ("key", "another secret"),
    ] {
        let back = login(&mut browser, address).begin("/login").await;
        provider.lies.lock().expect("no test panics with it").insert(claim, lie.to_owned());
        assert_eq!(browser.get(&format!("/callback{back}")).await.status, 502, "{claim}");
        assert_eq!(browser.page("/").await, "a visitor", "{claim}");
    }
    let back = login(&mut browser, address).begin("/login").await;
    assert_eq!(browser.get(&format!("/callback{}", back.replace("code-", "x"))).await.status, 502);
    assert_eq!(browser.page("/").await, "a visitor");
}

/// The provider sends the browser back with an error instead of a code (RFC 6749, 4.1.2.1).
pub async fn a_refusal_at_the_provider_uses_the_flow_up(example: &str) {
    let (_provider, address) = provide();
    let settings = [("PROVIDER", address.to_string()), ("CLIENT_SECRET", SECRET.to_owned())];
    let (_shop, shop) = Server::start_with(example, &shared_url(), &settings);
    let mut browser = Browser::new(shop);
    for (error, status, text) in
        [("access_denied", 401, "refused at the provider"), ("server_error", 502, "could not sign you in")]
    {
        for start in ["/login", "/login-by-form"] {
            let granted = login(&mut browser, address).begin(start).await;
            let (_, state) = granted.split_once("state=").expect("a state");
            let refused = format!("error={error}&error_description=%3Cb%3E&state={state}");
            let mut answers = Vec::new();
            // Then the answer that the user did not give.
            for answer in [refused.as_str(), granted.trim_start_matches('?')] {
                let reply = match start {
                    "/login" => browser.get(&format!("/callback?{answer}")).await,
                    _ => browser.form("/callback", answer).await,
                };
                answers.push(reply);
            }
            let [refusal, after] = answers.as_slice() else { panic!("two answers") };
            assert_eq!(refusal.status, status, "{start} {error}: {}", refusal.body);
            assert!(refusal.body.contains(text) && !refusal.body.contains("<b>"), "{}", refusal.body);
            assert_eq!(after.status, 400, "{start} {error}: the flow was used up");
            assert_eq!(browser.page("/").await, "a visitor");
        }
    }
    assert_eq!(browser.get("/callback?error=access_denied&state=x").await.status, 400, "of no flow");
}
