//! The touch buffer: last accesses, gathered and written in batches.
//!
//! A touched session waits here once per flush, however often it is touched meanwhile; its record's own cell holds the
//! newest access. It waits here even if the cache evicts it, so no access is lost to an eviction. What a flush could not
//! write waits for the next one, because the database is away. An access whose row another transaction has locked is tried
//! again soon, and others are written meanwhile. The last flush happens at shutdown and is awaited.
//!
//! A session is written once in an interval. An urgent access takes no others along. The buffer is flushed
//! early only if it has more sessions than the cache. A flush at each full batch would never end while more
//! sessions than a batch are busy.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock::DbTime;
use crate::core::{Core, Tasks};
use crate::id::SessionId;
use crate::postgres::failure::Failure;
use crate::postgres::touch::Touched;
use crate::retry::{TOUCH, TOUCH_RETRIES_MAX};
use crate::session::expiry::Touch;
use crate::session::record::{Policy, SharedRecord};

/// How many times the size of an early flush may wait while the database is away. Further accesses are counted
/// and dropped: a node that cannot reach the database soon serves nothing that could be touched.
const WAITING_FACTOR: usize = 2;

/// The accesses that wait to be written.
pub(crate) struct TouchBuffer {
    waiting: Mutex<Waiting>,
    wake: Notify,
    core: Arc<Core>,
    /// So many waiting sessions are flushed at once.
    early_flush: usize,
    #[cfg(feature = "testing")]
    requests: Mutex<Requests>,
}

/// Tests that wait until everything is flushed.
#[cfg(feature = "testing")]
#[derive(Default)]
struct Requests {
    waiting: Vec<tokio::sync::oneshot::Sender<()>>,
    /// Those whose accesses are in the flush that runs.
    flushing: Vec<tokio::sync::oneshot::Sender<()>>,
}

type Records = HashMap<SessionId, SharedRecord>;

#[derive(Default)]
struct Waiting {
    /// For the next interval.
    later: Records,
    /// Not for any longer.
    urgent: Records,
    /// What an earlier flush could not write.
    failed: BTreeMap<SessionId, DbTime>,
    dropped: u64,
}

impl Waiting {
    fn len(&self) -> usize {
        self.later.len() + self.urgent.len() + self.failed.len()
    }

    /// Not counting what has failed: a database that is away is not asked at every access.
    fn reaches(&self, count: usize) -> bool {
        self.later.len() + self.urgent.len() >= count
    }
}

/// Puts `record` among those that wait. Two versions of a session wait as one: the newer, with the later access.
fn add(records: &mut Records, record: &SharedRecord) {
    let waiting = records.entry(record.row.id).or_insert_with(|| SharedRecord::clone(record));
    if SharedRecord::ptr_eq(waiting, record) {
        return;
    }
    let (newer, older) = if waiting.row.version < record.row.version {
        (SharedRecord::clone(record), std::mem::replace(waiting, SharedRecord::clone(record)))
    } else {
        (SharedRecord::clone(waiting), SharedRecord::clone(record))
    };
    // First the flag, then the access: a task that holds the older one and touches it from here on queues it again.
    older.take_access();
    newer.access.inherit(&older.access);
}

impl TouchBuffer {
    /// Starts the task.
    pub(crate) fn spawn(core: &Arc<Core>, tasks: &Tasks) -> Arc<Self> {
        let touches = Arc::new(Self {
            waiting: Mutex::default(),
            wake: Notify::new(),
            core: Arc::clone(core),
            early_flush: core.config.cache_sessions_max.max(core.config.touch_batch_max),
            #[cfg(feature = "testing")]
            requests: Mutex::default(),
        });
        tasks.serving.spawn(|stop| Arc::clone(&touches).run(stop));
        touches
    }

    /// Records an access at `now`. Nearly always this is one comparison in the record.
    #[inline]
    pub(crate) fn touch(&self, record: &SharedRecord, policy: &Policy, now: DbTime) {
        match record.touch(policy, now) {
            Touch::Nothing => {}
            urgency => self.push(record, urgency),
        }
    }

    #[cold]
    fn push(&self, record: &SharedRecord, urgency: Touch) {
        let urgent = urgency == Touch::Now;
        let mut waiting = self.waiting();
        if waiting.len() >= self.early_flush * WAITING_FACTOR {
            waiting.dropped += 1;
            // The record may ask again.
            record.take_access();
            return;
        }
        add(if urgent { &mut waiting.urgent } else { &mut waiting.later }, record);
        if urgent || waiting.reaches(self.early_flush) {
            self.wake.notify_one();
        }
    }

    /// Flushes everything at each interval, when `early_flush` sessions wait, and when stopped. Flushes urgent
    /// accesses at once.
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.core.config.last_access_flush_interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Not at once.
        interval.reset();
        // Retries of locked rows so far, and when the next one is due.
        let mut retries = 0;
        let mut retry_at = None;
        loop {
            let mut is_retry = false;
            let due = tokio::time::sleep_until(retry_at.unwrap_or_else(tokio::time::Instant::now));
            let accesses = tokio::select! {
                _ = interval.tick() => self.drain_all(),
                () = self.wake.notified() => {
                    if self.is_requested() || self.waiting().reaches(self.early_flush) { self.drain_all() } else { self.drain_urgent() }
                }
                () = due, if retry_at.is_some() => {
                    is_retry = true;
                    std::mem::take(&mut self.waiting().failed)
                }
                () = stop.cancelled() => break,
            };
            let skipped = self.flush(accesses).await;
            #[cfg(feature = "testing")]
            self.requests().flushing.drain(..).for_each(|reply| _ = reply.send(()));
            if is_retry {
                retries += 1;
                retry_at = None;
            } else if skipped {
                retries = 0;
            }
            if skipped && retries < TOUCH_RETRIES_MAX {
                retry_at = Some(tokio::time::Instant::now() + TOUCH.pause(retries));
            }
        }
        for retries in 0..TOUCH_RETRIES_MAX {
            if !self.flush(self.drain_all()).await {
                break;
            }
            tokio::time::sleep(TOUCH.pause(retries)).await;
        }
    }

    /// Statements of a flush that failed since the start.
    pub(crate) fn failure_count(&self) -> u64 {
        self.core.counters.touch_failures.get()
    }

    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting().len()
    }

    /// Writes all that waits, after the flush that runs. Returns whether nothing is left.
    #[cfg(feature = "testing")]
    pub(crate) async fn flush_now(&self) -> bool {
        let (reply, flushed) = tokio::sync::oneshot::channel();
        self.requests().waiting.push(reply);
        self.wake.notify_one();
        flushed.await.is_ok() && self.waiting().failed.is_empty()
    }

    #[cfg(feature = "testing")]
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(feature = "testing")]
    fn is_requested(&self) -> bool {
        !self.requests().waiting.is_empty()
    }

    #[cfg(not(feature = "testing"))]
    fn is_requested(&self) -> bool {
        false
    }

    /// Returns whether locked rows were skipped.
    async fn flush(&self, accesses: BTreeMap<SessionId, DbTime>) -> bool {
        let mut any_skipped = false;
        let accesses: Vec<(SessionId, DbTime)> = accesses.into_iter().collect();
        for batch in accesses.chunks(self.core.config.touch_batch_max) {
            let mut left = batch.to_vec();
            match self.write(&mut left).await {
                Ok(()) => any_skipped |= !left.is_empty(),
                Err(failure) => {
                    self.core.counters.touch_failures.add(1);
                    warn!(error = %failure.error, sessions = left.len(), "last accesses could not be written, they wait for the next flush");
                }
            }
            self.keep(left);
        }
        any_skipped
    }

    /// Keeps what could not be written; a newer access of the same session counts.
    fn keep(&self, left: Vec<(SessionId, DbTime)>) {
        let mut waiting = self.waiting();
        for (id, at) in left {
            let kept = waiting.failed.entry(id).or_insert(at);
            *kept = at.max(*kept);
        }
    }

    /// Writes the accesses and takes them out of `left`, but for those whose rows are locked. All stay there if another
    /// server has written them than the cached sessions are of.
    async fn write(&self, left: &mut Vec<(SessionId, DbTime)>) -> Result<(), Failure> {
        let (touched, server) = self.core.database.touch(left).await?;
        if server.is_some_and(|server| !self.core.is_proved(server)) {
            // Written again when the next proof has named a server.
            return Ok(());
        }
        self.confirm(left, &touched);
        let skipped: HashSet<SessionId> =
            touched.iter().filter(|touched| touched.skipped).map(|touched| touched.id).collect();
        left.retain(|(id, _)| skipped.contains(id));
        Ok(())
    }

    fn drain_urgent(&self) -> BTreeMap<SessionId, DbTime> {
        let urgent = std::mem::take(&mut self.waiting().urgent);
        newest(urgent, BTreeMap::new())
    }

    fn drain_all(&self) -> BTreeMap<SessionId, DbTime> {
        #[cfg(feature = "testing")]
        {
            let Requests { waiting, flushing } = &mut *self.requests();
            flushing.append(waiting);
        }
        let Waiting { later, urgent, failed, dropped } = std::mem::take(&mut *self.waiting());
        if dropped > 0 {
            warn!(accesses = dropped, "last accesses were dropped, too many waited to be written");
        }
        newest(urgent, newest(later, failed))
    }

    /// Tells the cached records what the database now holds. A session that it does not report has ended.
    fn confirm(&self, batch: &[(SessionId, DbTime)], touched: &[Touched]) {
        let held: HashMap<SessionId, DbTime> =
            touched.iter().map(|touched| (touched.id, touched.last_accessed_at)).collect();
        for (id, _) in batch {
            match (held.get(id), self.core.cache.peek(*id)) {
                (Some(&at), Some(slot)) => slot.record.access.confirm(at),
                (Some(_), None) => {}
                (None, _) => self.core.cache.remove(*id),
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the records' last accesses. Sorted by id, as every batch is.
fn newest(records: Records, mut accesses: BTreeMap<SessionId, DbTime>) -> BTreeMap<SessionId, DbTime> {
    for (id, record) in records {
        let at = record.take_access();
        let newest = accesses.entry(id).or_insert(at);
        *newest = at.max(*newest);
    }
    accesses
}
