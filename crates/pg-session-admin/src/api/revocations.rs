//! Ends sessions, with a cause.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::object::Object;
use crate::Admin;
use crate::audit::{Author, By, cause};
use crate::revoke::{Named, Target, revoke};
use crate::shared::Receipt;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    user: Option<String>,
    group: Option<String>,
    label: Option<String>,
    handle: Option<String>,
    #[serde(default)]
    all: bool,
    cause: String,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    everywhere: bool,
}

#[derive(Serialize)]
pub(super) struct Outcome {
    dry_run: bool,
    /// Sessions that would end. `None` if they were ended.
    matching: Option<u64>,
    ended: u64,
    everywhere: Option<Receipt>,
}

/// Ends a session, or those of a user, of a group, of a label, or all.
pub(super) async fn create(
    State(admin): State<Admin>,
    order: Result<Json<Object<Order>>, JsonRejection>,
) -> Result<Json<Outcome>, ApiError> {
    let Json(Object(order)) = order?;
    let cause = cause(&order.cause).map_err(ApiError::bad)?;
    let manager = &admin.0.manager;
    let named = Named {
        user: order.user.as_deref(),
        group: order.group.as_deref(),
        label: order.label.as_deref(),
        handle: order.handle.as_deref(),
        all: order.all,
    };
    let target = Target::of(manager, named).await?;
    if order.dry_run {
        let matching = Some(target.count(manager).await?);
        return Ok(Json(Outcome { dry_run: true, matching, ended: 0, everywhere: None }));
    }
    let author = Author { by: By::Api, operator: None };
    let (revoked, _) = revoke(&admin, target, cause, order.everywhere, author).await?;
    let everywhere = revoked.everywhere.as_ref().map(Receipt::from);
    Ok(Json(Outcome { dry_run: false, matching: None, ended: revoked.ended, everywhere }))
}
