//! `pg-session audit`: the sessions that have ended, from the audit log, and its switch.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use pg_session::{AuditConnection, AuditEntry, SessionManager};
use pg_session_admin::shared::Receipt;
use serde::Serialize;

use super::select::user_id;
use crate::connection::Place;
use crate::failure::{Failure, exit};
use crate::output::{Format, harmless, print_json, print_rows, remark, rfc3339, waiting};

/// Entries that one call lists at most.
const LIMIT_MAX: u32 = 100_000;

/// List the sessions that have ended: why, when, by whom, with which receipt. The newest come first.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("switch").args(["on", "off"]).conflicts_with_all(["user", "limit"])))]
pub(crate) struct Options {
    /// Only of this user: an integer, a UUID, or the text that the application gives to UserId::named.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    user: Option<String>,
    /// List at most this many.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMIT_MAX)))]
    limit: u32,
    /// Turn the log on, and keep entries this long, as 90d. Needs the owner of the tables.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    on: Option<Duration>,
    /// Turn the log off. The entries stay.
    #[arg(long)]
    off: bool,
    /// Print one JSON object per entry, or about the switch.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What `--json` prints; docs/cli.md describes the fields.
#[derive(Serialize)]
struct Entry<'a> {
    number: i64,
    ended_at: String,
    handle: &'a str,
    user: Option<String>,
    group: Option<String>,
    cause: &'a str,
    actor: Option<&'a str>,
    role: &'a str,
    client: &'a str,
    receipt: Option<Receipt>,
}

/// Runs the command. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    exit("audit", audit(&options).await)
}

/// Starts no node: an auditor has no right of the application.
async fn audit(options: &Options) -> Result<(), Failure> {
    let connection = waiting("connecting", Box::pin(options.place.builder()?.open_audit())).await?;
    let log = connection.audit();
    if let Some(keep) = options.on {
        log.start(keep).await?;
        let keep = log.keep().await?.unwrap_or_default();
        return switched(options, Some(&keep), &format!("The audit log is on. Entries stay for {keep}."));
    }
    if options.off {
        log.stop().await?;
        return switched(options, None, "The audit log is off. Its entries stay.");
    }
    let is_off = log.keep().await?.is_none();
    let found = gather(options, &connection).await?;
    let format = Format::new(options.json);
    if format == Format::Json {
        found.iter().try_for_each(|entry| print_json(&row(entry)))?;
    } else {
        let now = SystemTime::now();
        let rows: Vec<_> = found.iter().map(|entry| cells(entry, format, now)).collect();
        let head = ["ENDED", "HANDLE", "USER", "CAUSE", "BY", "ROLE", "CLIENT", "RECEIPT"];
        print_rows(format, &head, &rows)?;
    }
    if is_off {
        remark("The audit log is off. The owner of the tables turns it on: pg-session audit --on 90d");
    }
    Ok(())
}

fn switched(options: &Options, keep: Option<&str>, sentence: &str) -> Result<(), Failure> {
    if options.json {
        return Ok(print_json(&serde_json::json!({ "on": keep.is_some(), "keep": keep }))?);
    }
    remark(sentence);
    Ok(())
}

async fn gather(options: &Options, connection: &AuditConnection) -> Result<Vec<AuditEntry>, Failure> {
    let user = options.user.as_deref().map(user_id);
    let limit = options.limit as usize;
    let mut found = Vec::new();
    while found.len() < limit {
        let before = found.last().map(|entry: &AuditEntry| entry.number);
        let page = connection.audit().page(user, before).await?;
        let is_last = page.len() < SessionManager::LIST_MAX as usize;
        found.extend(page);
        if is_last {
            break;
        }
    }
    found.truncate(limit);
    Ok(found)
}

fn row(entry: &AuditEntry) -> Entry<'_> {
    Entry {
        number: entry.number,
        ended_at: rfc3339(entry.ended_at),
        handle: &entry.handle,
        user: entry.user_id.map(|id| id.to_string()),
        group: entry.group_id.map(|id| id.to_string()),
        cause: &entry.cause,
        actor: entry.actor.as_deref(),
        role: &entry.role,
        client: &entry.client,
        receipt: entry.receipt.as_ref().map(Receipt::from),
    }
}

fn cells(entry: &AuditEntry, format: Format, now: SystemTime) -> Vec<String> {
    let absent = || "-".to_owned();
    let receipt = |done: &pg_session::Everywhere| match done.lapsed {
        0 => format!("{} nodes", done.acknowledged),
        lapsed => format!("{} nodes, {lapsed} lapsed", done.acknowledged),
    };
    vec![
        format.time(entry.ended_at, now),
        entry.handle.clone(),
        entry.user_id.map_or_else(absent, |id| id.to_string()),
        entry.cause.clone(),
        entry.actor.as_deref().map_or_else(absent, harmless),
        harmless(&entry.role),
        harmless(&entry.client),
        entry.receipt.as_ref().map_or_else(absent, receipt),
    ]
}
