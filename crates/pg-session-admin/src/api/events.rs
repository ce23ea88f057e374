//! Lists what this node has observed, and what this process has changed.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::Admin;
use crate::audit::Change;

#[derive(Serialize)]
pub(super) struct Events {
    events: Vec<EventRow>,
    changes: Vec<Change>,
}

#[derive(Serialize)]
struct EventRow {
    time: String,
    event: String,
    cause: Option<&'static str>,
}

/// The newest first, at most 200 of each.
pub(super) async fn list(State(admin): State<Admin>) -> Json<Events> {
    let seen = admin.0.observed.all().into_iter();
    let row = |seen: crate::observed::Seen| EventRow {
        time: seen.time,
        event: seen.what,
        cause: seen.cause.map(pg_session::Cause::name),
    };
    Json(Events { events: seen.map(row).collect(), changes: admin.0.audit.changes() })
}
