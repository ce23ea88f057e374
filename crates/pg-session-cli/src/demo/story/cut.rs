//! B loses the network: it says what it knows, and nothing that it cannot know.

use std::time::{Duration, Instant};

use pg_session::{ErrorKind, Session, SessionId, UserId};

use super::found;
use crate::demo::print::took;
use crate::demo::stage::{Stage, Wires};
use crate::demo::teller::{Teller, Trouble};
use crate::why::{Why, ensure};

/// The sessions of this act, both in B's memory.
struct Scene {
    /// Is read while B is cut off.
    bob: SessionId,
    /// Is not: B has to find out what it missed.
    cleo: SessionId,
}

pub(super) async fn play(stage: &Stage, teller: &Teller) -> Result<(), Trouble> {
    teller.act("B is cut off")?;
    let Some(wires) = &stage.wires else {
        return teller
            .skipped("the server is reached through a Unix socket, which no proxy can be put before");
    };
    let scene = teller.step("B has Bob's and Cleo's sessions in memory", set(stage)).await?;
    let cut = async {
        let begin = Instant::now();
        wires.cut_listener();
        while stage.b.is_trusted() {
            tokio::task::yield_now().await;
        }
        Ok((format!("after {}", took(begin.elapsed())), ()))
    };
    teller.step("B's listener is cut off: B stops trusting its memory", cut).await?;
    teller.step("A changes both sessions, and B does not learn of it", change_both(stage, &scene)).await?;
    teller.step("B reads Bob's: the new version, from PostgreSQL", read_through(stage, &scene)).await?;
    let what = "B is cut off altogether: an error, not an old session";
    teller.step(what, refuse(stage, wires, &scene)).await?;
    let mend = async {
        let begin = Instant::now();
        wires.mend();
        stage.b.sessions.wait_until_trusted().await?;
        Ok((format!("after {}", took(begin.elapsed())), ()))
    };
    teller.step("the network is back: B listens, and is in sync again", mend).await?;
    teller.step("B shows Cleo's new version, of which it got no notification", missed(stage, &scene)).await
}

async fn set(stage: &Stage) -> Result<(String, Scene), Why> {
    let begin = Instant::now();
    let bob = stage.a.sessions.create(UserId::named("bob")).set("theme", "old").await?.id();
    let cleo = stage.a.sessions.create(UserId::named("cleo")).set("theme", "old").await?.id();
    for id in [bob, cleo] {
        found(&stage.b, id).await?;
        ensure(found(&stage.b, id).await?.is_from_cache(), || "B does not keep it".to_owned())?;
    }
    Ok((took(begin.elapsed()), Scene { bob, cleo }))
}

async fn change_both(stage: &Stage, scene: &Scene) -> Result<(String, ()), Why> {
    let begin = Instant::now();
    for id in [scene.bob, scene.cleo] {
        let mut session = found(&stage.a, id).await?;
        session.set("theme", "new")?;
        stage.a.sessions.save(&mut session).await?;
    }
    ensure(!stage.b.is_trusted(), || "B trusts its memory again, without a listener".to_owned())?;
    Ok((took(begin.elapsed()), ()))
}

async fn read_through(stage: &Stage, scene: &Scene) -> Result<(String, ()), Why> {
    let mut times = [Duration::ZERO; 2];
    for time in &mut times {
        let begin = Instant::now();
        let session = found(&stage.b, scene.bob).await?;
        *time = begin.elapsed();
        ensure(!session.is_from_cache(), || "it was answered from memory".to_owned())?;
        is_new(&session)?;
    }
    Ok((format!("{}, and each time anew: {}", took(times[0]), took(times[1])), ()))
}

async fn refuse(stage: &Stage, wires: &Wires, scene: &Scene) -> Result<(String, ()), Why> {
    wires.cut_pool();
    let begin = Instant::now();
    match stage.b.sessions.get(scene.bob).await {
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
            Ok((format!("{:?} after {}", error.kind(), took(begin.elapsed())), ()))
        }
        Err(error) => Err(error.into()),
        Ok(_) => Err(Why::new("B answered")),
    }
}

async fn missed(stage: &Stage, scene: &Scene) -> Result<(String, ()), Why> {
    let begin = Instant::now();
    is_new(&found(&stage.b, scene.cleo).await?)?;
    let time = begin.elapsed();
    let again = found(&stage.b, scene.cleo).await?;
    is_new(&again)?;
    ensure(again.is_from_cache(), || "B does not answer from memory again".to_owned())?;
    Ok((format!("{}, then from memory again", took(time)), ()))
}

fn is_new(session: &Session) -> Result<(), Why> {
    let theme: Option<String> = session.get("theme")?;
    ensure(theme.as_deref() == Some("new"), || {
        format!("B shows the theme {theme:?}, and A has saved \"new\"")
    })
}
