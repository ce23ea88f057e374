//! Ends sessions from a form: with a cause, and only if changes are allowed.

use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::html;
use serde::Deserialize;

use super::pages;
use super::tabs::Tab;
use super::visit::Visit;
use crate::Admin;
use crate::audit::{Author, By, cause};
use crate::revoke::{Named, NoTarget, Target, revoke as end, status_of};
use crate::shared::counted;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    form_token: String,
    cause: String,
    user: Option<String>,
    group: Option<String>,
    label: Option<String>,
    handle: Option<String>,
    /// `all`, as typed by the operator.
    all: Option<String>,
    /// Wait until no node can serve the sessions.
    everywhere: Option<String>,
}

pub(super) async fn revoke(
    State(admin): State<Admin>,
    Extension(visit): Extension<Visit>,
    order: Result<Form<Order>, FormRejection>,
) -> Response {
    let refuse = |status: StatusCode, why: &str| {
        let body = html! { h1 { "Nothing was ended" } p role="alert" class="bad" { (why) } };
        (status, pages::page(&visit, Tab::Sessions, "Nothing was ended", &body)).into_response()
    };
    if !visit.may_change {
        return refuse(StatusCode::FORBIDDEN, "You may only look. `serve` needs --allow-changes for more.");
    }
    let Form(order) = match order {
        Ok(order) => order,
        Err(rejection) => return refuse(rejection.status(), &rejection.body_text()),
    };
    if !visit.form_token.is(order.form_token.as_bytes()) {
        return refuse(StatusCode::FORBIDDEN, "The form is not one of this sign-in. Open the page again.");
    }
    let cause = match cause(&order.cause) {
        Ok(cause) => cause,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    let filled = |field: &Option<String>| {
        field.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let (user, group, handle, all) =
        (filled(&order.user), filled(&order.group), filled(&order.handle), filled(&order.all));
    // A label may begin or end with blanks.
    let label = order.label.as_deref().filter(|label| !label.is_empty());
    if all.as_deref().is_some_and(|typed| typed != "all") {
        return refuse(StatusCode::BAD_REQUEST, "Type all to end all sessions.");
    }
    let (user, group, handle) = (user.as_deref(), group.as_deref(), handle.as_deref());
    let named = Named { user, group, label, handle, all: all.is_some() };
    let target = match Target::of(&admin.0.manager, named).await {
        Ok(target) => target,
        Err(NoTarget::Unclear | NoTarget::Empty(_)) => {
            return refuse(StatusCode::BAD_REQUEST, "Name one session, user, group or label, or all.");
        }
        Err(NoTarget::Unknown) => return refuse(StatusCode::NOT_FOUND, "No live session has this handle."),
        Err(NoTarget::Ambiguous) => {
            return refuse(StatusCode::CONFLICT, "Several sessions have such a handle.");
        }
        Err(NoTarget::Failed(error)) => return refuse(status_of(&error), &error.to_string()),
    };
    let author = Author { by: By::Console, operator: visit.operator.clone() };
    match end(&admin, target, cause, order.everywhere.is_some(), author).await {
        Ok((revoked, target)) => {
            let body = html! {
                h1 { "Ended" }
                p role="status" class="good" id="ended" {
                    (counted(revoked.ended, "session")) " ended: " (target.name()) ", cause " (cause) "."
                }
                @if let Some(gone) = revoked.everywhere {
                    p class="good" id="gone" {
                        "No node can serve them any more: " (counted(gone.acknowledged as u64, "node")) " answered within "
                        (gone.took.as_millis()) " ms"
                        @if gone.lapsed > 0 { ", " (gone.lapsed) " did not answer; their trust has ended, so they read from PostgreSQL" } "."
                    }
                }
                p { a href={ (visit.base) "/events" } { "All changes" } }
            };
            pages::page(&visit, Tab::Sessions, "Ended", &body).into_response()
        }
        Err(error) => refuse(status_of(&error), &error.to_string()),
    }
}
