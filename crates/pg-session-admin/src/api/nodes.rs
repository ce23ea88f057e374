//! Lists the nodes of the registry.

use axum::Json;
use axum::extract::State;
use pg_session::NodeInfo;
use serde::Serialize;

use super::error::ApiError;
use crate::Admin;
use crate::shared::rfc3339;

#[derive(Serialize)]
pub(super) struct Nodes {
    nodes: Vec<NodeRow>,
}

#[derive(Serialize)]
struct NodeRow {
    id: String,
    name: String,
    version: String,
    registered_at: String,
    this_node: bool,
    /// `None` if it did not answer within 2 s.
    answered_after_seconds: Option<f64>,
    /// Since when it has no listener, and reads from the database.
    listener_lost_at: Option<String>,
    differing_settings: Vec<String>,
}

impl From<NodeInfo> for NodeRow {
    fn from(node: NodeInfo) -> Self {
        Self {
            registered_at: rfc3339(node.registered_at),
            this_node: node.is_this,
            answered_after_seconds: node.answered_after.map(|after| after.as_secs_f64()),
            listener_lost_at: node.listener_lost_at.map(rfc3339),
            id: node.id,
            name: node.name,
            version: node.version,
            differing_settings: node.differing_settings,
        }
    }
}

/// Asks all nodes to answer.
pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<Nodes>, ApiError> {
    let nodes = admin.0.manager.nodes().await?;
    Ok(Json(Nodes { nodes: nodes.into_iter().map(NodeRow::from).collect() }))
}
