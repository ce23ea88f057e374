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
use sha2::Sha256;
use tokio::net::TcpStream;

const CLIENT_ID: &str = "shop";
const ANSWER_BYTES_MAX: usize = 64 * 1024;
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

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
}

#[derive(Deserialize)]
pub struct Claims {
    pub iss: String,
    aud: String,
    pub sub: String,
    exp: u64,
    nonce: String,
    pub name: String,
}

impl Provider {
    /// Where the browser is sent.
    pub fn authorize(&self, state: &str, nonce: &str, challenge: &str, mode: &str) -> String {
        format!(
            "http://{}/authorize?response_type=code&scope=openid%20profile&client_id={CLIENT_ID}&redirect_uri={}\
             &response_mode={mode}&state={state}&nonce={nonce}&code_challenge={challenge}&code_challenge_method=S256",
            self.address,
            utf8_percent_encode(&self.redirect_uri, NON_ALPHANUMERIC),
        )
    }

    /// Exchanges the code for an id token, and verifies that.
    pub async fn claims(
        &self,
        code: &str,
        verifier: &str,
        nonce: &str,
    ) -> Result<Claims, Box<dyn Error + Send + Sync>> {
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
