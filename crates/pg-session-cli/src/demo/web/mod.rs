//! `pg-session demo --web`: three nodes as processes of their own, and a page to look at them.
//!
//! ```text
//! this process ── PostgreSQL, private ◀──────────────┐ sessions, NOTIFY
//!      └ stdin: setup, neighbours; its end ends ──▶ node A (axum), B (axum), C (actix) ◀── browser
//! ```
//!
//! [`nodes`] starts and ends the processes, [`node`] is one of them. What a shopper can do is in [`shop`], once for both
//! frameworks; [`on_axum`] and [`on_actix`] only route to it. [`observer`] knows what a node has received, and when.

mod node;
mod nodes;
mod observer;
mod on_actix;
mod on_axum;
mod orders;
mod shop;

pub(crate) use node::run as run_node;
use tokio_util::sync::CancellationToken;

use self::nodes::Nodes;
use super::Ending;
use super::print;
use super::reporter::{DemoError, Reporter};
use super::server::Server;
use crate::failure::Failure;

/// Starts the nodes and stays until `stop`, or until one of them is gone.
pub(super) async fn play(
    server: &Server,
    first_port: u16,
    reporter: &Reporter,
    stop: &CancellationToken,
) -> Result<Ending, DemoError> {
    let Some(sandbox) = server.sandbox() else {
        return Err(reporter.failed("the server is a private one", &Failure::new("leave out --database-url")));
    };
    let start = async {
        let nodes = Nodes::start(sandbox.addr(), &sandbox.url(), first_port).await?;
        Ok(("each listens, and is in sync".to_owned(), nodes))
    };
    let mut nodes = tokio::select! {
        nodes = reporter.step("three nodes A, B and C, each a process of its own", start) => nodes?,
        () = stop.cancelled() => return Err(DemoError::Interrupted),
    };
    tell_where(&nodes)?;
    let gone = tokio::select! {
        failure = nodes.gone() => Some(reporter.failed("the nodes stay up", &failure)),
        () = stop.cancelled() => None,
    };
    match gone {
        // The others are killed when they are dropped: the failure is printed already.
        Some(trouble) => Err(trouble),
        None => {
            reporter.frame("The end")?;
            let what = "the nodes write what they still hold and close their connections";
            reporter.step(what, nodes.end()).await?;
            Ok(Ending::Watched)
        }
    }
}

fn tell_where(nodes: &Nodes) -> Result<(), DemoError> {
    print::headline("Open one of them, or all three side by side; Ctrl-C ends everything")?;
    for node in nodes.neighbours() {
        print::text(&format!("   {}  {:<5}  {}", node.name, node.edge.name(), node.url))?;
    }
    print::aside("One cookie serves all three: browsers keep cookies by host, not by port.")?;
    Ok(())
}
