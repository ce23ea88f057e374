//! After a reconnect: asks the database which of the sessions in memory still have their version.
//!
//! In chunks with one array each, one at a time: never "clear and stampede", never a timestamp watermark. Until an
//! entry has been verified it is not served, so this may take its time, and may fail: whoever needs the session
//! loads it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::cache::Cache;
use crate::postgres::Database;
use crate::postgres::failure::Failure;

/// Sessions verified by one statement.
const CHUNK_SESSIONS: usize = 2_000;
/// Tries of one chunk, before the rest is left to be loaded on demand.
const TRIES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// What the task works on.
pub(crate) struct Resync {
    pub(crate) cache: Arc<Cache>,
    pub(crate) database: Arc<Database>,
    pub(crate) wanted: Arc<Notify>,
}

impl Resync {
    /// Verifies the memory each time that listening has started, until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
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
        let ids = self.cache.unverified();
        for chunk in ids.chunks(CHUNK_SESSIONS) {
            let mut tries = 0;
            while let Err(failure) = self.verify(chunk).await {
                tries += 1;
                if tries == TRIES_MAX {
                    warn!(error = %failure.error, "sessions in memory could not be verified, they are loaded when needed");
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        debug!(sessions = ids.len(), "verified the sessions in memory");
    }

    async fn verify(&self, ids: &[crate::id::SessionId]) -> Result<(), Failure> {
        let ticket = self.cache.ticket();
        let standings = self.database.versions(ids).await?;
        let found: HashMap<_, _> =
            standings.iter().map(|found| (found.id, (found.version, found.last_accessed_at))).collect();
        for &id in ids {
            self.cache.verify(ticket, id, found.get(&id).copied());
        }
        Ok(())
    }
}
