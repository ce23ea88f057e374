//! Measures the server through the library, as nodes use it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_session::{Session, SessionManager, UserId};
use tokio::task::JoinSet;

use super::model::Measured;
use crate::connection::{Place, close};
use crate::failure::Failure;

/// Sessions of the measurement: a full batch.
const SESSIONS: usize = 512;
/// Statements of one kind, of which the median counts.
const SAMPLES: usize = 40;
/// Full batches, of which the quickest counts: the others have met something else.
const BATCHES: usize = 6;
/// Nodes that listen, and notifications that they receive.
const LISTENERS: u32 = 8;
const NOTIFICATIONS: u32 = 300;
/// The sessions end by themselves if the program is killed.
const LIFETIME: Duration = Duration::from_secs(600);

/// Nothing is left behind but dead rows.
pub(super) async fn measure(place: &Place, bytes: u32) -> Result<Measured, Failure> {
    place.with(async |node| with_sessions(place, node, bytes).await).await
}

async fn with_sessions(place: &Place, node: &SessionManager, bytes: u32) -> Result<Measured, Failure> {
    let value: Arc<str> = "x".repeat(bytes as usize).into();
    let mut sessions = Vec::with_capacity(SESSIONS);
    let outcome = measured(place, node, &mut sessions, &value).await;
    node.delete_many(sessions.iter().map(Session::id)).await?;
    outcome
}

/// The sessions that it has made are in `sessions`, also if it fails.
async fn measured(
    place: &Place,
    node: &SessionManager,
    sessions: &mut Vec<Session>,
    value: &Arc<str>,
) -> Result<Measured, Failure> {
    let mut creating = JoinSet::new();
    for _ in 0..SESSIONS {
        let node = node.clone();
        creating.spawn(async move { node.create_anonymous().expires_in(LIFETIME).await });
    }
    let mut created = Ok(());
    while let Some(outcome) = creating.join_next().await {
        match outcome? {
            Ok(session) => sessions.push(session),
            Err(error) => created = Err(error),
        }
    }
    created?;
    let (mut single, mut notify) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        // It notifies, as a save does, and flushes nothing.
        notify.push(evict(node).await?);
        let begin = Instant::now();
        sessions[0].set("plan", &**value)?;
        node.save(&mut sessions[0]).await?;
        single.push(begin.elapsed());
    }
    let (single, round_trip) = (median(&mut single), median(&mut notify));
    let mut batch = Duration::MAX;
    for _ in 0..BATCHES {
        batch = batch.min(save_all(node, sessions, value).await?);
    }
    let alone = deliver(node, &[]).await?;
    let mut others = Vec::new();
    for _ in 0..LISTENERS {
        others.push(place.connect().await?);
    }
    let together = deliver(node, &others).await;
    for other in &others {
        close(other).await;
    }
    let per_listener = together?.saturating_sub(alone) / (LISTENERS * NOTIFICATIONS);
    let per_row = batch.saturating_sub(single) / u32::try_from(SESSIONS - 1).unwrap_or(u32::MAX);
    Ok(Measured {
        round_trip: round_trip.as_secs_f64(),
        flush: single.saturating_sub(round_trip).as_secs_f64(),
        row: per_row.as_secs_f64(),
        listener: per_listener.as_secs_f64(),
    })
}

/// How long it takes to save all of them at once. The next round goes on from the versions that it returns.
async fn save_all(
    node: &SessionManager,
    sessions: &mut [Session],
    value: &Arc<str>,
) -> Result<Duration, Failure> {
    let mut saving = JoinSet::new();
    let begin = Instant::now();
    for (at, session) in sessions.iter().enumerate() {
        let (node, value, mut session) = (node.clone(), Arc::clone(value), session.clone());
        saving.spawn(async move {
            session.set("plan", &*value)?;
            node.save(&mut session).await?;
            Ok::<_, Failure>((at, session))
        });
    }
    while let Some(outcome) = saving.join_next().await {
        let (at, session) = outcome??;
        sessions[at] = session;
    }
    Ok(begin.elapsed())
}

/// How long it takes until all nodes have received the notifications.
async fn deliver(node: &SessionManager, others: &[SessionManager]) -> Result<Duration, Failure> {
    let begin = Instant::now();
    for _ in 0..NOTIFICATIONS {
        evict(node).await?;
    }
    for other in others {
        other.catch_up().await?;
    }
    node.catch_up().await?;
    Ok(begin.elapsed())
}

/// A notification about a user who has no sessions.
async fn evict(node: &SessionManager) -> Result<Duration, Failure> {
    let begin = Instant::now();
    node.user(UserId::named("pg-session plan")).evict().await?;
    Ok(begin.elapsed())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
