//! Loads sessions that are not in memory. Reads of one session share a load, and sessions that are missed
//! together share a statement.
//!
//! A single miss is sent at once. Misses during a statement share the next one. A read may also join a load
//! in flight. For that, the node must be trusted, and must have received nothing about the session since the
//! load's ticket. Then the load's answer is as good as a hit at this moment. Any other read waits for a
//! statement that is sent after the read began. Otherwise it could see a state from before its own last write.
//!
//! Results enter the cache only under the ticket that was taken before the statement was sent.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::DefaultHashBuilder;
use smallvec::{SmallVec, smallvec};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, warn};

use crate::cache::Ticket;
use crate::clock::Tick;
use crate::core::{Core, Tasks};
use crate::error::{Error, ErrorKind};
use crate::failpoints::Point;
use crate::id::SessionId;
use crate::invalidation::trust::Ended;
use crate::notification::ServerId;
use crate::pins::Named;
use crate::postgres::failure::{Failure, Verdict};
use crate::postgres::load::Loaded;
use crate::retry::LOAD_TRIES_MAX;
use crate::session::record::SharedRecord;
use crate::spans;

/// Statements in flight at once.
const LOADERS: usize = 2;
/// Reads that may wait for one session.
const WAITERS_MAX: usize = 65_536;

/// What a statement found, by id.
struct Fetched {
    live: ById<Result<SharedRecord, Error>>,
    idle: Vec<SessionId>,
    server: ServerId,
    /// Before it was sent.
    asked: Tick,
}
/// A bounded number of ids, so the quicker hash function of the memory's map will do.
type ById<T> = HashMap<SessionId, T, DefaultHashBuilder>;
/// The session, or `None` if there is none that is alive.
type Answer = Result<Option<SharedRecord>, Error>;
/// Nearly always one.
type LoadWaiters = SmallVec<[Waiter; 1]>;

/// A caller that waits for a session.
struct Waiter {
    answer: oneshot::Sender<Answer>,
    span: Span,
}

/// The queue of missing sessions.
pub(crate) struct Loader {
    queue: Mutex<Queue>,
    wake: Notify,
    core: Arc<Core>,
}

/// What the loader has done since the manager's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
#[non_exhaustive]
pub struct LoadStats {
    /// Sessions that the database was asked for.
    pub sessions: u64,
    /// Statements that asked.
    pub statements: u64,
    /// Reads that asked for a version which the database has lost, and got the latest. See
    /// [`Get::or_latest`](crate::Get::or_latest).
    pub lost_versions: u64,
}

#[derive(Default)]
struct Queue {
    /// In order of arrival; each id is once here and once in `waiters`.
    order: VecDeque<SessionId>,
    waiters: ById<LoadWaiters>,
    flights: ById<Flight>,
    closed: Option<Ended>,
}

/// A load whose statement has left.
struct Flight {
    ticket: Ticket,
    waiters: LoadWaiters,
}

impl Loader {
    /// Starts the tasks.
    pub(crate) fn spawn(core: &Arc<Core>, tasks: &Tasks) -> Arc<Self> {
        let loader = Arc::new(Self { queue: Mutex::default(), wake: Notify::new(), core: Arc::clone(core) });
        for _ in 0..LOADERS {
            tasks.serving.spawn(|stop| Arc::clone(&loader).run(stop));
        }
        loader
    }

    pub(crate) fn stats(&self) -> LoadStats {
        let counters = &self.core.counters;
        LoadStats {
            sessions: counters.loads.get(),
            statements: counters.load_statements.get(),
            lost_versions: counters.lost_versions.get(),
        }
    }

    /// Counts a read of a version that the database has lost, and logs the first.
    pub(crate) fn count_lost_version(&self) {
        if self.core.counters.lost_versions.add(1) == 0 {
            warn!(
                "a client holds a newer version of its session than the database: it was restored, or a failover lost \
                 commits; the node answers with the database's version (logged once, counted in lost_versions)"
            );
        }
    }

    /// Loads one session. `may_join` allows the answer of a load in flight, if there is one; see the module.
    ///
    /// Cancel safe: the load goes on for the others and for the cache.
    pub(crate) async fn load(&self, id: SessionId, may_join: impl FnOnce() -> bool) -> Answer {
        let (sender, answer) = oneshot::channel();
        self.enqueue(id, may_join, Waiter { answer: sender, span: Span::current() })?;
        answer.await.unwrap_or_else(|_| Err(self.queue().closed.unwrap_or(Ended::RuntimeGone).error()))
    }

    fn enqueue(&self, id: SessionId, may_join: impl FnOnce() -> bool, waiter: Waiter) -> Result<(), Error> {
        let mut queue = self.queue();
        if let Some(ended) = queue.closed {
            return Err(ended.error());
        }
        if let Some(flight) = queue.flights.get_mut(&id)
            && may_join()
            && self.core.cache.is_current(flight.ticket, id)
        {
            return join(&mut flight.waiters, waiter);
        }
        if let Some(waiters) = queue.waiters.get_mut(&id) {
            return join(waiters, waiter);
        }
        if queue.order.len() >= self.core.config.load_queue_max {
            return Err(overloaded());
        }
        queue.order.push_back(id);
        queue.waiters.insert(id, smallvec![waiter]);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    /// One lane: takes what is queued now, loads it, answers; until stopped.
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let _end = LaneEnd { loader: &self, stop: &stop };
        loop {
            let (ids, ticket) = self.start_batch();
            if ids.is_empty() {
                tokio::select! {
                    () = self.wake.notified() => continue,
                    () = stop.cancelled() => return,
                }
            }
            let in_flight = InFlight { loader: &self, ids: &ids };
            let span = spans::statement("load", ids.len(), || self.callers(&ids));
            let loaded = self.fetch(&ids).instrument(span).await;
            self.core.failpoints.reach(Point::Loaded).await;
            self.complete_batch(in_flight, ticket, &loaded);
            // For ids that waited for these flights.
            self.wake.notify_one();
            // Yields, so that the next reads of the answered callers join the statement that leaves now.
            tokio::task::yield_now().await;
        }
    }

    /// Starts a flight for each queued id, at most one for each. The ticket is taken before the query leaves.
    fn start_batch(&self) -> (Vec<SessionId>, Ticket) {
        let mut queue = self.queue();
        let ticket = self.core.cache.ticket();
        let mut ids = Vec::new();
        let mut loading = VecDeque::new();
        while ids.len() < self.core.config.load_batch_max {
            let Some(id) = queue.order.pop_front() else { break };
            if queue.flights.contains_key(&id) {
                loading.push_back(id);
                continue;
            }
            let waiters = queue.waiters.remove(&id).unwrap_or_default();
            queue.flights.insert(id, Flight { ticket, waiters });
            ids.push(id);
        }
        loading.append(&mut queue.order);
        queue.order = loading;
        (ids, ticket)
    }

    /// The spans of the callers that wait for these flights.
    fn callers(&self, ids: &[SessionId]) -> Vec<Span> {
        let queue = self.queue();
        let flights = ids.iter().filter_map(|id| queue.flights.get(id));
        flights.flat_map(|flight| flight.waiters.iter().map(|waiter| waiter.span.clone())).collect()
    }

    async fn fetch(&self, ids: &[SessionId]) -> Result<Fetched, Error> {
        let mut tries = 1;
        loop {
            self.core.counters.load_statements.add(1);
            self.core.counters.loads.add(ids.len());
            let asked = self.core.policy.clock.now();
            match self.core.database.load(ids).await {
                Ok(Loaded { live, idle, server }) => {
                    let live = live.into_iter().map(|(id, record)| (id, record.map(SharedRecord::new)));
                    return Ok(Fetched { live: live.collect(), idle, server, asked });
                }
                Err(Failure {
                    verdict: Verdict::Retryable | Verdict::StalePlan | Verdict::WrongServer,
                    ..
                }) if tries < LOAD_TRIES_MAX => {
                    tries += 1;
                }
                Err(failure) => return Err(failure.into_read_error()),
            }
        }
    }

    fn complete_batch(&self, mut in_flight: InFlight<'_>, ticket: Ticket, loaded: &Result<Fetched, Error>) {
        let server = loaded.as_ref().ok().map(|fetched| fetched.server);
        let ticket = self.core.checked(ticket, server);
        while let Some(&id) = in_flight.ids.first() {
            let answer = match loaded {
                Ok(fetched) => match fetched.live.get(&id) {
                    Some(Ok(record)) => Ok(Some(SharedRecord::clone(record))),
                    Some(Err(error)) => Err(error.duplicate()),
                    None => {
                        let until = self.known_until(fetched, id);
                        self.core.cache.mark_absent(ticket, id, until);
                        self.core.pins.doubt(Named::Sessions(&[id]), None);
                        Ok(None)
                    }
                },
                Err(error) => Err(error.duplicate()),
            };
            if let Ok(Some(record)) = &answer {
                self.core.cache.install(ticket, record);
            }
            for waiter in in_flight.end_first() {
                let answer = match &answer {
                    Ok(record) => Ok(record.clone()),
                    Err(error) => Err(error.duplicate()),
                };
                // A reader that has gone away needs no answer.
                let _ = waiter.answer.send(answer);
            }
        }
    }

    /// Until when a session that was not found is known to have ended. Without a row, or past its end, it stays
    /// ended, except for an update without notification. An idle session may be continued by an access, which
    /// is not notified.
    fn known_until(&self, fetched: &Fetched, id: SessionId) -> Tick {
        let config = &self.core.config;
        fetched.asked.plus(if fetched.idle.contains(&id) { config.trust_window } else { config.cache_ttl })
    }

    fn close(&self, ended: Ended) {
        let mut queue = self.queue();
        queue.closed.get_or_insert(ended);
        // Dropping the senders answers every waiter.
        queue.order.clear();
        queue.waiters.clear();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a lane, by shutdown or with its runtime. No read may wait after it. After a panic the other lane goes on.
struct LaneEnd<'a> {
    loader: &'a Loader,
    stop: &'a CancellationToken,
}

impl Drop for LaneEnd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.loader.close(if self.stop.is_cancelled() { Ended::Stopped } else { Ended::RuntimeGone });
    }
}

/// The flights of a lane. If the lane panics, or is dropped with the runtime, their waiters get an error.
struct InFlight<'a> {
    loader: &'a Loader,
    /// Those that have not ended. The other lane may load one again that has.
    ids: &'a [SessionId],
}

impl InFlight<'_> {
    /// Ends the first flight and returns who waited for it.
    fn end_first(&mut self) -> LoadWaiters {
        let Some((id, rest)) = self.ids.split_first() else { return LoadWaiters::new() };
        self.ids = rest;
        self.loader.queue().flights.remove(id).map(|flight| flight.waiters).unwrap_or_default()
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut queue = self.loader.queue();
        for id in self.ids {
            queue.flights.remove(id);
        }
    }
}

fn join(waiters: &mut LoadWaiters, waiter: Waiter) -> Result<(), Error> {
    if waiters.len() >= WAITERS_MAX {
        // Readers that have gone away make room.
        waiters.retain(|waiter| !waiter.answer.is_closed());
    }
    if waiters.len() >= WAITERS_MAX {
        return Err(overloaded());
    }
    waiters.push(waiter);
    Ok(())
}

fn overloaded() -> Error {
    Error::new(
        ErrorKind::Overloaded,
        "more sessions wait to be loaded than load_queue_max allows; PostgreSQL does not keep up with the reads",
    )
}
