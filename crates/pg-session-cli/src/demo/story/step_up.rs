//! "Sudo mode": an attribute that ends by itself, on every node at once, without anybody writing anything.

use std::time::{Duration, Instant};

use pg_session::SessionId;

use super::found;
use super::sighting::Sighting;
use crate::demo::print::took;
use crate::demo::stage::Stage;
use crate::demo::teller::{Teller, Trouble};
use crate::why::ensure;

/// How long the privilege is granted for.
const GRANTED: Duration = Duration::from_secs(1);
/// What the nodes' estimates of the database's clock may differ by.
const CLOCK_ERROR_MAX: Duration = Duration::from_millis(100);

pub(super) async fn play(stage: &Stage, teller: &Teller, id: SessionId) -> Result<(), Trouble> {
    teller.act("A privilege that ends by itself")?;
    let grant = async {
        let mut session = found(&stage.a, id).await?;
        let begin = Instant::now();
        session.set_for("elevated", &true, GRANTED)?;
        stage.a.sessions.save(&mut session).await?;
        let version = session.version();
        let time = begin.elapsed();
        // B has learned of the grant, so that whatever it receives from now on is something else.
        stage.b.sessions.catch_up().await?;
        let elevated: Option<bool> = found(&stage.b, id).await?.get("elevated")?;
        ensure(elevated == Some(true), || format!("B shows {elevated:?}"))?;
        Ok((took(time), (begin, version)))
    };
    let what = format!("Ann types her password again: A grants `elevated` for {} s", GRANTED.as_secs());
    let (begin, version) = teller.step(&what, grant).await?;
    let end = async {
        let before = stage.b.sessions.status();
        // `None` is an ended session, which this one must not be.
        let gone = Sighting::of(&stage.b, id, |seen| seen.is_some_and(|seen| !seen.contains("elevated")));
        let time = gone.await?.seen().await? - begin;
        ensure(time + CLOCK_ERROR_MAX >= GRANTED, || format!("it was gone after {}", took(time)))?;
        let after = stage.b.sessions.status();
        ensure(found(&stage.b, id).await?.version() == version, || {
            "another writer changed the session".to_owned()
        })?;
        let heard = after.cache.invalidations - before.cache.invalidations;
        let loads = after.loads.statements - before.loads.statements;
        ensure(heard + loads == 0, || format!("it took {loads} queries and {heard} messages"))?;
        Ok((format!("after {}", took(time)), ()))
    };
    teller.step("it is gone on B: no write, no query, no message", end).await
}
