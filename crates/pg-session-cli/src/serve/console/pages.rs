//! The layout, and the pages but that of sessions: which node may answer from memory, by what proof and until when;
//! changes; locks; findings.
//!
//! The part of a page that changes is a [`Live`]; `stream` sends it again.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Extension, State};
use maud::{DOCTYPE, Markup, html};
use pg_session::Severity;
use serde::Deserialize;

use super::sign_ins::SignIn;
use crate::output::{Format, counted};
use crate::serve::Server;

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
            Self::Cluster => html! { (node(server)) (nodes(server).await) },
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

pub(super) fn form_token(sign_in: &SignIn) -> Markup {
    html! { input type="hidden" name="form_token" value=(sign_in.form_token.expose()); }
}

pub(super) async fn cluster(
    State(server): State<Arc<Server>>,
    Extension(sign_in): Extension<SignIn>,
) -> Markup {
    let body = html! { h1 { "Cluster" } (Live::Cluster.section(&server).await) };
    page(&server, &sign_in, Tab::Cluster, "Cluster", &body)
}

pub(super) fn card(name: &str, value: &Markup) -> Markup {
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

/// The nodes of the registry, by their answers.
async fn nodes(server: &Server) -> Markup {
    let Some(console) = &server.console else { return html! {} };
    let nodes = match console.nodes(server.manager()).await {
        Ok(nodes) => nodes,
        Err(why) => return html! { p role="alert" class="bad" { (why) } },
    };
    let now = server.manager().database_time();
    html! {
        h2 id="nodes" { (counted(nodes.len() as u64, "node")) }
        p class="faint" { "A node that answers has handled every change that was committed before the question." }
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
                                @match node.answered_after {
                                    Some(_) => span class="good" { "answers" },
                                    None => span class="bad" { "no answer: reads from PostgreSQL, or has ended" },
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
    html! { time title=(Format::Tabs.time(time, now)) { (Format::Table.time(time, now)) } }
}

pub(super) async fn events(
    State(server): State<Arc<Server>>,
    Extension(sign_in): Extension<SignIn>,
) -> Markup {
    let body = html! { h1 { "Events" } (Live::Events.section(&server).await) };
    page(&server, &sign_in, Tab::Events, "Events", &body)
}

/// What this node has observed.
fn observed(server: &Server) -> Markup {
    let all = server.observed.all();
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
fn changes(server: &Server) -> Markup {
    let changes = server.audit.changes();
    html! {
        (observed(server))
        h2 { "Changes" }
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
