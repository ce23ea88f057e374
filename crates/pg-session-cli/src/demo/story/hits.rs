//! What a read costs that is answered from memory.

use std::time::Instant;

use pg_session::SessionId;

use super::found;
use crate::demo::cluster::Cluster;
use crate::demo::print::took;
use crate::demo::reporter::{DemoError, Reporter};
use crate::failure::ensure;

/// Reads that are timed together.
const READS: u32 = 1_000;

pub(super) async fn play(cluster: &Cluster, reporter: &Reporter, id: SessionId) -> Result<(), DemoError> {
    reporter.act("A thousand reads")?;
    let read = async {
        // The last act's change may have left it to be loaded.
        found(&cluster.a, id).await?;
        let asked = cluster.a.sessions.status().loads.statements;
        let mut hits = 0;
        let begin = Instant::now();
        for _ in 0..READS {
            hits += u32::from(found(&cluster.a, id).await?.is_from_cache());
        }
        let time = begin.elapsed();
        ensure(hits == READS, || format!("only {hits} of {READS} reads were answered from memory"))?;
        let queries = cluster.a.sessions.status().loads.statements - asked;
        ensure(queries == 0, || format!("{queries} queries were sent"))?;
        Ok((format!("{} each, no query", took(time / READS)), ()))
    };
    reporter.step(&format!("A reads the session {READS} times, from memory"), read).await
}
