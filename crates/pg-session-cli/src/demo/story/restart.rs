//! PostgreSQL goes down under load, once in order and once by `kill -9`: what was acknowledged is there, once.
//!
//! The count is exact because each accepted update adds one to its session's version. A session
//! that was created as version 1 and is at version v has had v − 1 updates. A writer that got no
//! answer cannot know (its update may have been committed or not), says so, and is counted apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pg_sandbox::Sandbox;
use pg_session::{ErrorKind, Session, SessionId, SessionManager, UpdateError, UserId};
use tokio::task::JoinSet;

use super::{found, until};
use crate::demo::cluster::Cluster;
use crate::demo::print::{count, took};
use crate::demo::reporter::{DemoError, Reporter};
use crate::failure::{Failure, ensure};

/// Writers on each node, each with a session of its own.
const WRITERS_PER_NODE: u32 = 6;
/// The first of their users, who have numbers.
const FIRST_USER: u32 = 2_000;
/// Updates that have to be acknowledged before, between and after the failures.
const UPDATES_BETWEEN: u64 = 200;
/// What a writer does with an error: waits a little, and tries again.
const PAUSE: Duration = Duration::from_millis(5);

/// What all writers share.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

/// What a writer knows of its session at the end.
struct Account {
    id: SessionId,
    acknowledged: u64,
    /// Updates that were sent and not answered.
    unanswered: u64,
}

type Writers = JoinSet<Result<Account, Failure>>;

pub(super) async fn play(cluster: &Cluster, reporter: &Reporter) -> Result<(), DemoError> {
    reporter.act("PostgreSQL goes down under load")?;
    let Some(sandbox) = cluster.server.sandbox() else {
        return reporter
            .skipped("the demo does not restart a server of yours; without --database-url it does");
    };
    let (load, writers) = reporter.step("writers on all nodes, as fast as they can", start(cluster)).await?;
    let restart = fail(sandbox, &load, Sandbox::stop);
    reporter.step("PostgreSQL is restarted; the writers carry on by themselves", restart).await?;
    let kill = fail(sandbox, &load, Sandbox::kill);
    reporter.step("PostgreSQL is killed with -9, started again, and recovers", kill).await?;
    let accounts = reporter.step("the writers stop", finish(&load, writers)).await?;
    reporter
        .step("no acknowledged update is lost, and none was made twice", audit(cluster, &accounts))
        .await?;
    reporter.step("A, B and C are in sync, and show what the table holds", compare(cluster, &accounts)).await
}

async fn start(cluster: &Cluster) -> Result<(String, (Arc<Load>, Writers)), Failure> {
    let load = Arc::new(Load::default());
    let mut writers = JoinSet::new();
    let mut user = FIRST_USER;
    for node in cluster.nodes() {
        for _ in 0..WRITERS_PER_NODE {
            let session = node.sessions.create(UserId::from(user)).await?;
            writers.spawn(write(node.sessions.clone(), session, Arc::clone(&load)));
            user += 1;
        }
    }
    let begin = Instant::now();
    let before = load.acknowledged.load(Ordering::Relaxed);
    progress(&load).await;
    let rate = per_second(load.acknowledged.load(Ordering::Relaxed) - before, begin.elapsed());
    Ok((format!("{} writers, {} updates/s", writers.len(), count(rate)), (load, writers)))
}

/// Ends the server as `end` does, starts it again, and waits until the writers are back at work.
async fn fail(
    sandbox: &Arc<Sandbox>,
    load: &Arc<Load>,
    end: fn(&Sandbox) -> Result<(), pg_sandbox::Error>,
) -> Result<(String, ()), Failure> {
    let begin = Instant::now();
    let server = Arc::clone(sandbox);
    tokio::task::spawn_blocking(move || end(&server).and_then(|()| server.start_again())).await??;
    let up = begin.elapsed();
    progress(load).await;
    Ok((format!("up after {}, writing after {}", took(up), took(begin.elapsed())), ()))
}

/// Waits until so many updates more have been acknowledged.
async fn progress(load: &Load) {
    let goal = load.acknowledged.load(Ordering::Relaxed) + UPDATES_BETWEEN;
    until(|| load.acknowledged.load(Ordering::Relaxed) >= goal).await;
}

async fn finish(load: &Load, mut writers: Writers) -> Result<(String, Vec<Account>), Failure> {
    load.stop.store(true, Ordering::Relaxed);
    let mut accounts = Vec::new();
    while let Some(account) = writers.join_next().await {
        accounts.push(account??);
    }
    let (acknowledged, unanswered) = totals(&accounts);
    Ok((format!("{} acknowledged, {unanswered} unanswered", count(acknowledged)), accounts))
}

/// One writer: changes its session until it gets the signal to stop.
async fn write(sessions: SessionManager, mut session: Session, load: Arc<Load>) -> Result<Account, Failure> {
    let mut account = Account { id: session.id(), acknowledged: 0, unanswered: 0 };
    let mut number = 0_u64;
    while !load.stop.load(Ordering::Relaxed) {
        number += 1;
        session.set("number", &number)?;
        match sessions.save(&mut session).await {
            Ok(()) => {
                account.acknowledged += 1;
                load.acknowledged.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Err(UpdateError::Failed(error)) => match error.kind() {
                ErrorKind::OutcomeUnknown => account.unanswered += 1,
                // Nothing was changed.
                ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Overloaded => {}
                _ => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(account)
}

/// Looks into the table, past the library.
async fn audit(cluster: &Cluster, accounts: &[Account]) -> Result<(String, ()), Failure> {
    let client = cluster.server.client().await?;
    let mut held = 0_u64;
    for account in accounts {
        let row =
            client.query_one("SELECT version FROM sessions WHERE id = $1", &[&account.id.expose()]).await?;
        let updates = u64::try_from(row.try_get::<_, i64>(0)? - 1)?;
        let Account { acknowledged, unanswered, .. } = *account;
        ensure(updates >= acknowledged, || {
            format!("a session had {updates} updates, and {acknowledged} were acknowledged")
        })?;
        ensure(updates <= acknowledged + unanswered, || {
            format!(
                "a session had {updates} updates, and only {acknowledged} were acknowledged and {unanswered} unanswered"
            )
        })?;
        held += updates;
    }
    let (acknowledged, unanswered) = totals(accounts);
    let figure = format!(
        "{} in the table = {} acknowledged + {} of {unanswered} unanswered",
        count(held),
        count(acknowledged),
        held - acknowledged
    );
    Ok((figure, ()))
}

async fn compare(cluster: &Cluster, accounts: &[Account]) -> Result<(String, ()), Failure> {
    let begin = Instant::now();
    let client = cluster.server.client().await?;
    for node in cluster.nodes() {
        node.sessions.wait_until_trusted().await?;
        for account in accounts {
            let text = "SELECT version FROM sessions WHERE id = $1";
            let version: i64 = client.query_one(text, &[&account.id.expose()]).await?.try_get(0)?;
            let seen = found(node, account.id).await?.version().get();
            ensure(seen == version, || {
                format!("{} shows version {seen}, and the table holds {version}", node.name)
            })?;
        }
    }
    Ok((took(begin.elapsed()), ()))
}

fn totals(accounts: &[Account]) -> (u64, u64) {
    accounts.iter().fold((0, 0), |(acknowledged, unanswered), account| {
        (acknowledged + account.acknowledged, unanswered + account.unanswered)
    })
}

fn per_second(events: u64, time: Duration) -> u64 {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
    events.saturating_mul(1_000_000_000) / nanos
}
