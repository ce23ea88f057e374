//! Logout is final: gone on every node, and no request in flight brings the session back.

use std::time::Instant;

use pg_session::{SessionId, UpdateError};

use super::found;
use super::sighting::Sighting;
use crate::demo::print::took;
use crate::demo::stage::Stage;
use crate::demo::teller::{Teller, Trouble};
use crate::why::{Why, ensure};

pub(super) async fn play(stage: &Stage, teller: &Teller, id: SessionId) -> Result<(), Trouble> {
    teller.act("Logout")?;
    let log_out = async {
        let in_flight = found(&stage.a, id).await?;
        let on_a = Sighting::of(&stage.a, id, |seen| seen.is_none()).await?;
        let on_b = Sighting::of(&stage.b, id, |seen| seen.is_none()).await?;
        let begin = Instant::now();
        let was_alive = stage.c.sessions.delete(id).await?;
        let acknowledged = Instant::now();
        ensure(was_alive, || "C did not find the session".to_owned())?;
        Ok((took(acknowledged - begin), (in_flight, on_a, on_b, acknowledged)))
    };
    let (mut in_flight, on_a, on_b, acknowledged) =
        teller.step("Ann logs out on C, in one commit", log_out).await?;
    for (node, sighting) in [(&stage.a, on_a), (&stage.b, on_b)] {
        let gone = async {
            let after = sighting.seen().await?.checked_duration_since(acknowledged).unwrap_or_default();
            Ok((format!("{} after C's commit", took(after)), ()))
        };
        teller.step(&format!("gone on {}, which had it in memory", node.name), gone).await?;
    }
    let revive = async {
        in_flight.set("theme", "undead")?;
        match stage.a.sessions.save(&mut in_flight).await {
            Err(UpdateError::NotFound) => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return Err(Why::new("the update was accepted")),
        }
        for node in stage.nodes() {
            let seen = node.sessions.get(id).bypass_cache().await?;
            ensure(seen.is_none(), || format!("the session is back on {}", node.name))?;
        }
        Ok(("\"not found\"".to_owned(), ()))
    };
    teller.step("a slow request on A, which still holds it, cannot bring it back", revive).await
}
