//! After a reconnect: asks the database which of the sessions in memory still have their content.
//!
//! In chunks with one array each, one at a time: never "clear and stampede", never a timestamp watermark. An entry is not
//! served before it is verified, so this may take its time. A chunk that fails is tried again, with a growing pause,
//! until it succeeds or the next epoch begins. A request for a session that is not verified yet loads it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::core::{Core, Tasks};
use crate::failpoints::Point;
use crate::id::SessionId;
use crate::postgres::failure::Failure;
use crate::retry::RESYNC;

/// Sessions verified by one statement.
const CHUNK_SESSIONS: usize = 2_000;

/// What the task works on.
pub(crate) struct Resync {
    core: Arc<Core>,
    wanted: Arc<Notify>,
}

impl Resync {
    /// Starts the task. It verifies the memory each time that the result is notified.
    pub(crate) fn spawn(core: &Arc<Core>, tasks: &Tasks) -> Arc<Notify> {
        let wanted = Arc::<Notify>::default();
        let resync = Self { core: Arc::clone(core), wanted: Arc::clone(&wanted) };
        tasks.serving.spawn(|stop| resync.run(stop));
        wanted
    }

    async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.wanted.notified() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = self.verify_all() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn verify_all(&self) {
        let epoch = self.core.cache.epoch();
        let core = Arc::clone(&self.core);
        // It looks at each entry, of which there may be a million.
        let ids = match tokio::task::spawn_blocking(move || core.cache.unverified()).await {
            Ok(ids) => ids,
            Err(error) => {
                return warn!(%error, "the cached sessions could not be listed; the node loads them on demand");
            }
        };
        for chunk in ids.chunks(CHUNK_SESSIONS) {
            let (mut pause, mut attempts) = (RESYNC.first, 0_u64);
            while let Err(failure) = self.verify(chunk).await {
                attempts += 1;
                // A long outage must not fill the log.
                if attempts.is_power_of_two() {
                    warn!(
                        attempts,
                        error = %failure.error,
                        "cached sessions could not be verified after a reconnect; the node loads them on demand and tries again"
                    );
                }
                tokio::time::sleep(pause).await;
                pause = RESYNC.after(pause);
                if self.core.cache.epoch() != epoch {
                    // The next start of listening verifies everything anew.
                    return;
                }
            }
        }
        debug!(sessions = ids.len(), "verified the cached sessions");
    }

    async fn verify(&self, ids: &[SessionId]) -> Result<(), Failure> {
        let ticket = self.core.cache.ticket();
        let (found, server) = self.core.database.standings(ids).await?;
        self.core.failpoints.reach(Point::Verified).await;
        if !self.core.is_proved(server) {
            // The next proof begins an epoch, which is verified instead.
            return Err(Failure::of_another_server());
        }
        let live = found.into_iter().filter(|found| found.live);
        let found: HashMap<_, _> =
            live.map(|found| (found.id, (found.revision, found.last_accessed_at))).collect();
        for &id in ids {
            self.core.cache.verify(ticket, id, found.get(&id).copied());
        }
        Ok(())
    }
}
