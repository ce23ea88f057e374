//! What an application knows of its OpenID Connect provider: where it is, and how to exchange a code for verified claims.
//!
//! This provider speaks plain HTTP and signs its tokens with the client's secret (HS256). For another one, the crate
//! `openidconnect` does what `Provider` does. The session's part stays the same.

#![allow(unreachable_pub, reason = "a module of an example")]
#![allow(clippy::disallowed_methods, reason = "the end of an id token is real time")]

use std::error::Error;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;

pub const CLIENT_ID: &str = "shop";
const ANSWER_BYTES_MAX: usize = 64 * 1024;
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// For a user who has refused the login at the provider.
pub const ACCESS_DENIED: &str = "The login was refused at the provider. Log in again to sign in.\n";
/// For every other error of the provider.
pub const NO_CODE: &str = "The provider could not sign you in. Log in again.\n";

pub type Failure = Box<dyn Error + Send + Sync>;

/// The provider, and how it knows this application.
pub struct Provider {
    pub address: String,
    pub secret: String,
    pub redirect_uri: String,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
pub struct Claims {
    pub iss: String,
    aud: String,
    pub sub: String,
    /// The provider's session.
    pub sid: Option<String>,
    exp: u64,
    nonce: String,
    pub name: String,
}

/// The label of the sessions that belong to a session of the provider. Its length does not depend on the provider.
pub fn label(iss: &str, sid: &str) -> String {
    format!("oidc:sid:{}", URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{iss} {sid}"))))
}

impl Provider {
    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the browser is sent.
    pub fn authorize(&self, state: &str, nonce: &str, challenge: &str, mode: &str) -> String {
        format!(
            "{}/authorize?response_type=code&scope=openid%20profile&client_id={CLIENT_ID}&redirect_uri={}\
             &response_mode={mode}&state={state}&nonce={nonce}&code_challenge={challenge}&code_challenge_method=S256",
            self.issuer(),
            utf8_percent_encode(&self.redirect_uri, NON_ALPHANUMERIC),
        )
    }

    /// Exchanges the code for an id token, and verifies that.
    pub async fn claims(&self, code: &str, verifier: &str, nonce: &str) -> Result<Claims, Failure> {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let form = format!(
            "grant_type=authorization_code&client_id={CLIENT_ID}&client_secret={}&redirect_uri={}&code={}&code_verifier={}",
            encode(&self.secret),
            encode(&self.redirect_uri),
            encode(code),
            encode(verifier),
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
        self.verify(&tokens.id_token, nonce)
    }

    fn verify(&self, token: &str, nonce: &str) -> Result<Claims, Failure> {
        let claims: Claims = serde_json::from_slice(&self.signed(token, "JWT")?)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        if claims.iss != self.issuer() || claims.aud != CLIENT_ID || claims.exp <= now {
            return Err("The id token is of another provider, for another client, or too old.".into());
        }
        if claims.nonce != nonce {
            return Err("The id token belongs to another login.".into());
        }
        Ok(claims)
    }

    /// The claims of a token that the provider has signed. Its type is `JWT` or `typ`, if it has one.
    pub fn signed(&self, token: &str, typ: &str) -> Result<Vec<u8>, Failure> {
        let (signed, signature) = token.rsplit_once('.').ok_or("The token has no signature.")?;
        let (header, claims) = signed.split_once('.').ok_or("The token has no claims.")?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
        // The token does not choose the algorithm: `none` is no signature.
        if header.alg != "HS256" {
            return Err("The token has another algorithm than HS256.".into());
        }
        if header.crit.is_some() {
            return Err("The token has extensions that must be understood.".into());
        }
        if header.typ.is_some_and(|found| !["JWT", typ].iter().any(|typ| found.eq_ignore_ascii_case(typ))) {
            return Err("The token is of another type.".into());
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes())?;
        mac.update(signed.as_bytes());
        mac.verify_slice(&URL_SAFE_NO_PAD.decode(signature)?)?;
        Ok(URL_SAFE_NO_PAD.decode(claims)?)
    }
}
