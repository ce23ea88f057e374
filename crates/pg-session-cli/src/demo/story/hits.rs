//! What a read costs that is answered from memory.

use std::time::Instant;

use pg_session::SessionId;

use super::found;
use crate::demo::print::took;
use crate::demo::stage::Stage;
use crate::demo::teller::{Teller, Trouble};
use crate::why::ensure;

/// Reads that are timed together.
const READS: u32 = 1_000;

pub(super) async fn play(stage: &Stage, teller: &Teller, id: SessionId) -> Result<(), Trouble> {
    teller.act("A thousand reads")?;
    let read = async {
        // The last act's change may have left it to be loaded.
        found(&stage.a, id).await?;
        let asked = stage.a.sessions.status().loads.statements;
        let mut hits = 0;
        let begin = Instant::now();
        for _ in 0..READS {
            hits += u32::from(found(&stage.a, id).await?.is_from_cache());
        }
        let time = begin.elapsed();
        ensure(hits == READS, || format!("only {hits} of {READS} reads were answered from memory"))?;
        let queries = stage.a.sessions.status().loads.statements - asked;
        ensure(queries == 0, || format!("{queries} queries were sent"))?;
        Ok((format!("{} each, no query", took(time / READS)), ()))
    };
    teller.step(&format!("A reads the session {READS} times, from memory"), read).await
}
