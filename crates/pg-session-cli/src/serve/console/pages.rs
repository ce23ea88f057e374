//! The pages: which node may answer from memory, by what proof and until when; sessions; changes; locks; findings.
//!
//! The part of a page that changes is a [`Live`]; `stream` sends it again.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use pg_session::sql::Cause;
use pg_session::{Session, Severity};
use serde::Deserialize;

use super::sign_in::SignIn;
use crate::admin::select::{group_id, user_id};
use crate::output::{Format, counted};
use crate::serve::Server;
use crate::serve::audit::CAUSES;
use crate::serve::revoke::{NoTarget, by_handle};

/// Characters of a value that a page shows.
const VALUE_CHARS_MAX: usize = 2_000;

/// A page of the menu.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tab {
    Cluster,
    Sessions,
    Events,
    Locks,
    Health,
}

impl Tab {
    const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Cluster, "Cluster", "/console/cluster"),
        (Self::Sessions, "Sessions", "/console/sessions"),
        (Self::Events, "Events", "/console/events"),
        (Self::Locks, "Locks", "/console/locks"),
        (Self::Health, "Health", "/console/health"),
    ];
}

/// The pages that are updated while they are open.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Live {
    Cluster,
    Events,
    Locks,
}

impl Live {
    fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Events => "events",
            Self::Locks => "locks",
        }
    }

    /// The part that changes.
    pub(super) async fn render(self, server: &Server) -> Markup {
        match self {
            Self::Cluster => node(server),
            Self::Events => changes(server),
            Self::Locks => held(server).await,
        }
    }

    async fn section(self, server: &Server) -> Markup {
        html! { div id="live" data-page=(self.name()) { (self.render(server).await) } }
    }
}

/// A page without a menu.
pub(super) fn bare(title: &str, body: &Markup) -> Markup {
    document(title, &html! { header { strong { "pg-session" } } main id="main" { h1 { (title) } (body) } })
}

/// A page for a signed-in operator.
pub(super) fn page(server: &Server, sign_in: &SignIn, tab: Tab, title: &str, body: &Markup) -> Markup {
    let allow_changes = server.console.as_ref().is_some_and(|console| console.allow_changes);
    document(
        title,
        &html! {
            a class="skip" href="#main" { "Skip to the content" }
            header {
                strong { "pg-session" }
                nav aria-label="Pages" {
                    @for (known, name, path) in Tab::ALL {
                        a href=(path) aria-current=[(known == tab).then_some("page")] { (name) }
                    }
                }
                span id="state" class="faint" role="status" {}
                @if !allow_changes { span class="faint" { "read-only" } }
                form method="post" action="/console/sign-out" {
                    (form_token(sign_in))
                    button type="submit" { "Sign out" }
                }
            }
            main id="main" { (body) }
        },
    )
}

fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · pg-session" }
                link rel="stylesheet" href="/console/console.css";
                script src="/console/console.js" defer {}
            }
            body { (body) }
        }
    }
}

fn form_token(sign_in: &SignIn) -> Markup {
    html! { input type="hidden" name="form_token" value=(sign_in.form_token.expose()); }
}

pub(super) async fn cluster(
    State(server): State<Arc<Server>>,
    Extension(sign_in): Extension<SignIn>,
) -> Markup {
    let body = html! { h1 { "Cluster" } (Live::Cluster.section(&server).await) };
    page(&server, &sign_in, Tab::Cluster, "Cluster", &body)
}

fn card(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// This node: may it answer from memory, by what proof, until when.
fn node(server: &Server) -> Markup {
    let manager = server.manager();
    let status = manager.status();
    let window = manager.config().trust_window;
    let reads = status.cache.hits + status.cache.misses;
    html! {
        h2 { "This node" }
        @match status.trusted_for {
            Some(left) => p class="good" id="trust" {
                "Answers from memory. Its last proof allows this for another " (format!("{:.1}", left.as_secs_f64()))
                " s of the trust window of " (format!("{:.0}", window.as_secs_f64())) " s."
            },
            None => p class="bad" id="trust" role="alert" {
                "Reads each session from PostgreSQL: it cannot prove that it receives notifications. "
                (status.trust_error.as_deref().unwrap_or("The cause is not known."))
            },
        }
        p class="faint" {
            "The proof: a notification that this node sent through its pool came back to its listener. "
            "So it has handled every change that was committed before it was sent."
        }
        dl class="cards" {
            (card("Sessions in memory", &html! { (status.cache.sessions) }))
            (card("Reads from memory", &html! { (share(status.cache.hits, reads)) }))
            (card("Reads", &html! { (reads) }))
            (card("Invalidations", &html! { (status.cache.invalidations) }))
            (card("Waiting writes", &html! { (status.writes.waiting) }))
            (card("Waiting last accesses", &html! { (status.touches_waiting) }))
            (card("Lost versions", &html! { (status.loads.lost_versions) }))
        }
    }
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "none yet".to_owned() } else { format!("{} %", part * 100 / whole) }
}

#[derive(Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    user: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    handle: String,
}

pub(super) async fn sessions(
    State(server): State<Arc<Server>>,
    Extension(sign_in): Extension<SignIn>,
    search: Result<Query<Search>, QueryRejection>,
) -> Response {
    let Ok(Query(search)) = search else {
        let body = html! { h1 { "Sessions" } p role="alert" class="bad" { "The search cannot be read." } };
        return (StatusCode::BAD_REQUEST, page(&server, &sign_in, Tab::Sessions, "Sessions", &body))
            .into_response();
    };
    let found = find(&server, &search).await;
    let status = if found.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = html! {
        h1 { "Sessions" }
        form method="get" action="/console/sessions" role="search" {
            (field("user", "User", &search.user))
            (field("group", "Group", &search.group))
            (field("handle", "Handle, 8 digits or more", &search.handle))
            button type="submit" { "Search" }
        }
        @match found {
            Err(why) => p role="alert" class="bad" { (why) },
            Ok(None) => p class="faint" { "Search for the sessions of a user or a group, or for one by its handle." },
            Ok(Some((sessions, truncated))) => {
                p id="count" { (counted(sessions.len() as u64, "session")) @if truncated { " or more" } "." }
                @if !sessions.is_empty() { (table(&server, &sessions)) }
                @if !sessions.is_empty() && !search.user.is_empty() { (end_form(&server, &sign_in, "user", &search.user, "End all of this user")) }
                @if !sessions.is_empty() && !search.group.is_empty() { (end_form(&server, &sign_in, "group", &search.group, "End all of this group")) }
            }
        }
        (end_all(&server, &sign_in))
    };
    (status, page(&server, &sign_in, Tab::Sessions, "Sessions", &body)).into_response()
}

fn field(name: &str, label: &str, value: &str) -> Markup {
    html! {
        div {
            label for=(name) { (label) }
            input id=(name) name=(name) value=(value) autocomplete="off" spellcheck="false";
        }
    }
}

/// `None` without a search. An error is a sentence.
async fn find(server: &Server, search: &Search) -> Result<Option<(Vec<Session>, bool)>, String> {
    let manager = server.manager();
    let (user, group, handle) = (search.user.trim(), search.group.trim(), search.handle.trim());
    let page = match (user.is_empty(), group.is_empty(), handle.is_empty()) {
        (true, true, true) => return Ok(None),
        (false, true, true) => manager.user(user_id(user)).list().await,
        (true, false, true) => manager.group(group_id(group)).list().await,
        (true, true, false) => {
            let found = manager.find(handle).await.map_err(|error| error.to_string())?;
            return Ok(Some((found, false)));
        }
        _ => return Err("Search by one of the three.".to_owned()),
    };
    page.map(|page| Some((page.sessions, page.truncated))).map_err(|error| error.to_string())
}

fn table(server: &Server, sessions: &[Session]) -> Markup {
    let now = server.manager().database_time();
    html! {
        div class="table" {
            table {
                thead { tr { th { "Handle" } th { "User" } th { "Group" } th { "Created" } th { "Last access" } th { "Expires" } } }
                tbody {
                    @for session in sessions {
                        @let handle = session.id().handle().to_string();
                        tr {
                            td { a href={ "/console/sessions/" (handle) } { code { (handle) } } @if session.is_retired() { " retired" } }
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

fn time_cell(time: SystemTime, now: SystemTime) -> Markup {
    html! { time title=(Format::Tabs.time(time, now)) { (Format::Table.time(time, now)) } }
}

/// Nothing in a read-only console.
fn end_form(server: &Server, sign_in: &SignIn, field: &str, value: &str, label: &str) -> Markup {
    if !server.console.as_ref().is_some_and(|console| console.allow_changes) {
        return html! {};
    }
    html! {
        form method="post" action="/console/revocations" class="end" {
            (form_token(sign_in))
            input type="hidden" name=(field) value=(value);
            (causes(field))
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

fn end_all(server: &Server, sign_in: &SignIn) -> Markup {
    if !server.console.as_ref().is_some_and(|console| console.allow_changes) {
        return html! {};
    }
    html! {
        details {
            summary { "End all sessions of all users" }
            form method="post" action="/console/revocations" {
                (form_token(sign_in))
                div {
                    label for="all" { "Type all to confirm" }
                    input id="all" name="all" autocomplete="off" required pattern="all";
                }
                (causes("all"))
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

pub(super) async fn session(
    State(server): State<Arc<Server>>,
    Extension(sign_in): Extension<SignIn>,
    Path(handle): Path<String>,
    how: Result<Query<How>, QueryRejection>,
) -> Response {
    let values = how.is_ok_and(|Query(how)| how.values);
    let refuse = |status: StatusCode, why: &str| {
        let body = html! { h1 { "Session" } p role="alert" class="bad" { (why) } };
        (status, page(&server, &sign_in, Tab::Sessions, "Session", &body)).into_response()
    };
    let session = match by_handle(server.manager(), &handle).await {
        Ok(session) => session,
        Err(NoTarget::Ambiguous) => {
            return refuse(StatusCode::CONFLICT, "Several sessions have such a handle.");
        }
        Err(NoTarget::Unknown | NoTarget::Unclear) => {
            return refuse(StatusCode::NOT_FOUND, "No live session has this handle.");
        }
        Err(NoTarget::Failed(error)) => return refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    let handle = session.id().handle().to_string();
    let now = server.manager().database_time();
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
        @if !values && !session.keys().is_empty() { p { a href={ "/console/sessions/" (handle) "?values=true" } { "Show the values" } } }
        (end_form(&server, &sign_in, "handle", &handle, "End this session"))
    };
    page(&server, &sign_in, Tab::Sessions, "Session", &body).into_response()
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

pub(super) async fn events(
    State(server): State<Arc<Server>>,
    Extension(sign_in): Extension<SignIn>,
) -> Markup {
    let body = html! { h1 { "Events" } (Live::Events.section(&server).await) };
    page(&server, &sign_in, Tab::Events, "Events", &body)
}

/// What this process has ended for operators.
fn changes(server: &Server) -> Markup {
    let changes = server.audit.changes();
    html! {
        p class="faint" { "Sessions that the console and the admin API of this process have ended, the newest first." }
        @if changes.is_empty() { p { "None yet." } }
        @else {
            div class="table" {
                table {
                    thead { tr { th { "Time" } th { "By" } th { "What" } th { "Cause" } th { "Ended" } } }
                    tbody {
                        @for change in changes {
                            tr {
                                td { (change.time) } td { (change.by) } td { (change.what) } td { (change.cause) }
                                td {
                                    @match (change.ended, change.error) {
                                        (Some(ended), _) => (ended),
                                        (None, error) => span class="bad" { (error.unwrap_or_default()) },
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) async fn locks(
    State(server): State<Arc<Server>>,
    Extension(sign_in): Extension<SignIn>,
) -> Markup {
    let body = html! { h1 { "Locks" } (Live::Locks.section(&server).await) };
    page(&server, &sign_in, Tab::Locks, "Locks", &body)
}

async fn held(server: &Server) -> Markup {
    let now = server.manager().database_time();
    let held = match server.manager().locks().held().await {
        Ok(held) => held,
        Err(error) => return html! { p role="alert" class="bad" { (error) } },
    };
    html! {
        p id="count" { (counted(held.len() as u64, "lock")) " held." }
        @if !held.is_empty() {
            div class="table" {
                table {
                    thead { tr { th { "Name" } th { "Session" } th { "Holder" } th { "Fence" } th { "Since" } th { "Lease ends" } } }
                    tbody {
                        @for lock in &held {
                            tr {
                                td { code { (lock.name) } }
                                td {
                                    @match lock.session {
                                        Some(session) => code { (session.handle()) },
                                        None => "-",
                                    }
                                }
                                td { (lock.holder.label.as_deref().unwrap_or("-")) }
                                td { (lock.holder.fence) }
                                td { (time_cell(lock.holder.since, now)) }
                                td { (time_cell(lock.holder.until, now)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) async fn health(
    State(server): State<Arc<Server>>,
    Extension(sign_in): Extension<SignIn>,
) -> Markup {
    let findings = match &server.console {
        Some(console) => console.findings().await,
        None => Ok(Vec::new()),
    };
    let body = html! {
        h1 { "Health" }
        p class="faint" { "What " code { "pg-session doctor" } " finds, at most a minute ago." }
        @match findings {
            Err(why) => p role="alert" class="bad" { (why) },
            Ok(findings) if findings.is_empty() => p class="good" id="findings" { "No findings." },
            Ok(findings) => {
                div class="table" {
                    table id="findings" {
                        thead { tr { th { "Severity" } th { "Finding" } th { "Message" } th { "Fix" } } }
                        tbody {
                            @for finding in findings {
                                tr {
                                    td {
                                        @if finding.severity == Severity::Fault { span class="bad" { "fault" } }
                                        @else { "warning" }
                                    }
                                    td { code { (finding.check) } } td { (finding.message) } td { code { (finding.fix) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    page(&server, &sign_in, Tab::Health, "Health", &body)
}
