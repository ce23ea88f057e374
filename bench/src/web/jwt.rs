//! A JWT in the cookie: HS256, the same claims, and a new token for each change. It cannot be revoked.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderValue, StatusCode, request::Parts};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Router, response::AppendHeaders};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Claims {
    sub: i64,
    exp: u64,
    theme: String,
    count: u64,
}

struct Keys {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

type WithCookie<T> = Result<(AppendHeaders<[(axum::http::HeaderName, HeaderValue); 1]>, T), StatusCode>;

pub(crate) fn router() -> anyhow::Result<Router> {
    let secret: [u8; 32] = std::array::from_fn(|_| fastrand::u8(..));
    let keys = Arc::new(Keys {
        signing: EncodingKey::from_secret(&secret),
        verifying: DecodingKey::from_secret(&secret),
        validation: Validation::default(),
    });
    Ok(Router::new()
        .route("/login/{user}", post(login))
        .route("/", get(async |claims: Claims| crate::page(claims.sub, &claims.theme)))
        .route("/count", post(add).get(async |claims: Claims| claims.count.to_string()))
        .layer(middleware::from_fn_with_state(Arc::clone(&keys), verify))
        .with_state(keys))
}

/// Verifies the cookie of each request, if it has one.
async fn verify(State(keys): State<Arc<Keys>>, mut request: Request, next: Next) -> Response {
    let cookie = request.headers().get(COOKIE).and_then(|cookie| cookie.to_str().ok());
    let token = cookie.and_then(|cookie| cookie.strip_prefix("token="));
    let claims = token.and_then(|token| {
        jsonwebtoken::decode::<Claims>(token, &keys.verifying, &keys.validation).ok().map(|data| data.claims)
    });
    if let Some(claims) = claims {
        request.extensions_mut().insert(claims);
    }
    next.run(request).await
}

impl<S: Sync> FromRequestParts<S> for Claims {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        parts.extensions.get::<Self>().cloned().ok_or(StatusCode::UNAUTHORIZED)
    }
}

async fn login(State(keys): State<Arc<Keys>>, Path(sub): Path<i64>) -> WithCookie<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let exp = now.as_secs() + 86_400;
    with_cookie(&keys, &Claims { sub, exp, theme: crate::THEME.to_owned(), count: 0 }, ())
}

async fn add(State(keys): State<Arc<Keys>>, mut claims: Claims) -> WithCookie<String> {
    claims.count += 1;
    with_cookie(&keys, &claims, claims.count.to_string())
}

fn with_cookie<T>(keys: &Keys, claims: &Claims, answer: T) -> WithCookie<T> {
    let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
    let token = jsonwebtoken::encode(&Header::default(), claims, &keys.signing).map_err(failed)?;
    let cookie = HeaderValue::try_from(format!("token={token}; HttpOnly; Secure; SameSite=Lax; Path=/"))
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), answer))
}
