//! Ends sessions, with a cause.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use crate::serve::Server;
use crate::serve::audit::{By, cause};
use crate::serve::revoke::{Target, revoke};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    user: Option<String>,
    group: Option<String>,
    handle: Option<String>,
    #[serde(default)]
    all: bool,
    cause: String,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Serialize)]
pub(super) struct Outcome {
    dry_run: bool,
    /// Sessions that would end. `None` if they were ended.
    matching: Option<u64>,
    ended: u64,
}

/// Ends a session, or those of a user, of a group, or all.
pub(super) async fn create(
    State(server): State<Arc<Server>>,
    order: Result<Json<Order>, JsonRejection>,
) -> Result<Json<Outcome>, ApiError> {
    let Json(order) = order?;
    let cause = cause(&order.cause).map_err(ApiError::bad)?;
    let manager = server.manager();
    let (user, group, handle) = (order.user.as_deref(), order.group.as_deref(), order.handle.as_deref());
    let target = Target::of(manager, user, group, handle, order.all).await?;
    if order.dry_run {
        let matching = Some(target.count(manager).await?);
        return Ok(Json(Outcome { dry_run: true, matching, ended: 0 }));
    }
    let ended = revoke(&server, &target, cause, By::Api).await?;
    Ok(Json(Outcome { dry_run: false, matching: None, ended }))
}
