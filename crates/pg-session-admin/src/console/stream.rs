//! The one stream of events of a page: the part of it that changes, whenever it has changed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::pages::Live;
use super::visit::Visit;
use crate::Admin;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// For how long a stream relies on the sign-in of the host application.
const HOST_SIGN_IN_AGE_MAX: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
pub(super) struct Wanted {
    page: Live,
}

struct Updates {
    admin: Admin,
    headers: HeaderMap,
    /// `None`: as long as the sign-in.
    until: Option<Instant>,
    page: Live,
    shown: String,
    _slot: OwnedSemaphorePermit,
}

pub(super) async fn stream(
    State(admin): State<Admin>,
    Extension(visit): Extension<Visit>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let Ok(Query(Wanted { page })) = wanted else {
        return (StatusCode::BAD_REQUEST, "this page has no stream\n").into_response();
    };
    let Ok(slot) = Arc::clone(&admin.0.console.streams).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response();
    };
    // The host application is asked again when the browser opens the stream again.
    let until = visit.operator.is_some().then(|| Instant::now() + HOST_SIGN_IN_AGE_MAX);
    let updates = Updates { admin, headers, until, page, shown: String::new(), _slot: slot };
    Sse::new(stream::unfold(updates, next)).keep_alive(KeepAlive::default()).into_response()
}

/// The next part that differs. Ends with the program and with the sign-in.
async fn next(mut updates: Updates) -> Option<(Result<Event, Infallible>, Updates)> {
    let stop = updates.admin.0.stop.clone();
    let change = async {
        loop {
            match updates.until {
                Some(until) if Instant::now() < until => {}
                Some(_) => return None,
                None => drop(updates.admin.0.console.sign_ins.find(&updates.headers)?),
            }
            let text = updates.page.render(&updates.admin).await.into_string();
            if text != updates.shown {
                updates.shown = text;
                // As JSON it is one line.
                let data = serde_json::Value::from(updates.shown.as_str()).to_string();
                return Some((Ok(Event::default().data(data)), updates));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::select! {
        change = change => change,
        () = stop.cancelled() => None,
    }
}
