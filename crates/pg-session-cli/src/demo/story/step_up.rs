//! "Sudo mode": an attribute that ends by itself, on every node at once, without a write.

use std::time::{Duration, Instant};

use pg_session::SessionId;

use super::found;
use super::sighting::Sighting;
use crate::demo::cluster::Cluster;
use crate::demo::print::took;
use crate::demo::reporter::{DemoError, Reporter};
use crate::failure::ensure;

/// How long the privilege is granted for.
const GRANTED: Duration = Duration::from_secs(1);
/// What the nodes' estimates of the database's clock may differ by.
const CLOCK_ERROR_MAX: Duration = Duration::from_millis(100);

pub(super) async fn play(cluster: &Cluster, reporter: &Reporter, id: SessionId) -> Result<(), DemoError> {
    reporter.act("A privilege that ends by itself")?;
    let grant = async {
        let mut session = found(&cluster.a, id).await?;
        let begin = Instant::now();
        session.set_for("elevated", &true, GRANTED)?;
        cluster.a.sessions.save(&mut session).await?;
        let version = session.version();
        let time = begin.elapsed();
        // B has learned of the grant, so that whatever it receives from now on is something else.
        cluster.b.sessions.catch_up().await?;
        let elevated: Option<bool> = found(&cluster.b, id).await?.get("elevated")?;
        ensure(elevated == Some(true), || format!("B shows {elevated:?}"))?;
        Ok((took(time), (begin, version)))
    };
    let what = format!("Ann types her password again: A grants `elevated` for {} s", GRANTED.as_secs());
    let (begin, version) = reporter.step(&what, grant).await?;
    let end = async {
        let before = cluster.b.sessions.status();
        // `None` is an ended session, which this one must not be.
        let gone = Sighting::of(&cluster.b, id, |seen| seen.is_some_and(|seen| !seen.contains("elevated")));
        let time = gone.await?.seen().await? - begin;
        ensure(time + CLOCK_ERROR_MAX >= GRANTED, || format!("it was gone after {}", took(time)))?;
        let after = cluster.b.sessions.status();
        ensure(found(&cluster.b, id).await?.version() == version, || {
            "another writer changed the session".to_owned()
        })?;
        let seen = after.cache.invalidations - before.cache.invalidations;
        let loads = after.loads.statements - before.loads.statements;
        ensure(seen + loads == 0, || format!("it took {loads} queries and {seen} messages"))?;
        Ok((format!("after {}", took(time)), ()))
    };
    reporter.step("it is gone on B: no write, no query, no message", end).await
}
