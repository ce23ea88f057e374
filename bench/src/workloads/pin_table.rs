//! The most that a table of pins for each thread could gain: reads by Zipf's law. The hottest sessions are in a map of this
//! thread, beside a pin of each.
//!
//! A real table would do more: learn which sessions are hot, count accesses, and notice newer versions. So this is an upper
//! bound.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pg_session::{Pin, Session, SessionId, SessionManager};
use quick_cache::DefaultHashBuilder;
use tokio::runtime::Handle;

use super::threads::{Done, on_threads, walk_async};
use crate::contest::Contest;
use crate::peers::ours::Node;
use crate::plan::Plan;

/// Sessions in each table: what a processor keeps close to itself.
const HOTTEST: usize = 1_024;

type Table = HashMap<SessionId, (Pin, Session), DefaultHashBuilder>;

/// `draws` has a list for each thread.
pub(super) fn enter<'a>(
    contest: &mut Contest<'a>,
    plan: &Plan,
    name: &str,
    node: &'a Node,
    draws: Arc<[Arc<[SessionId]>]>,
) {
    contest.enter(plan, name, move |span| {
        let (manager, draws) = (node.manager.clone(), Arc::clone(&draws));
        async move {
            let handle = Handle::current();
            on_threads(draws.len(), |thread| {
                handle.block_on(async {
                    let table = fill(&manager, &node.tables.ids[..HOTTEST]).await?;
                    read(&manager, &table, &draws[thread], span).await
                })
            })
        }
    });
}

async fn fill(manager: &SessionManager, ids: &[SessionId]) -> anyhow::Result<Table> {
    let mut table = Table::default();
    for &id in ids {
        let session = manager.get(id).no_touch().await?.context("a session is gone")?;
        table.insert(id, (manager.pin(&session).await?, session));
    }
    Ok(table)
}

async fn read(
    manager: &SessionManager,
    table: &Table,
    draws: &[SessionId],
    span: Duration,
) -> anyhow::Result<Done> {
    walk_async(draws, span, async |id| {
        let session = match table.get(id) {
            Some((pin, session)) => {
                pin.check()?;
                session.clone()
            }
            None => manager.get(*id).await?.context("a session is gone")?,
        };
        black_box(session);
        Ok(())
    })
    .await
}
