//! The one stream of events of a page: the part of it that changes, whenever it has changed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::pages::Live;
use crate::serve::Server;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub(super) struct Wanted {
    page: Live,
}

struct Updates {
    server: Arc<Server>,
    headers: HeaderMap,
    page: Live,
    shown: String,
    _slot: OwnedSemaphorePermit,
}

pub(super) async fn stream(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let Ok(Query(Wanted { page })) = wanted else {
        return (StatusCode::BAD_REQUEST, "this page has no stream\n").into_response();
    };
    let slot =
        server.console.as_ref().and_then(|console| Arc::clone(&console.streams).try_acquire_owned().ok());
    let Some(slot) = slot else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response();
    };
    let updates = Updates { server, headers, page, shown: String::new(), _slot: slot };
    Sse::new(stream::unfold(updates, next)).keep_alive(KeepAlive::default()).into_response()
}

/// The next part that differs. Ends with the program and with the sign-in.
async fn next(mut updates: Updates) -> Option<(Result<Event, Infallible>, Updates)> {
    let stop = updates.server.stop.clone();
    let change = async {
        loop {
            updates.server.signed_in(&updates.headers)?;
            let text = updates.page.render(&updates.server).await.into_string();
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
