//! Whether the nodes have listeners, agree on what a session is, and have the same signing keys.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;

use super::{Check, Finding};
use crate::config::Config;
use crate::error::Error;
use crate::postgres::Database;
use crate::postgres::failure::Failure;
use crate::postgres::nodes::NodeDescription;
use crate::shared_settings::differences;
use crate::signing::KeyUse;

/// How long nodes are waited for, if they seem to differ.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Nodes that a finding names.
const NAMED_MAX: usize = 8;

impl Database {
    pub(super) async fn check_nodes(&self, config: &Config) -> Result<Vec<Finding>, Error> {
        let mut nodes = self.node_descriptions().await.map_err(Failure::into_read_error)?;
        let mut findings: Vec<Finding> = nodes.iter().filter_map(|node| self.lost(node)).collect();
        if differing(&nodes).is_empty() && self.keys(&nodes, config.idle_timeout).is_empty() {
            return Ok(findings);
        }
        // A node that has ended may have left its row behind, for one trust window.
        let mut running = HashSet::new();
        let asking = self.ask_nodes(|row| {
            running.insert(row.node);
        });
        // An error means that the time is over: the others are silent.
        if let Ok(outcome) = timeout(ANSWER_WAIT, asking).await {
            outcome.map_err(Failure::into_read_error)?;
        }
        nodes.retain(|node| running.contains(&node.node));
        findings.extend(differing(&nodes));
        findings.extend(self.keys(&nodes, config.idle_timeout));
        Ok(findings)
    }

    /// Nodes that lack a key with which another one signs, and keys that only verify and have nothing to verify. Nodes
    /// without keys serve no visitors.
    fn keys(&self, nodes: &[NodeDescription], idle_timeout: Duration) -> Vec<Finding> {
        let rings: Vec<(&NodeDescription, Vec<KeyUse>)> = nodes
            .iter()
            .map(|node| (node, serde_json::from_str(&node.keys).unwrap_or_default()))
            .filter(|(_, keys): &(_, Vec<KeyUse>)| !keys.is_empty())
            .collect();
        let signing: BTreeSet<&str> = rings.iter().map(|(_, keys)| &*keys[0].0).collect();
        let mut findings: Vec<Finding> = signing.iter().filter_map(|id| missing_key(id, &rings)).collect();
        // When each key has verified last. What it did before its node was registered is unknown.
        let mut used: BTreeMap<&str, SystemTime> = BTreeMap::new();
        for (node, keys) in &rings {
            for (id, at) in keys {
                let at = at.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
                let at = at.unwrap_or(UNIX_EPOCH).max(node.registered_at.into());
                let last = used.entry(id).or_insert(at);
                *last = at.max(*last);
            }
        }
        let now = SystemTime::from(self.policy.clock.database_now());
        for (id, at) in used.into_iter().filter(|(id, _)| !signing.contains(id)) {
            let unused = now.duration_since(at).unwrap_or_default();
            if unused > idle_timeout {
                findings.push(unused_key(id, unused));
            }
        }
        findings
    }

    fn lost(&self, node: &NodeDescription) -> Option<Finding> {
        let lost = self.policy.clock.database_now().since(node.listener_lost_at?);
        let message = format!(
            "the node {} lost its listener {} s ago, and serves nothing from memory",
            called(node),
            lost.as_secs()
        );
        let fix =
            "Read the node's Status::trust_error, and run this doctor on its machine with its --listen-url."
                .to_owned();
        Some(Check::warning("lost-listener", String::new()).finding(message, fix))
    }
}

/// One node signs with the key, and another one lacks it. The minority is to change.
fn missing_key(id: &str, rings: &[(&NodeDescription, Vec<KeyUse>)]) -> Option<Finding> {
    let nodes = |is_one: &dyn Fn(&[KeyUse]) -> bool| -> Vec<String> {
        rings.iter().filter(|(_, keys)| is_one(keys)).map(|(node, _)| called(node)).collect()
    };
    let signers = nodes(&|keys| keys[0].0 == id);
    let lacking = nodes(&|keys| keys.iter().all(|(known, _)| known != id));
    if lacking.is_empty() {
        return None;
    }
    let message = format!(
        "{} sign{} with the key {}, and {} lack{} it, so {} take{} those users for signed out",
        list(&signers),
        third_person(&signers),
        id.escape_debug(),
        list(&lacking),
        third_person(&lacking),
        if lacking.len() == 1 { "it" } else { "they" },
        third_person(&lacking)
    );
    let fix = if signers.len() < lacking.len() {
        format!("Give {} the SESSION_KEY of the other nodes.", list(&signers))
    } else {
        format!(
            "Give {} the SESSION_KEY of the other nodes, or add the key behind the one that signs: KeyRing::with_verifying.",
            list(&lacking)
        )
    };
    Some(Check::fault("missing-key", String::new()).finding(message, fix))
}

fn called(node: &NodeDescription) -> String {
    let (number, _) = node.node.as_u64_pair();
    format!("{number:016x} ({})", node.name.escape_debug())
}

fn list(nodes: &[String]) -> String {
    let named = nodes.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match nodes.len() {
        1 => format!("the node {named}"),
        count if count <= NAMED_MAX => format!("{count} nodes ({named})"),
        count => format!("{count} nodes (among them {named})"),
    }
}

fn third_person(nodes: &[String]) -> &'static str {
    if nodes.len() == 1 { "s" } else { "" }
}

fn unused_key(id: &str, unused: Duration) -> Finding {
    let message = format!(
        "no node has verified anything with the key {} for {} hours, longer than a session may be idle",
        id.escape_debug(),
        unused.as_secs() / 3_600
    );
    let fix = "Remove the key from SESSION_KEY, or with KeyRing::without. Wait as long as remembered logins live, if you \
               have them."
        .to_owned();
    Check::warning("unused-key", String::new()).finding(message, fix)
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
