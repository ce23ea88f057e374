//! The tasks behind the pins: one looks up the sessions that are doubted, the other keeps the deadlines.
//!
//! A lookup is one statement for all doubted sessions, at most [`LOOKUP_SESSIONS_MAX`]. It is not an access. One that fails is
//! repeated with a growing pause. Meanwhile the deadlines of the doubts pass, and requests of `everywhere()` wait.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::cause::Cause;
use crate::clock::Tick;
use crate::core::{Core, Tasks};
use crate::failpoints::Point;
use crate::id::{Scope, SessionId};
use crate::invalidation::proof::{BEATS_PER_WINDOW, Prover};
use crate::pins::Life;
use crate::postgres::failure::Failure;
use crate::postgres::standing::Standing;
use crate::retry::RESYNC;
use crate::session::expiry::IdleLimit;

/// Sessions of one lookup.
const LOOKUP_SESSIONS_MAX: usize = 2_000;

/// Starts the tasks.
pub(crate) fn spawn(core: &Arc<Core>, tasks: &Tasks, prover: &Arc<Prover>) {
    tasks.serving.spawn(|stop| look_up_doubted(Arc::clone(core), Arc::clone(prover), stop));
    tasks.serving.spawn(|stop| keep_deadlines(Arc::clone(core), stop));
}

async fn look_up_doubted(core: Arc<Core>, prover: Arc<Prover>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = core.pins.doubted.notified() => {}
            () = stop.cancelled() => return,
        }
        let question = core.pins.question();
        tokio::select! {
            () = look_up_all(&core) => prover.settled(question),
            () = stop.cancelled() => return,
        }
    }
}

/// From the first to the last, so that sessions that are doubted all the time keep no other waiting.
async fn look_up_all(core: &Core) {
    let mut after = None;
    loop {
        let ids = core.pins.some_doubted(after, LOOKUP_SESSIONS_MAX);
        let Some(&last) = ids.last() else { return };
        let (mut pause, mut attempts) = (RESYNC.first, 0_u64);
        while let Err(failure) = look_up(core, &ids).await {
            attempts += 1;
            // A long outage must not fill the log.
            if attempts.is_power_of_two() {
                warn!(attempts, error = %failure.error, "pinned sessions could not be looked up; the node tries again");
            }
            tokio::time::sleep(pause).await;
            pause = RESYNC.after(pause);
        }
        after = Some(last);
    }
}

/// Asks the database what has become of these sessions, and tells their pins.
pub(crate) async fn look_up(core: &Core, ids: &[SessionId]) -> Result<(), Failure> {
    let question = core.pins.question();
    let (found, server) = core.database.standings(ids).await?;
    core.failpoints.reach(Point::LookedUp).await;
    if !core.is_proved(server) {
        // The next proof raises a doubt about all.
        return Err(Failure::of_another_server());
    }
    let mut gone: Vec<SessionId> = ids.to_vec();
    gone.sort_unstable();
    for standing in found {
        if let Ok(at) = gone.binary_search(&standing.id) {
            gone.remove(at);
        }
        settle(core, question, &standing);
    }
    debug!(sessions = ids.len(), gone = gone.len(), "looked up pinned sessions");
    gone.into_iter().for_each(|id| core.pins.end(id, None, None));
    Ok(())
}

fn settle(core: &Core, question: u64, standing: &Standing) {
    let Standing { id, user_id, group_id, expires_at, idle_limited, last_accessed_at, .. } = *standing;
    match standing.successor {
        Some(successor) => core.pins.end(id, Some(Cause::Rotated), Some(successor)),
        None if standing.live => {
            let idle_limit = if idle_limited { IdleLimit::Enforced } else { IdleLimit::Exempt };
            let ends_at = Life::ends_at(&core.policy, expires_at, idle_limit, last_accessed_at);
            core.pins.alive(id, question, Life { user_id, group_id, expires_at, ends_at });
        }
        None => core.pins.end(id, Some(if standing.expired { Cause::Expired } else { Cause::Idle }), None),
    }
}

/// For a statement of this node that has ended the sessions of a scope: looks them up before the caller is answered. If that
/// fails, none of them counts as alive, and the task goes on with it.
pub(crate) async fn look_up_scope(core: &Core, scope: Scope) {
    let mut doubted = Vec::new();
    core.pins.for_each_of(scope, |some| doubted.extend_from_slice(some));
    for some in doubted.chunks(LOOKUP_SESSIONS_MAX) {
        if let Err(failure) = look_up(core, some).await {
            core.pins.distrust(scope);
            return debug!(error = %failure.error, "pinned sessions are unproved until they are looked up");
        }
    }
}

async fn keep_deadlines(core: Arc<Core>, stop: CancellationToken) {
    // Each beat reads the database's clock, which may have been set forward.
    let wait_max = core.config.trust_window / BEATS_PER_WINDOW;
    // The end of the proof at which the holders were woken.
    let mut woken_at = Tick::ZERO;
    loop {
        let now = core.policy.clock.now();
        let due = core.pins.handle_due();
        let until = core.pins.proved_until();
        if until <= now && until != woken_at {
            woken_at = until;
            core.pins.wake_all();
        }
        let proof_ends = Some(until).filter(|until| *until > now);
        let wait = due.into_iter().chain(proof_ends).min().map(|due| due.since(now));
        let wait = wait.unwrap_or(wait_max).min(wait_max);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = core.pins.nearer.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}
