//! A table of a million sessions and a node that has them all in memory: made once, for all workloads that need it.

use std::sync::Arc;

use crate::drive::Crew;
use crate::payload::Payload;
use crate::peers::ours::{Node, Tables};
use crate::servers::Servers;

/// Sessions in the table.
pub(crate) const SESSIONS: usize = 1_000_000;

/// The node, once a workload has asked for it.
#[derive(Default)]
pub(crate) struct Million(Option<(Node, Arc<Crew>)>);

impl Million {
    pub(crate) async fn get(&mut self, servers: &Servers) -> anyhow::Result<(Node, Arc<Crew>)> {
        if let Some((node, crew)) = &self.0 {
            return Ok((node.clone(), Arc::clone(crew)));
        }
        eprintln!("  filling a table and a memory with a million sessions");
        let tables = Tables::fill(servers, Payload::Slim, SESSIONS).await?;
        let node = tables.node(tables.config()).await?;
        let crew = Crew::of(node.clone(), SESSIONS).await?;
        crew.warm().await?;
        let (node, crew) = self.0.insert((node, crew));
        Ok((node.clone(), Arc::clone(crew)))
    }
}
