//! B loses the network: it says what it knows, and nothing that it cannot know.

use std::time::{Duration, Instant};

use pg_session::{ErrorKind, Session, SessionId, UserId};

use super::found;
use crate::demo::cluster::{Cluster, Wires};
use crate::demo::print::took;
use crate::demo::reporter::{DemoError, Reporter};
use crate::failure::{Failure, ensure};

/// The sessions of this act, both in B's memory.
struct Scene {
    /// Is read while B is cut off.
    bob: SessionId,
    /// Is not: B has to find out what it missed.
    cleo: SessionId,
}

pub(super) async fn play(cluster: &Cluster, reporter: &Reporter) -> Result<(), DemoError> {
    reporter.act("B is cut off")?;
    let Some(wires) = &cluster.wires else {
        return reporter
            .skipped("the server is reached through a Unix socket, which no proxy can be put before");
    };
    let scene = reporter.step("B has Bob's and Cleo's sessions in memory", set(cluster)).await?;
    let cut = async {
        let begin = Instant::now();
        wires.cut_listener();
        while cluster.b.is_trusted() {
            tokio::task::yield_now().await;
        }
        Ok((format!("after {}", took(begin.elapsed())), ()))
    };
    reporter.step("B's listener is cut off: B stops trusting its memory", cut).await?;
    reporter
        .step("A changes both sessions, and B does not learn of it", change_both(cluster, &scene))
        .await?;
    reporter.step("B reads Bob's: the new version, from PostgreSQL", read_through(cluster, &scene)).await?;
    let what = "B is cut off altogether: an error, not an old session";
    reporter.step(what, refuse(cluster, wires, &scene)).await?;
    let mend = async {
        let begin = Instant::now();
        wires.mend();
        cluster.b.sessions.wait_until_trusted().await?;
        Ok((format!("after {}", took(begin.elapsed())), ()))
    };
    reporter.step("the network is back: B listens, and is in sync again", mend).await?;
    reporter
        .step("B shows Cleo's new version, of which it got no notification", missed(cluster, &scene))
        .await
}

async fn set(cluster: &Cluster) -> Result<(String, Scene), Failure> {
    let begin = Instant::now();
    let bob = cluster.a.sessions.create(UserId::named("bob")).set("theme", "old").await?.id();
    let cleo = cluster.a.sessions.create(UserId::named("cleo")).set("theme", "old").await?.id();
    for id in [bob, cleo] {
        found(&cluster.b, id).await?;
        ensure(found(&cluster.b, id).await?.is_from_cache(), || "B does not keep it".to_owned())?;
    }
    Ok((took(begin.elapsed()), Scene { bob, cleo }))
}

async fn change_both(cluster: &Cluster, scene: &Scene) -> Result<(String, ()), Failure> {
    let begin = Instant::now();
    for id in [scene.bob, scene.cleo] {
        let mut session = found(&cluster.a, id).await?;
        session.set("theme", "new")?;
        cluster.a.sessions.save(&mut session).await?;
    }
    ensure(!cluster.b.is_trusted(), || "B trusts its memory again, without a listener".to_owned())?;
    Ok((took(begin.elapsed()), ()))
}

async fn read_through(cluster: &Cluster, scene: &Scene) -> Result<(String, ()), Failure> {
    let mut times = [Duration::ZERO; 2];
    for time in &mut times {
        let begin = Instant::now();
        let session = found(&cluster.b, scene.bob).await?;
        *time = begin.elapsed();
        ensure(!session.is_from_cache(), || "it was answered from memory".to_owned())?;
        is_new(&session)?;
    }
    Ok((format!("{}, and each time anew: {}", took(times[0]), took(times[1])), ()))
}

async fn refuse(cluster: &Cluster, wires: &Wires, scene: &Scene) -> Result<(String, ()), Failure> {
    wires.cut_pool();
    let begin = Instant::now();
    match cluster.b.sessions.get(scene.bob).await {
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
            Ok((format!("{:?} after {}", error.kind(), took(begin.elapsed())), ()))
        }
        Err(error) => Err(error.into()),
        Ok(_) => Err(Failure::new("B answered")),
    }
}

async fn missed(cluster: &Cluster, scene: &Scene) -> Result<(String, ()), Failure> {
    let begin = Instant::now();
    is_new(&found(&cluster.b, scene.cleo).await?)?;
    let time = begin.elapsed();
    let again = found(&cluster.b, scene.cleo).await?;
    is_new(&again)?;
    ensure(again.is_from_cache(), || "B does not answer from memory again".to_owned())?;
    Ok((format!("{}, then from memory again", took(time)), ()))
}

fn is_new(session: &Session) -> Result<(), Failure> {
    let theme: Option<String> = session.get("theme")?;
    ensure(theme.as_deref() == Some("new"), || {
        format!("B shows the theme {theme:?}, and A has saved \"new\"")
    })
}
