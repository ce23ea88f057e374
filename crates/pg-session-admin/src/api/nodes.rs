//! Lists the nodes of the registry.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::error::ApiError;
use crate::Admin;
use crate::shared::NodeRow;

#[derive(Serialize)]
pub(super) struct Nodes {
    nodes: Vec<NodeRow>,
}

/// Asks all nodes to answer.
pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<Nodes>, ApiError> {
    let nodes = admin.0.manager.nodes().await?;
    Ok(Json(Nodes { nodes: nodes.iter().map(NodeRow::from).collect() }))
}
