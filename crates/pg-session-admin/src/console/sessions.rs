//! The page of sessions: search, one session, and the forms that end them.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use pg_session::{Cause, Error, Session};
use serde::Deserialize;

use super::pages::{card, form_token, page, time_cell};
use super::tabs::Tab;
use super::visit::Visit;
use crate::Admin;
use crate::audit::CAUSES;
use crate::revoke::{NoTarget, by_handle, status_of};
use crate::shared::{counted, group_id, user_id};

/// Characters of a value that a page shows.
const VALUE_CHARS_MAX: usize = 2_000;

#[derive(Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    user: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    handle: String,
}

pub(super) async fn search(
    State(admin): State<Admin>,
    Extension(visit): Extension<Visit>,
    wanted: Result<Query<Search>, QueryRejection>,
) -> Response {
    let Ok(Query(search)) = wanted else {
        let body = html! { h1 { "Sessions" } p role="alert" class="bad" { "The search cannot be read." } };
        return (StatusCode::BAD_REQUEST, page(&visit, Tab::Sessions, "Sessions", &body)).into_response();
    };
    let found = find(&admin, &search).await;
    let status = found.as_ref().err().map_or(StatusCode::OK, |(status, _)| *status);
    let body = html! {
        h1 { "Sessions" }
        form method="get" action={ (visit.base) "/sessions" } role="search" {
            (field("user", "User", &search.user))
            (field("group", "Group", &search.group))
            (field("label", "Label", &search.label))
            (field("handle", "Handle, 8 digits or more", &search.handle))
            button type="submit" { "Search" }
        }
        @match found {
            Err((_, why)) => p role="alert" class="bad" { (why) },
            Ok(None) => p class="faint" { "Search for the sessions of a user, a group or a label, or for one by its handle." },
            Ok(Some((sessions, truncated))) => {
                p id="count" { (counted(sessions.len() as u64, "session")) @if truncated { " or more" } "." }
                @if !sessions.is_empty() { (table(&admin, &visit, &sessions)) }
                @if !sessions.is_empty() && !search.user.is_empty() { (end_form(&visit, "user", &search.user, "End all of this user")) }
                @if !sessions.is_empty() && !search.group.is_empty() { (end_form(&visit, "group", &search.group, "End all of this group")) }
                @if !sessions.is_empty() && !search.label.is_empty() { (end_form(&visit, "label", &search.label, "End all of this label")) }
            }
        }
        (end_all(&visit))
    };
    (status, page(&visit, Tab::Sessions, "Sessions", &body)).into_response()
}

fn field(name: &str, label: &str, value: &str) -> Markup {
    html! {
        div {
            label for=(name) { (label) }
            input id=(name) name=(name) value=(value) autocomplete="off" spellcheck="false";
        }
    }
}

/// `None` without a search. An error is a status and a sentence.
async fn find(admin: &Admin, search: &Search) -> Result<Option<(Vec<Session>, bool)>, (StatusCode, String)> {
    let failed = |error: Error| (status_of(&error), error.to_string());
    let manager = &admin.0.manager;
    let Search { user, group, label, handle } = search;
    let (user, group, handle) = (user.trim(), group.trim(), handle.trim());
    let page = match (user.is_empty(), group.is_empty(), label.is_empty(), handle.is_empty()) {
        (true, true, true, true) => return Ok(None),
        (false, true, true, true) => manager.user(user_id(user)).list().await,
        (true, false, true, true) => manager.group(group_id(group)).list().await,
        (true, true, false, true) => manager.label(label).list().await,
        (true, true, true, false) => {
            let found = manager.find(handle).await.map_err(failed)?;
            return Ok(Some((found, false)));
        }
        _ => {
            let why = "Fill in one field only: user, group, label or handle.";
            return Err((StatusCode::BAD_REQUEST, why.to_owned()));
        }
    };
    page.map(|page| Some((page.sessions, page.truncated))).map_err(failed)
}

fn table(admin: &Admin, visit: &Visit, sessions: &[Session]) -> Markup {
    let now = admin.0.manager.database_time();
    html! {
        div class="table" {
            table {
                thead { tr { th { "Handle" } th { "User" } th { "Group" } th { "Created" } th { "Last access" } th { "Expires" } } }
                tbody {
                    @for session in sessions {
                        @let handle = session.id().handle().to_string();
                        tr {
                            td { a href={ (visit.base) "/sessions/" (handle) } { code { (handle) } } @if session.is_retired() { " retired" } }
                            td { (session.user_id().map_or_else(|| "-".to_owned(), |user| user.to_string())) }
                            td { (session.group_id().map_or_else(|| "-".to_owned(), |group| group.to_string())) }
                            @for time in [session.created_at(), session.last_accessed_at(), session.expires_at()] {
                                td { (time_cell(time, now)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Whether to wait for the other nodes.
fn wait_field(id: &str) -> Markup {
    html! {
        label class="check" for={ "everywhere-" (id) } {
            input id={ "everywhere-" (id) } type="checkbox" name="everywhere" value="true" checked;
            " Wait until no node can serve them"
        }
    }
}

/// Nothing in a read-only console.
fn end_form(visit: &Visit, field: &str, value: &str, label: &str) -> Markup {
    if !visit.may_change {
        return html! {};
    }
    html! {
        form method="post" action={ (visit.base) "/revocations" } class="end" {
            (form_token(visit))
            input type="hidden" name=(field) value=(value);
            (causes(field))
            (wait_field(field))
            button type="submit" class="danger" { (label) }
        }
    }
}

fn causes(id: &str) -> Markup {
    html! {
        div {
            label for={ "cause-" (id) } { "Cause" }
            select id={ "cause-" (id) } name="cause" required {
                option value="" { "Choose a cause" }
                @for cause in CAUSES.map(Cause::name) { option value=(cause) { (cause) } }
            }
        }
    }
}

fn end_all(visit: &Visit) -> Markup {
    if !visit.may_change {
        return html! {};
    }
    html! {
        details {
            summary { "End all sessions of all users" }
            form method="post" action={ (visit.base) "/revocations" } {
                (form_token(visit))
                div {
                    label for="all" { "Type all to confirm" }
                    input id="all" name="all" autocomplete="off" required pattern="all";
                }
                (causes("all"))
                (wait_field("all"))
                button type="submit" class="danger" { "End all sessions" }
            }
        }
    }
}

#[derive(Deserialize)]
pub(super) struct How {
    #[serde(default)]
    values: bool,
}

pub(super) async fn show(
    State(admin): State<Admin>,
    Extension(visit): Extension<Visit>,
    Path(handle): Path<String>,
    how: Result<Query<How>, QueryRejection>,
) -> Response {
    let values = how.is_ok_and(|Query(how)| how.values);
    let refuse = |status: StatusCode, why: &str| {
        let body = html! { h1 { "Session" } p role="alert" class="bad" { (why) } };
        (status, page(&visit, Tab::Sessions, "Session", &body)).into_response()
    };
    let session = match by_handle(&admin.0.manager, &handle).await {
        Ok(session) => session,
        Err(NoTarget::Ambiguous) => {
            return refuse(StatusCode::CONFLICT, "Several sessions have such a handle.");
        }
        Err(NoTarget::Unknown | NoTarget::Unclear | NoTarget::Empty(_)) => {
            return refuse(StatusCode::NOT_FOUND, "No live session has this handle.");
        }
        Err(NoTarget::Failed(error)) => return refuse(status_of(&error), &error.to_string()),
    };
    let handle = session.id().handle().to_string();
    let now = admin.0.manager.database_time();
    let absent = || "-".to_owned();
    let body = html! {
        h1 { "Session " code { (handle) } }
        dl class="cards" {
            (card("User", &html! { (session.user_id().map_or_else(absent, |user| user.to_string())) }))
            (card("Group", &html! { (session.group_id().map_or_else(absent, |group| group.to_string())) }))
            (card("Version", &html! { (session.version().get()) }))
            (card("Created", &time_cell(session.created_at(), now)))
            (card("Last access", &time_cell(session.last_accessed_at(), now)))
            (card("Expires", &time_cell(session.expires_at(), now)))
        }
        h2 { "Attributes" }
        (attributes(&session, values))
        @if !values && !session.keys().is_empty() { p { a href={ (visit.base) "/sessions/" (handle) "?values=true" } { "Show the values" } } }
        (end_form(&visit, "handle", &handle, "End this session"))
    };
    page(&visit, Tab::Sessions, "Session", &body).into_response()
}

fn attributes(session: &Session, values: bool) -> Markup {
    let keys = session.keys();
    html! {
        @if keys.is_empty() { p class="faint" { "None." } }
        @else {
            div class="table" {
                table {
                    thead { tr { th { "Key" } @if values { th { "Value" } } } }
                    tbody {
                        @for key in keys {
                            tr {
                                td { code { (key) } }
                                @if values { td { code { (beginning(session.get_raw(key).unwrap_or_default())) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn beginning(value: &str) -> String {
    let mut text: String = value.chars().take(VALUE_CHARS_MAX).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    text
}
