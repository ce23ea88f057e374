//! Notifies again about updates whose outcome is unknown, until that succeeds.
//!
//! An update commits first and notifies then. If its server process ends in between, the update is committed, and no
//! other node knows of it:
//!
//! ```text
//! server      UPDATE ── COMMIT ──✕                      ┌ NOTIFY
//! this node   OutcomeUnknown ── is the row free? ───────┘
//! other node  serves the old version ─────────────────────── drops it
//! ```
//!
//! While the row is locked, the update may still commit. So a session is settled by a notification that leaves after its
//! row was seen free. If this node ends as well, the others learn it from its silence, not from here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::core::{Core, Tasks};
use crate::id::{Scope, SessionId};
use crate::postgres::failure::Failure;

/// The pause after a round that leaves something; it doubles.
const PAUSE: Duration = Duration::from_millis(10);
/// The longest pause. Other nodes may be trusted again before the notification succeeds, for this long.
const PAUSE_MAX: Duration = Duration::from_millis(100);

pub(super) fn spawn(core: &Arc<Core>, tasks: &Tasks) {
    tasks.serving.spawn(|stop| run(Arc::clone(core), stop));
}

/// Works until stopped; then tries for as long as a write has.
async fn run(core: Arc<Core>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = core.unnotified.added() => {}
            () = stop.cancelled() => break,
        }
        tokio::select! {
            () = settle(&core) => {}
            () = stop.cancelled() => break,
        }
    }
    if core.unnotified.snapshot().is_empty() {
        return;
    }
    if tokio::time::timeout(core.database.blocked_max(), settle(&core)).await.is_err() {
        warn!(
            sessions = core.unnotified.snapshot().sessions.len(),
            "shut down before the other nodes were notified of updates whose outcome is unknown"
        );
    }
}

/// Notifies until nothing is left.
async fn settle(core: &Core) {
    let mut pause = PAUSE;
    loop {
        match round(core).await {
            Ok(()) => {}
            Err(failure) => debug!(error = %failure.error, "a notification failed and is sent again"),
        }
        if core.unnotified.snapshot().is_empty() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn round(core: &Core) -> Result<(), Failure> {
    let pending = core.unnotified.snapshot();
    if pending.all {
        core.database.notify_drop(Scope::All).await?;
        // Each statement in flight has ended by then.
        tokio::time::sleep(core.database.blocked_max()).await;
        core.database.notify_drop(Scope::All).await?;
        core.unnotified.settle_all();
    }
    let sessions: Vec<_> = pending.sessions.into_iter().collect();
    if sessions.is_empty() {
        return Ok(());
    }
    let ids: Vec<SessionId> = sessions.iter().map(|&(id, _)| id).collect();
    // First: a row that is free now was committed before what is notified next.
    let locked: HashSet<SessionId> = core.database.locked_rows(&ids).await?.into_iter().collect();
    core.database.notify_changed(&sessions).await?;
    for (id, version) in sessions {
        if !locked.contains(&id) {
            core.unnotified.settle(id, version);
        }
    }
    Ok(())
}
