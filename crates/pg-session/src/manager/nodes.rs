//! The nodes of the registry: which of them answer.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::SessionManager;
use crate::error::Error;
use crate::postgres::failure::Failure;
use crate::shared_settings::differences;
use crate::signing::Signer;

/// How long a node is waited for. One that listens answers within milliseconds.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// A node of the registry; see [`SessionManager::nodes`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Random, new at each start: the first half of a UUID, in hexadecimal digits.
    pub id: String,
    /// `application_name` and address of its connection, as the server sees them. Behind a pooler, these are the pooler's.
    pub name: String,
    /// The version of the library.
    pub version: String,
    /// When it registered, by the database's clock: at its start, or after a restart of the server.
    pub registered_at: SystemTime,
    /// How long its answer took. `None`: it did not answer within 2 s. It then reads from the
    /// database, at the latest a trust window after its last beat. Or it has ended.
    pub answered_after: Option<Duration>,
    /// Since when it has no listener, by the database's clock. It runs, and reads from the database. It says so when the trust
    /// window has passed since its last proof; before, it only does not answer.
    pub listener_lost_at: Option<SystemTime>,
    /// Whether it is this node.
    pub is_this: bool,
    /// Settings that all nodes must share, and whose value here differs from that of the list's first node.
    pub differing_settings: Vec<String>,
}

impl SessionManager {
    /// Shows the ids of this signer's keys in the registry of nodes, and when each key has verified something last.
    /// `pg-session doctor` then finds nodes that lack a key with which another signs, and keys out of use.
    ///
    /// The web crates do this for the signer of each configuration. Of several signers of a node, the last one counts.
    pub fn report_keys(&self, signer: &Signer) {
        self.0.core.key_uses.of(signer);
    }

    /// Asks all nodes of the registry to answer, and lists them in the order of their registration. It takes milliseconds if all
    /// answer, otherwise 2 s. A node that has ended without a goodbye is listed until another one removes its row, one trust
    /// window later.
    ///
    /// # Errors
    /// As [`UserSessions::list`](crate::UserSessions::list).
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, Error> {
        let (database, clock) = (&self.0.core.database, &self.0.core.policy.clock);
        let (mut answers, asked) = (HashMap::new(), clock.now());
        let asking = database.ask_nodes(|row| {
            if !row.listener_lost {
                answers.entry(row.node).or_insert_with(|| clock.now().since(asked));
            }
        });
        // An error means that the time is over: the others are silent.
        if let Ok(outcome) = timeout(ANSWER_WAIT, asking).await {
            outcome.map_err(Failure::into_read_error)?;
        }
        let rows = database.node_descriptions().await.map_err(Failure::into_read_error)?;
        let own = self.0.prover.node();
        let first = rows.iter().find(|row| row.node != own).or(rows.first()).map(|row| row.settings.clone());
        let nodes = rows.into_iter().map(|row| {
            let first = first.as_deref().unwrap_or(&row.settings);
            let (high, _) = row.node.as_u64_pair();
            NodeInfo {
                id: format!("{high:016x}"),
                differing_settings: differences(&[first, &row.settings]),
                name: row.name,
                version: row.version,
                registered_at: row.registered_at.into(),
                answered_after: answers.get(&row.node).copied(),
                listener_lost_at: row.listener_lost_at.map(SystemTime::from),
                is_this: row.node == own,
            }
        });
        Ok(nodes.collect())
    }
}
