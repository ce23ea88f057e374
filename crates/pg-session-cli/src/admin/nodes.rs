//! `pg-session nodes`: which nodes run, and which of them answer.

use std::io;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use pg_session::NodeInfo;
use pg_session_admin::shared::NodeRow;

use crate::connection::{Place, close};
use crate::failure::{Failure, exit};
use crate::output::{Format, harmless, print_json, print_rows, remark, waiting};

/// Digits of a node's id that are shown on a terminal.
const ID_DIGITS: usize = 8;

/// List the application's nodes, and which of them answer. Exit code 1: one does not, or nodes differ.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Print one JSON object per node.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs the command. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    match nodes(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => exit("nodes", Err(failure)),
    }
}

/// Whether all nodes answer and agree.
async fn nodes(options: &Options) -> Result<bool, Failure> {
    let sessions = options.place.connect().await?;
    let found = waiting("asking the nodes", sessions.nodes()).await;
    let now = sessions.database_time();
    close(&sessions).await;
    let nodes: Vec<NodeInfo> = found?.into_iter().filter(|node| !node.is_this).collect();
    let format = Format::new(options.json);
    if format == Format::Json {
        nodes.iter().try_for_each(|node| print_json(&NodeRow::from(node)))?;
    } else {
        print_nodes(format, &nodes, now)?;
        let silent = |node: &&NodeInfo| node.answered_after.is_none();
        let is_lost = |node: &NodeInfo| node.listener_lost_at.is_some();
        if nodes.iter().any(is_lost) {
            remark(
                "A node that has lost its listener serves nothing from memory: docs/runbooks.md#listener-disconnected",
            );
        }
        if nodes.iter().filter(silent).any(|node| !is_lost(node)) {
            remark(
                "A node without an answer has just lost its listener, or has ended: docs/runbooks.md#listener-disconnected",
            );
        }
    }
    let differ =
        nodes.iter().any(|node| !node.differing_settings.is_empty() || node.version != nodes[0].version);
    Ok(!differ && nodes.iter().all(|node| node.answered_after.is_some()))
}

/// The nodes as a table.
pub(super) fn print_nodes(format: Format, nodes: &[NodeInfo], now: SystemTime) -> io::Result<()> {
    let row = |node: &NodeInfo| {
        let answer = match (node.listener_lost_at, node.answered_after) {
            (Some(lost), _) => format!("listener lost {}", format.time(lost, now)),
            (None, Some(after)) => format!("{:.1} ms", after.as_secs_f64() * 1e3),
            (None, None) => "none".to_owned(),
        };
        let differing = match node.differing_settings.is_empty() {
            true => "same".to_owned(),
            false => harmless(&node.differing_settings.join(", ")),
        };
        vec![
            if format == Format::Table { node.id[..ID_DIGITS].to_owned() } else { node.id.clone() },
            harmless(&node.name),
            harmless(&node.version),
            format.time(node.registered_at, now),
            answer,
            differing,
        ]
    };
    let head = ["NODE", "NAME", "VERSION", "REGISTERED", "ANSWER", "SETTINGS"];
    print_rows(format, &head, &nodes.iter().map(row).collect::<Vec<_>>())
}
