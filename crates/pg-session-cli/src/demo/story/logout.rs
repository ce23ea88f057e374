//! Logout is final: gone on every node, and no request in flight brings the session back.

use std::time::Instant;

use pg_session::{SessionId, UpdateError};

use super::found;
use super::sighting::Sighting;
use crate::demo::cluster::Cluster;
use crate::demo::print::took;
use crate::demo::reporter::{DemoError, Reporter};
use crate::failure::{Failure, ensure};

pub(super) async fn play(cluster: &Cluster, reporter: &Reporter, id: SessionId) -> Result<(), DemoError> {
    reporter.act("Logout")?;
    let log_out = async {
        let in_flight = found(&cluster.a, id).await?;
        let on_a = Sighting::of(&cluster.a, id, |seen| seen.is_none()).await?;
        let on_b = Sighting::of(&cluster.b, id, |seen| seen.is_none()).await?;
        let begin = Instant::now();
        let was_alive = cluster.c.sessions.delete(id).await?;
        let acknowledged = Instant::now();
        ensure(was_alive, || "C did not find the session".to_owned())?;
        Ok((took(acknowledged - begin), (in_flight, on_a, on_b, acknowledged)))
    };
    let (mut in_flight, on_a, on_b, acknowledged) =
        reporter.step("Ann logs out on C, in one commit", log_out).await?;
    for (node, sighting) in [(&cluster.a, on_a), (&cluster.b, on_b)] {
        let gone = async {
            let after = sighting.seen().await?.checked_duration_since(acknowledged).unwrap_or_default();
            Ok((format!("{} after C's commit", took(after)), ()))
        };
        reporter.step(&format!("gone on {}, which had it in memory", node.name), gone).await?;
    }
    let revive = async {
        in_flight.set("theme", "undead")?;
        match cluster.a.sessions.save(&mut in_flight).await {
            Err(UpdateError::NotFound) => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return Err(Failure::new("the update was accepted")),
        }
        for node in cluster.nodes() {
            let seen = node.sessions.get(id).bypass_cache().await?;
            ensure(seen.is_none(), || format!("the session is back on {}", node.name))?;
        }
        Ok(("\"not found\"".to_owned(), ()))
    };
    reporter.step("a slow request on A, which still holds it, cannot bring it back", revive).await
}
