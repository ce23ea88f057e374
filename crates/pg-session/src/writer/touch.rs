//! The touch buffer: last accesses, gathered and written in batches.
//!
//! A touched record waits here once per flush, however often it is touched meanwhile; its own cell holds the newest
//! access. It waits here even if the cache evicts it, so no access is lost to an eviction. What a flush could not
//! write waits for the next one: because the database is away, or because somebody else held the row each time that it
//! was tried. The last flush happens at shutdown and is awaited.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::cache::Cache;
use crate::clock::DbTime;
use crate::id::SessionId;
use crate::postgres::Database;
use crate::postgres::failure::Failure;
use crate::postgres::touch::Touched;
use crate::session::expiry::Touch;
use crate::session::record::Record;

/// Batches that may wait while the database is away. Beyond, further accesses are counted and dropped: a node that
/// cannot reach the database soon serves nothing that could be touched.
const WAITING_BATCHES_MAX: usize = 20;

/// Times that a flush tries to write an access whose row somebody holds.
const TRIES_MAX: u32 = 8;
/// The pause after the first try; it doubles.
const PAUSE: Duration = Duration::from_millis(2);

/// The accesses that wait to be written.
pub(crate) struct TouchBuffer {
    waiting: Mutex<Waiting>,
    wake: Notify,
    cache: Arc<Cache>,
    database: Arc<Database>,
    interval: Duration,
    batch_max: usize,
    failures: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    records: Vec<Arc<Record>>,
    /// What an earlier flush could not write.
    failed: BTreeMap<SessionId, DbTime>,
    dropped: u64,
}

impl Waiting {
    fn len(&self) -> usize {
        self.records.len() + self.failed.len()
    }
}

impl TouchBuffer {
    pub(crate) fn new(
        cache: Arc<Cache>,
        database: Arc<Database>,
        interval: Duration,
        batch_max: usize,
    ) -> Self {
        Self {
            waiting: Mutex::default(),
            wake: Notify::new(),
            cache,
            database,
            interval,
            batch_max,
            failures: AtomicU64::new(0),
        }
    }

    /// Records an access at `now`. Nearly always this is one comparison in the record.
    #[inline]
    pub(crate) fn touch(&self, record: &Arc<Record>, now: DbTime) {
        match record.touch(now) {
            Touch::Nothing => {}
            Touch::Later => self.push(record, false),
            Touch::Now => self.push(record, true),
        }
    }

    #[cold]
    fn push(&self, record: &Arc<Record>, urgent: bool) {
        let mut waiting = self.waiting();
        if waiting.len() >= self.batch_max * WAITING_BATCHES_MAX {
            waiting.dropped += 1;
            // The record may ask again.
            record.access.take();
            return;
        }
        waiting.records.push(Arc::clone(record));
        if urgent || waiting.len() >= self.batch_max {
            self.wake.notify_one();
        }
    }

    /// Flushes at each interval, when a batch is full, and when an access is urgent; once more when stopped.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = self.wake.notified() => {}
                () = stop.cancelled() => break,
            }
            self.flush().await;
        }
        self.flush().await;
    }

    /// Statements of a flush that failed since the start.
    pub(crate) fn failure_count(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting().len()
    }

    async fn flush(&self) {
        let accesses: Vec<(SessionId, DbTime)> = self.drain().into_iter().collect();
        for batch in accesses.chunks(self.batch_max) {
            let mut left = batch.to_vec();
            if let Err(failure) = self.write(&mut left).await {
                self.failures.fetch_add(1, Ordering::Relaxed);
                warn!(error = %failure.error, sessions = left.len(), "last accesses could not be written, they wait for the next flush");
            }
            self.waiting().failed.extend(left);
        }
    }

    /// Writes what it can and takes it out of `left`.
    async fn write(&self, left: &mut Vec<(SessionId, DbTime)>) -> Result<(), Failure> {
        for tries in 0..TRIES_MAX {
            let touched = self.database.touch(left).await?;
            self.confirm(left, &touched);
            let skipped: HashSet<SessionId> =
                touched.iter().filter(|touched| touched.skipped).map(|touched| touched.id).collect();
            left.retain(|(id, _)| skipped.contains(id));
            if left.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE * (1 << tries)).await;
        }
        Ok(())
    }

    /// The newest access of each session, sorted by id.
    fn drain(&self) -> BTreeMap<SessionId, DbTime> {
        let (records, mut accesses) = {
            let mut waiting = self.waiting();
            if waiting.dropped > 0 {
                warn!(
                    accesses = waiting.dropped,
                    "last accesses were dropped, too many waited to be written"
                );
                waiting.dropped = 0;
            }
            (std::mem::take(&mut waiting.records), std::mem::take(&mut waiting.failed))
        };
        for record in records {
            let at = record.access.take();
            let newest = accesses.entry(record.row.id).or_insert(at);
            *newest = at.max(*newest);
        }
        accesses
    }

    /// Tells the cached records what the database now holds. A session that it does not report has ended.
    fn confirm(&self, batch: &[(SessionId, DbTime)], touched: &[Touched]) {
        let held: HashMap<SessionId, DbTime> =
            touched.iter().map(|touched| (touched.id, touched.last_accessed_at)).collect();
        for (id, _) in batch {
            match (held.get(id), self.cache.peek(*id)) {
                (Some(&at), Some(slot)) => slot.record.access.confirm(at),
                (Some(_), None) => {}
                (None, _) => self.cache.forget(*id),
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
