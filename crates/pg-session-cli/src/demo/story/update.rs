//! A change reaches the other nodes: measured from the acknowledgement on B to the first read on A that shows it.

use std::time::{Duration, Instant};

use pg_session::SessionId;

use super::found;
use super::sighting::Sighting;
use crate::demo::cluster::Cluster;
use crate::demo::print::took;
use crate::demo::reporter::{DemoError, Reporter};
use crate::failure::{Failure, ensure};

/// Changes after the first one, for a median.
const ROUNDS: usize = 25;

/// How long one change took.
struct Round {
    /// From the call to the acknowledgement.
    commit: Duration,
    /// From the acknowledgement until A shows it; zero if A was quicker.
    propagation: Duration,
}

pub(super) async fn play(cluster: &Cluster, reporter: &Reporter, id: SessionId) -> Result<(), DemoError> {
    reporter.act("A change reaches the other nodes")?;
    let first = async {
        let round = change(cluster, id, "dark").await?;
        Ok((took(round.commit), round))
    };
    let round = reporter.step("B changes the theme to dark, in one commit", first).await?;
    let shown = async { Ok((format!("{} after B's commit", took(round.propagation)), ())) };
    reporter.step("A, which had the old version in memory, shows the new one", shown).await?;
    let more = async {
        let mut propagations = Vec::with_capacity(ROUNDS);
        for round in 0..ROUNDS {
            propagations.push(change(cluster, id, &format!("shade {round}")).await?.propagation);
        }
        propagations.sort_unstable();
        let (median, worst) = (propagations[ROUNDS / 2], propagations[ROUNDS - 1]);
        Ok((format!("{} in the median, {} at worst", took(median), took(worst)), ()))
    };
    reporter.step(&format!("{ROUNDS} more changes"), more).await
}

async fn change(cluster: &Cluster, id: SessionId, theme: &str) -> Result<Round, Failure> {
    // In A's memory, so that A has something to forget.
    found(&cluster.a, id).await?;
    let mut session = found(&cluster.b, id).await?;
    let before = session.version();
    let sighting =
        Sighting::of(&cluster.a, id, move |seen| seen.is_some_and(|seen| seen.version() > before)).await?;
    session.set("theme", theme)?;
    let begin = Instant::now();
    cluster.b.sessions.save(&mut session).await?;
    let acknowledged = Instant::now();
    let seen = sighting.seen().await?;
    let shown: Option<String> = found(&cluster.a, id).await?.get("theme")?;
    ensure(shown.as_deref() == Some(theme), || format!("A shows {shown:?} instead of {theme:?}"))?;
    Ok(Round {
        commit: acknowledged - begin,
        propagation: seen.checked_duration_since(acknowledged).unwrap_or_default(),
    })
}
