//! One session, three nodes: created on one, found by all, and asked for once.

use std::time::Instant;

use pg_session::{SessionId, UserId};

use super::found;
use crate::demo::cluster::{Cluster, Node};
use crate::demo::print::took;
use crate::demo::reporter::{DemoError, Reporter};
use crate::failure::{Failure, ensure};

pub(super) async fn play(cluster: &Cluster, reporter: &Reporter) -> Result<SessionId, DemoError> {
    reporter.act("One session, three nodes")?;
    let create = async {
        let begin = Instant::now();
        let ann = UserId::named("ann");
        let session = cluster.a.sessions.create(ann).set("theme", "light").set("role", "admin").await?;
        Ok((took(begin.elapsed()), session.id()))
    };
    let id = reporter.step("A creates a session for Ann, in one commit", create).await?;
    for node in [&cluster.b, &cluster.c] {
        miss_then_hit(node, id, reporter).await?;
    }
    Ok(id)
}

async fn miss_then_hit(node: &Node, id: SessionId, reporter: &Reporter) -> Result<(), DemoError> {
    let name = node.name;
    reporter.step(&format!("{name} reads it: a miss, answered by PostgreSQL"), read(node, id, false)).await?;
    reporter.step(&format!("{name} reads it again: a hit, answered from memory"), read(node, id, true)).await
}

async fn read(node: &Node, id: SessionId, from_cache: bool) -> Result<(String, ()), Failure> {
    let begin = Instant::now();
    let session = found(node, id).await?;
    let time = begin.elapsed();
    ensure(session.is_from_cache() == from_cache, || {
        format!("the read was answered {}", if from_cache { "by PostgreSQL" } else { "from memory" })
    })?;
    let theme: Option<String> = session.get("theme")?;
    ensure(theme.as_deref() == Some("light"), || format!("the theme should be light, and is {theme:?}"))?;
    Ok((took(time), ()))
}
