//! Back-channel logout: the provider ends the sessions of one of its own sessions, or of a user.
//!
//! ```text
//! provider   POST logout token ─────────────────────────────────────────────────────────────────── 200
//! shop         └ verify ── BEGIN, keep `jti`, end sessions, COMMIT ── end again, everywhere() ── `jti` is complete ──┘
//! ```
//!
//! - `jti` is complete when no node can serve the sessions. Until then the token can be sent again, to any node. Afterwards it
//!   ends nothing, also after a restart. A provider that has lost the answer gets 200 again: the sessions have ended.
//! - The second end follows the commit. A login of this `sid` has either been committed before it, and ends, or looks
//!   for the `sid` after it, and finds it (`has_ended`).
//! - 200 is sent when no node can serve one of the sessions any more.

#![allow(unreachable_pub, reason = "a module of an example")]

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use axum::extract::rejection::FormRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Form, Json, Router};
use pg_session_tower::pg_session::sql::{self, Cause};
use pg_session_tower::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use crate::Shared;
use crate::provider::{CLIENT_ID, Failure, Provider, label};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const TOKEN_BYTES_MAX: usize = 16 * 1024;
const JTI_BYTES_MAX: usize = 255;
/// Since it was issued. It must be far less than the hour for which a `jti` is kept.
const TOKEN_AGE_MAX: u64 = 5 * 60;
/// What the clocks of provider and database may differ by.
const CLOCKS_DIFFER_MAX: u64 = 60;

/// What was ended is kept for an hour. An application creates the table in a migration.
const TABLE: &str = "
    BEGIN;
    SELECT pg_advisory_xact_lock(hashtext('provider_logouts'));
    CREATE TABLE IF NOT EXISTS provider_logouts (
        jti text PRIMARY KEY,
        label text,
        user_id text,
        is_complete boolean NOT NULL DEFAULT false,
        received_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX IF NOT EXISTS provider_logouts_label ON provider_logouts (label);
    CREATE INDEX IF NOT EXISTS provider_logouts_received_at ON provider_logouts (received_at);
    COMMIT";

/// Without the layer of the sessions: the provider has no cookie.
pub fn route() -> Router<Shared> {
    Router::new().route("/backchannel-logout", post(logout)).layer(DefaultBodyLimit::max(TOKEN_BYTES_MAX))
}

/// A connection for each call: logouts are rare. An application takes one from its pool, with TLS.
pub struct Logouts {
    database_url: String,
    manager: SessionManager,
    config: Config,
}

#[derive(Deserialize)]
struct Message {
    logout_token: String,
}

/// The specification knows no other status for failures than 400.
async fn logout(State(shop): State<Shared>, message: Result<Form<Message>, FormRejection>) -> Response {
    let token = message.map(|Form(message)| message.logout_token).map_err(Failure::from);
    let now = shop.logouts.manager.database_time();
    let (status, body) = match token.and_then(|token| verify(&shop.provider, &token, now)) {
        Err(refused) => (StatusCode::BAD_REQUEST, error("invalid_request", &refused.to_string())),
        Ok(logout) => match shop.logouts.carry_out(&logout).await {
            Ok(true) => (StatusCode::OK, Json(Value::Null)),
            Ok(false) => (StatusCode::BAD_REQUEST, error("invalid_request", "Another token had this jti.")),
            Err(failure) => {
                eprintln!("back-channel logout: {failure}");
                (StatusCode::BAD_REQUEST, error("server_error", "Send the token again."))
            }
        },
    };
    (status, [(CACHE_CONTROL, "no-store")], body).into_response()
}

fn error(code: &str, description: &str) -> Json<Value> {
    Json(json!({ "error": code, "error_description": description }))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    iat: u64,
    exp: u64,
    jti: String,
    sub: Option<String>,
    sid: Option<String>,
    events: HashMap<String, Value>,
}

/// A verified logout token.
struct Logout {
    jti: String,
    whose: Whose,
}

enum Whose {
    /// The sessions of a session of the provider.
    Label(String),
    User(UserId),
}

/// Of several providers, each has its own subjects.
pub fn user(iss: &str, sub: &str) -> UserId {
    UserId::named(&format!("{iss} {sub}"))
}

/// Section 2.6 of OpenID Connect Back-Channel Logout 1.0.
fn verify(provider: &Provider, token: &str, now: SystemTime) -> Result<Logout, Failure> {
    let claims: Value = serde_json::from_slice(&provider.signed(token, "logout+jwt")?)?;
    if claims.get("nonce").is_some() {
        return Err("A logout token has no nonce.".into());
    }
    let claims: Claims = serde_json::from_value(claims)?;
    let is_for_us = match &claims.aud {
        Audience::One(client) => client == CLIENT_ID,
        Audience::Several(clients) => clients.iter().any(|client| client == CLIENT_ID),
    };
    if claims.iss != provider.issuer() || !is_for_us {
        return Err("The token is of another provider, or for another client.".into());
    }
    let now = now.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let (age, ahead) = (now.saturating_sub(claims.iat), claims.iat.saturating_sub(now));
    if claims.exp <= now || age > TOKEN_AGE_MAX || ahead > CLOCKS_DIFFER_MAX {
        return Err("The token is too old, or of the future.".into());
    }
    if !claims.events.get(EVENT).is_some_and(Value::is_object) {
        return Err("The token is no logout token.".into());
    }
    let whose = match (claims.sid, claims.sub) {
        (Some(sid), _) => Whose::Label(label(&claims.iss, &sid)),
        (None, Some(sub)) => Whose::User(user(&claims.iss, &sub)),
        (None, None) => return Err("The token has neither sid nor sub.".into()),
    };
    if claims.jti.is_empty() || claims.jti.len() > JTI_BYTES_MAX {
        return Err("The token has no jti, or one that is too long.".into());
    }
    Ok(Logout { jti: format!("{} {}", claims.iss, claims.jti), whose })
}

impl Logouts {
    pub async fn new(database_url: String, manager: SessionManager, config: Config) -> Result<Self, Failure> {
        let logouts = Self { database_url, manager, config };
        logouts.client().await?.batch_execute(TABLE).await?;
        Ok(logouts)
    }

    /// Whether the provider has ended the session of this label: then a login that was on its way has come too late.
    pub async fn has_ended(&self, label: &str) -> Result<bool, Failure> {
        let found = "SELECT EXISTS (SELECT FROM provider_logouts WHERE label = $1)";
        Ok(self.client().await?.query_one(found, &[&label]).await?.get(0))
    }

    /// If an earlier call has returned true, it ends no session. Returns false, and ends none, if another token had this `jti`.
    async fn carry_out(&self, logout: &Logout) -> Result<bool, Failure> {
        let (label, user, end) = match &logout.whose {
            Whose::Label(label) => (Some(label), None, sql::end_label(label)),
            Whose::User(user) => (None, Some(user.as_uuid().to_string()), sql::end_user(*user)),
        };
        let end = end.cause(Cause::Backchannel).statement(&self.config)?;
        let parameters: Vec<&(dyn ToSql + Sync)> =
            end.parameters().iter().map(|text| text as &(dyn ToSql + Sync)).collect();

        let mut client = self.client().await?;
        let change = client.transaction().await?;
        change
            .execute("DELETE FROM provider_logouts WHERE received_at < now() - interval '1 hour'", &[])
            .await?;
        // It waits for another request with this token. After one that has failed, the sessions have ended already.
        let keep =
            "INSERT INTO provider_logouts (jti, label, user_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        if change.execute(keep, &[&logout.jti, &label, &user]).await? == 1 {
            change.query_one(end.text(), &parameters).await?;
        }
        change.commit().await?;

        let change = client.transaction().await?;
        let lock = "SELECT is_complete FROM provider_logouts
                    WHERE jti = $1 AND label IS NOT DISTINCT FROM $2 AND user_id IS NOT DISTINCT FROM $3 FOR UPDATE";
        match change.query_opt(lock, &[&logout.jti, &label, &user]).await? {
            None => return Ok(false),
            Some(known) if known.get(0) => return Ok(true),
            Some(_) => {}
        }
        let again = match &logout.whose {
            Whose::Label(label) => self.manager.label(label).delete(),
            Whose::User(user) => self.manager.user(*user).delete(),
        };
        again.cause(Cause::Backchannel).everywhere().await?;
        let complete = "UPDATE provider_logouts SET is_complete = true WHERE jti = $1";
        change.execute(complete, &[&logout.jti]).await?;
        change.commit().await?;
        Ok(true)
    }

    async fn client(&self) -> Result<Client, Failure> {
        let connecting = tokio_postgres::connect(&self.database_url, NoTls);
        let (client, connection) = tokio::time::timeout(Duration::from_secs(5), connecting).await??;
        // It ends with the client, whose calls return its errors.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }
}
