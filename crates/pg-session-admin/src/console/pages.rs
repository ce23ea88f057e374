//! The layout, and the pages but that of sessions: which node may answer from memory, by what proof and until when;
//! changes; locks; findings.
//!
//! The part of a page that changes is a [`Live`]; `stream` sends it again.

use std::time::SystemTime;

use axum::extract::{Extension, State};
use maud::{DOCTYPE, Markup, html};
use pg_session::Severity;
use serde::Deserialize;

use super::tabs::Tab;
use super::visit::Visit;
use crate::Admin;
use crate::shared::{counted, milliseconds, relative, rfc3339};

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
    pub(super) async fn render(self, admin: &Admin) -> Markup {
        match self {
            Self::Cluster => html! { (node(admin)) (nodes(admin).await) },
            Self::Events => changes(admin),
            Self::Locks => held(admin).await,
        }
    }

    async fn section(self, admin: &Admin, visit: &Visit) -> Markup {
        html! { div id="live" data-stream={ (visit.base) "/stream?page=" (self.name()) } { (self.render(admin).await) } }
    }
}

/// A page without a menu.
pub(super) fn bare(base: &str, title: &str, body: &Markup) -> Markup {
    document(
        base,
        title,
        &html! { header { strong { "pg-session" } } main id="main" { h1 { (title) } (body) } },
    )
}

/// A page for a signed-in operator.
pub(super) fn page(visit: &Visit, tab: Tab, title: &str, body: &Markup) -> Markup {
    document(
        &visit.base,
        title,
        &html! {
            a class="skip" href="#main" { "Skip to the content" }
            header {
                strong { "pg-session" }
                nav aria-label="Pages" {
                    @for (known, name, path) in Tab::ALL {
                        a href={ (visit.base) (path) } aria-current=[(known == tab).then_some("page")] { (name) }
                    }
                }
                span id="state" class="faint" role="status" {}
                @if !visit.may_change { span class="faint" { "read-only" } }
                @match &visit.operator {
                    Some(operator) => span { (operator) },
                    None => {
                        form method="post" action={ (visit.base) "/sign-out" } {
                            button type="submit" { "Sign out" }
                        }
                    }
                }
            }
            main id="main" { (body) }
        },
    )
}

fn document(base: &str, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · pg-session" }
                link rel="icon" href={ (base) "/icon.svg" };
                link rel="stylesheet" href={ (base) "/console.css" };
                script src={ (base) "/console.js" } defer {}
            }
            body { (body) }
        }
    }
}

pub(super) fn form_token(visit: &Visit) -> Markup {
    html! { input type="hidden" name="form_token" value=(visit.form_token.expose()); }
}

pub(super) async fn cluster(State(admin): State<Admin>, Extension(visit): Extension<Visit>) -> Markup {
    let body = html! { h1 { "Cluster" } (Live::Cluster.section(&admin, &visit).await) };
    page(&visit, Tab::Cluster, "Cluster", &body)
}

pub(super) fn card(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// This node: may it answer from memory, by what proof, until when.
fn node(admin: &Admin) -> Markup {
    let manager = &admin.0.manager;
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

/// The nodes of the registry, by their answers.
async fn nodes(admin: &Admin) -> Markup {
    let nodes = match admin.0.console.nodes(&admin.0.manager).await {
        Ok(nodes) => nodes,
        Err(why) => return html! { p role="alert" class="bad" { (why) } },
    };
    let now = admin.0.manager.database_time();
    html! {
        h2 id="nodes" { (counted(nodes.len() as u64, "node")) }
        p class="faint" { "A node that answers has handled every change that was committed before the question. One without a listener reads from PostgreSQL." }
        div class="table" {
            table {
                thead { tr { th { "Node" } th { "Name" } th { "Version" } th { "Registered" } th { "Answer" } th { "Settings" } } }
                tbody {
                    @for node in nodes {
                        tr {
                            td { code { (node.id) } @if node.is_this { " this" } }
                            td { (node.name) }
                            td { (node.version) }
                            td { (time_cell(node.registered_at, now)) }
                            td {
                                @match (node.listener_lost_at, node.answered_after) {
                                    (Some(lost), _) => {
                                        span class="bad" { "listener lost " (time_cell(lost, now)) ": serves nothing from memory" }
                                    }
                                    (None, Some(after)) => span class="good" { "answers after " (milliseconds(after)) " ms" },
                                    (None, None) => {
                                        span class="bad" { "no answer: has just lost its listener, or has ended" }
                                    }
                                }
                            }
                            td {
                                @if node.differing_settings.is_empty() { "same" }
                                @else { span class="bad" { "differ: " (node.differing_settings.join(", ")) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn share(part: u64, whole: u64) -> String {
    (part * 100).checked_div(whole).map_or_else(|| "none yet".to_owned(), |percent| format!("{percent} %"))
}

pub(super) fn time_cell(time: SystemTime, now: SystemTime) -> Markup {
    html! { time title=(rfc3339(time)) { (relative(time, now)) } }
}

pub(super) async fn events(State(admin): State<Admin>, Extension(visit): Extension<Visit>) -> Markup {
    let body = html! { h1 { "Events" } (Live::Events.section(&admin, &visit).await) };
    page(&visit, Tab::Events, "Events", &body)
}

/// What this node has observed.
fn observed(admin: &Admin) -> Markup {
    let all = admin.0.observed.all();
    html! {
        p class="faint" { "Ends of sessions on any node, and the trust of this node, the newest first." }
        @if all.is_empty() { p { "None yet." } }
        @else {
            div class="table" {
                table id="observed" {
                    thead { tr { th { "Time" } th { "Event" } th { "Cause" } } }
                    tbody {
                        @for seen in all {
                            tr {
                                td { (seen.time) }
                                td { (seen.what) }
                                td { (seen.cause.map_or("", pg_session::Cause::name)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What this process has ended for operators.
fn changes(admin: &Admin) -> Markup {
    let changes = admin.0.audit.changes();
    html! {
        (observed(admin))
        h2 { "Changes" }
        p class="faint" { "Sessions that the console and the admin API of this process have ended, the newest first." }
        @if changes.is_empty() { p { "None yet." } }
        @else {
            div class="table" {
                table {
                    thead { tr { th { "Time" } th { "By" } th { "Operator" } th { "What" } th { "Cause" } th { "Ended" } } }
                    tbody {
                        @for change in changes {
                            tr {
                                td { (change.time) } td { (change.by) } td { (change.operator.as_deref().unwrap_or("-")) } td { (change.what) } td { (change.cause) }
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

pub(super) async fn locks(State(admin): State<Admin>, Extension(visit): Extension<Visit>) -> Markup {
    let body = html! { h1 { "Locks" } (Live::Locks.section(&admin, &visit).await) };
    page(&visit, Tab::Locks, "Locks", &body)
}

async fn held(admin: &Admin) -> Markup {
    let now = admin.0.manager.database_time();
    let held = match admin.0.manager.locks().held().await {
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

pub(super) async fn health(State(admin): State<Admin>, Extension(visit): Extension<Visit>) -> Markup {
    let findings = admin.0.console.findings().await;
    let body = html! {
        h1 { "Health" }
        p class="faint" { "What " code { "pg-session doctor" } " finds, at most a minute ago." }
        @match findings {
            None => p { "This application runs no doctor. Run " code { "pg-session doctor" } "." },
            Some(Err(why)) => p role="alert" class="bad" { (why) },
            Some(Ok(findings)) if findings.is_empty() => p class="good" id="findings" { "No findings." },
            Some(Ok(findings)) => {
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
    page(&visit, Tab::Health, "Health", &body)
}
