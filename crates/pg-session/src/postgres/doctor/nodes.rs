//! Whether the nodes have listeners, and agree on what a session is.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{Check, Finding};
use crate::error::Error;
use crate::notification::Token;
use crate::postgres::Database;
use crate::postgres::failure::Failure;
use crate::postgres::nodes::NodeDescription;
use crate::retry::EVERYWHERE;
use crate::shared_settings::differences;

/// How long nodes are waited for, if they seem to differ.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

impl Database {
    pub(super) async fn check_nodes(&self) -> Result<Vec<Finding>, Error> {
        let mut nodes = self.node_descriptions().await.map_err(Failure::into_read_error)?;
        let mut findings: Vec<Finding> = nodes.iter().filter_map(|node| self.lost(node)).collect();
        if differing(&nodes).is_empty() {
            return Ok(findings);
        }
        // A node that has ended may have left its row behind, for one trust window.
        let mut running = HashSet::new();
        // An error means that the time is over: the others are silent.
        if let Ok(outcome) = timeout(ANSWER_WAIT, self.find_running(&mut running)).await {
            outcome.map_err(Failure::into_read_error)?;
        }
        nodes.retain(|node| running.contains(&node.node));
        findings.extend(differing(&nodes));
        Ok(findings)
    }

    fn lost(&self, node: &NodeDescription) -> Option<Finding> {
        let lost = self.policy.clock.database_now().since(node.listener_lost_at?);
        let (id, _) = node.node.as_u64_pair();
        let message = format!(
            "the node {id:016x} ({}) lost its listener {} s ago, and serves nothing from memory",
            node.name.escape_debug(),
            lost.as_secs()
        );
        let fix =
            "Read the node's Status::trust_error, and run this doctor on its machine with its --listen-url."
                .to_owned();
        Some(Check::warning("lost-listener", String::new()).finding(message, fix))
    }

    /// Returns when all have answered.
    async fn find_running(&self, running: &mut HashSet<Uuid>) -> Result<(), Failure> {
        let request = Token::random();
        self.request_acknowledgement(request).await?;
        let mut pause = EVERYWHERE.first;
        loop {
            let rows = self.node_rows(request).await?;
            running.extend(rows.iter().filter(|row| row.heard || row.listener_lost).map(|row| row.node));
            if rows.iter().all(|row| row.heard || row.listener_lost) {
                return Ok(());
            }
            sleep(pause).await;
            pause = EVERYWHERE.after(pause);
        }
    }
}

fn differing(nodes: &[NodeDescription]) -> Vec<Finding> {
    let settings: Vec<&str> = nodes.iter().map(|node| &*node.settings).collect();
    let versions: BTreeSet<&str> = nodes.iter().map(|node| &*node.version).collect();
    let mut findings = Vec::new();
    let differing = differences(&settings);
    if !differing.is_empty() {
        let message = format!("nodes run with different settings: {}", differing.join(", "));
        let fix =
            "Give all nodes the same settings, and restart those that differ: pg-session nodes".to_owned();
        findings.push(Check::warning("node-settings", String::new()).finding(message, fix));
    }
    if versions.len() > 1 {
        let versions: Vec<&str> = versions.into_iter().collect();
        let message = format!("nodes run different versions: {}", versions.join(", "));
        let fix = "Finish the upgrade, or undo it.".to_owned();
        findings.push(Check::warning("node-versions", String::new()).finding(message, fix));
    }
    findings
}
