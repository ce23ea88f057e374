//! Lists the locks that nodes hold.

use axum::Json;
use axum::extract::State;
use pg_session::HeldLock;
use serde::Serialize;

use super::error::ApiError;
use crate::Admin;
use crate::shared::rfc3339;

#[derive(Serialize)]
pub(super) struct Locks {
    locks: Vec<LockRow>,
}

#[derive(Serialize)]
struct LockRow {
    name: String,
    /// The handle of the session that it belongs to.
    session: Option<String>,
    holder: Option<String>,
    fence: i64,
    since: String,
    until: String,
}

/// The oldest first.
pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<Locks>, ApiError> {
    let held = admin.0.manager.locks().held().await?;
    let row = |HeldLock { session, name, holder, .. }| LockRow {
        name,
        session: session.map(|id| id.handle().to_string()),
        holder: holder.label,
        fence: holder.fence.get(),
        since: rfc3339(holder.since),
        until: rfc3339(holder.until),
    };
    Ok(Json(Locks { locks: held.into_iter().map(row).collect() }))
}
