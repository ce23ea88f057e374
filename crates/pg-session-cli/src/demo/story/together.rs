//! Many changes at once share their commits: a commit waits for the disk, and one can carry many changes.

use std::time::{Duration, Instant};

use pg_session::{Session, UserId};
use tokio::task::JoinSet;

use crate::demo::cluster::{Cluster, Node};
use crate::demo::print::{counted, took};
use crate::demo::reporter::{DemoError, Reporter};
use crate::failure::{Failure, ensure};

/// Sessions, each of which is changed once.
const SESSIONS: u32 = 64;
/// The first of their users, who have numbers.
const FIRST_USER: u32 = 1_000;
/// Far fewer than one commit each.
const COMMITS_MAX: u64 = 16;

pub(super) async fn play(cluster: &Cluster, reporter: &Reporter) -> Result<(), DemoError> {
    reporter.act(&format!("{SESSIONS} changes at once"))?;
    let node = &cluster.a;
    let create = async {
        let before = node.sessions.status().writes.create_statements;
        let begin = Instant::now();
        let sessions = create_all(node).await?;
        let commits = node.sessions.status().writes.create_statements - before;
        Ok((cost(commits, begin.elapsed()), sessions))
    };
    let mut sessions = reporter.step(&format!("{SESSIONS} people log in on A, all at once"), create).await?;
    let one_by_one = async {
        let before = node.sessions.status().writes.update_statements;
        let begin = Instant::now();
        for session in &mut sessions {
            session.set("seen", &1)?;
            node.sessions.save(session).await?;
        }
        let commits = node.sessions.status().writes.update_statements - before;
        Ok((cost(commits, begin.elapsed()), sessions))
    };
    let sessions = reporter.step("a change of each session, one after the other", one_by_one).await?;
    let together = async {
        let before = node.sessions.status().writes.update_statements;
        let begin = Instant::now();
        update_all(node, sessions).await?;
        let commits = node.sessions.status().writes.update_statements - before;
        ensure(commits <= COMMITS_MAX, || format!("it took {commits} commits instead of a few"))?;
        Ok((cost(commits, begin.elapsed()), ()))
    };
    reporter.step("the same, all at once: they share their commits", together).await
}

fn cost(commits: u64, time: Duration) -> String {
    format!("{}, {}", counted(commits, "commit"), took(time))
}

async fn create_all(node: &Node) -> Result<Vec<Session>, Failure> {
    let mut creating = JoinSet::new();
    for number in 0..SESSIONS {
        let sessions = node.sessions.clone();
        creating.spawn(async move { sessions.create(UserId::from(FIRST_USER + number)).await });
    }
    let mut created = Vec::new();
    while let Some(session) = creating.join_next().await {
        created.push(session??);
    }
    Ok(created)
}

async fn update_all(node: &Node, sessions: Vec<Session>) -> Result<(), Failure> {
    let mut updating = JoinSet::new();
    for mut session in sessions {
        session.set("seen", &2)?;
        let sessions = node.sessions.clone();
        updating.spawn(async move { sessions.save(&mut session).await });
    }
    while let Some(outcome) = updating.join_next().await {
        outcome??;
    }
    Ok(())
}
