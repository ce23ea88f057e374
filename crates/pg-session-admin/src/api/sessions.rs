//! Lists and shows sessions.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use crate::Admin;
use crate::revoke::{by_handle, given};
use crate::shared::{AttributeRow, SessionRow, attributes, group_id, user_id};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    user: Option<String>,
    group: Option<String>,
    label: Option<String>,
}

#[derive(Serialize)]
pub(super) struct List {
    sessions: Vec<SessionRow>,
    /// Whether there are more sessions than a page has.
    truncated: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    #[serde(default)]
    values: bool,
}

#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    session: SessionRow,
    attributes: Vec<AttributeRow>,
}

/// The most recently used sessions of a user, a group or a label.
pub(super) async fn list(
    State(admin): State<Admin>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<List>, ApiError> {
    let Query(which) = which?;
    let manager = &admin.0.manager;
    let page = match (&which.user, &which.group, &which.label) {
        (Some(user), None, None) => manager.user(user_id(given("user", user)?)).list().await?,
        (None, Some(group), None) => manager.group(group_id(given("group", group)?)).list().await?,
        (None, None, Some(label)) => manager.label(given("label", label)?).list().await?,
        _ => return Err(ApiError::bad("give exactly one of user, group and label")),
    };
    let sessions = page.sessions.iter().map(SessionRow::new).collect();
    Ok(Json(List { sessions, truncated: page.truncated }))
}

/// One session, with the keys of its attributes, and with the values if asked for.
pub(super) async fn show(
    State(admin): State<Admin>,
    handle: Result<Path<String>, PathRejection>,
    how: Result<Query<How>, QueryRejection>,
) -> Result<Json<Shown>, ApiError> {
    let (Path(handle), Query(how)) = (handle?, how?);
    let session = by_handle(&admin.0.manager, &handle).await?;
    Ok(Json(Shown { session: SessionRow::new(&session), attributes: attributes(&session, how.values) }))
}
