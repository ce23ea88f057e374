//! Reading: a hit is one look into memory, one clock read and a few comparisons; everything else asks the database.

use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll};

use tracing::Instrument as _;

use super::{Node, SessionManager};
use crate::cache::Count;
use crate::clock::DbTime;
use crate::error::{Error, ErrorKind};
use crate::hit::{hit, is_known_ended};
use crate::id::SessionId;
use crate::observer::Shown;
use crate::session::Session;
use crate::session::record::SharedRecord;
use crate::spans;
use crate::version::Version;

impl SessionManager {
    /// Reads a session. `Ok(None)` for one that is unknown, expired or revoked alike.
    ///
    /// Answered from this node's memory if the node can prove that it is in sync, otherwise from the database. A read
    /// that starts at t sees every change acknowledged before t − `trust_window`. It sees every change acknowledged
    /// through this node. It also counts as an access, unless [`Get::no_touch`] says otherwise.
    ///
    /// ```no_run
    /// # async fn f(sessions: &pg_session::SessionManager, id: pg_session::SessionId) -> Result<(), pg_session::Error> {
    /// let Some(session) = sessions.get(id).await? else {
    ///     return Ok(()); // the login page
    /// };
    /// let name: Option<String> = session.get("name")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] if the database is needed and does not answer: never an
    /// old session instead. [`ErrorKind::Overloaded`] if too many reads wait for it.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub fn get(&self, id: SessionId) -> Get<'_> {
        Get {
            node: &self.0,
            id,
            touch: true,
            bypass_cache: false,
            min_version: Version::ABSENT,
            or_latest: false,
        }
    }
}

/// A read to be awaited; made by [`SessionManager::get`].
#[derive(Debug)]
#[must_use = "a read does nothing until it is awaited"]
pub struct Get<'a> {
    node: &'a Node,
    id: SessionId,
    touch: bool,
    bypass_cache: bool,
    min_version: Version,
    or_latest: bool,
}

impl<'a> Get<'a> {
    /// Does not count as an access: for background work, which must not keep an idle session alive.
    pub fn no_touch(mut self) -> Self {
        self.touch = false;
        self
    }

    /// Asks the database, whatever is in memory.
    pub fn bypass_cache(mut self) -> Self {
        self.bypass_cache = true;
        self
    }

    /// Never answers from anything older than `version`: read your writes on any node, with the version that the
    /// cookie carries.
    ///
    /// Awaiting it fails with [`ErrorKind::Unavailable`] if the database itself holds an older
    /// version. Then it was restored, or a failover lost commits. [`or_latest`](Get::or_latest)
    /// answers with the older version instead.
    pub fn min_version(mut self, version: Version) -> Self {
        self.min_version = version;
        self
    }

    /// Returns what the database holds if that is older than [`min_version`](Get::min_version) asks for.
    ///
    /// A client may hold a version that the database has lost. It would get an error with every request, for as long as
    /// it presents that version. Compare [`Session::version`] with the version asked for, and give the client a fresh
    /// token if it is lower. The first such read is logged as a warning, and all are counted:
    /// [`LoadStats::lost_versions`](crate::LoadStats::lost_versions).
    pub fn or_latest(mut self) -> Self {
        self.or_latest = true;
        self
    }

    #[inline]
    fn hit(&self) -> Option<SharedRecord> {
        if self.bypass_cache {
            return None;
        }
        let (record, now) = self.node.hit(self.id)?;
        if self.min_version > Version::ABSENT && record.row.version < self.min_version {
            return None; // looked at only if asked for: it is on another cache line
        }
        if self.touch {
            self.node.touches.touch(&record, &self.node.core.policy, now);
        }
        Some(record)
    }

    /// Whether the session is remembered as ended. It ended after every version of it, so `min_version` does not matter.
    #[cold]
    fn is_known_ended(&self) -> bool {
        !self.bypass_cache && is_known_ended(&self.node.core, &self.node.trust, self.id)
    }

    #[cold]
    fn miss(&self) -> Loading<'a> {
        self.node.core.cache.count(Count::Miss);
        Box::pin(load(Get { ..*self }).instrument(spans::load()))
    }
}

impl<'a> IntoFuture for Get<'a> {
    type Output = Result<Option<Session>, Error>;
    type IntoFuture = GetFuture<'a>;

    #[inline]
    fn into_future(self) -> GetFuture<'a> {
        GetFuture(State::New(self))
    }
}

/// The future of a [`Get`]. A hit is ready at the first poll and allocates nothing.
pub struct GetFuture<'a>(State<'a>);

type Loading<'a> = Pin<Box<dyn Future<Output = Result<Option<Session>, Error>> + Send + 'a>>;

enum State<'a> {
    /// Not polled yet. The cache is read at the first poll, not here. A future may be kept for any
    /// time before it is awaited. What was read at its creation may be older than the trust window
    /// by then (I3).
    New(Get<'a>),
    Loading(Loading<'a>),
    Done,
}

impl Future for GetFuture<'_> {
    type Output = Result<Option<Session>, Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let loading = match &mut self.0 {
            // In place: moving the `Get` costs as much as the comparisons of a hit.
            State::New(get) => match get.hit() {
                Some(record) => {
                    if get.node.core.cache.count_answer(Count::Hit) {
                        get.node.observer.observe(get.id, Shown::Served(record.row.version));
                    }
                    self.0 = State::Done;
                    return Poll::Ready(Ok(Some(Session::from_cache(record))));
                }
                None if get.is_known_ended() => {
                    if get.node.core.cache.count_answer(Count::Ended) {
                        get.node.observer.observe(get.id, Shown::Ended);
                    }
                    self.0 = State::Done;
                    return Poll::Ready(Ok(None));
                }
                None => get.miss(),
            },
            State::Loading(loading) => return loading.as_mut().poll(context),
            // The contract of futures allows a panic here; `std::future::Ready` does the same.
            State::Done => panic!("`GetFuture` polled after completion"),
        };
        self.load(loading, context)
    }
}

impl<'a> GetFuture<'a> {
    #[cold]
    fn load(
        &mut self,
        mut loading: Loading<'a>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Session>, Error>> {
        let polled = loading.as_mut().poll(context);
        self.0 = State::Loading(loading);
        polled
    }
}

impl std::fmt::Debug for GetFuture<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GetFuture").finish_non_exhaustive()
    }
}

async fn load(get: Get<'_>) -> Result<Option<Session>, Error> {
    let node = get.node;
    // A trusted node may share a load in flight, as it would share a cached session.
    let may_join = || !get.bypass_cache && node.is_trusted();
    let mut loaded = node.loader.load(get.id, may_join).await?;
    let now = node.core.policy.clock.database_now();
    // This read joined a load that left before that version was committed, or the version is not
    // the database's. Or the load saw the session alive, and this read began after its end.
    let is_outdated = |record: &SharedRecord| record.row.version < get.min_version || !record.is_live(now);
    if loaded.as_ref().is_some_and(is_outdated) {
        loaded = node.loader.load(get.id, || false).await?;
    }
    let Some(record) = loaded else { return Ok(None) };
    if record.row.version < get.min_version {
        if !get.or_latest {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the database holds an older version of the session than min_version asks for: it was restored, or a \
                 failover lost commits; use or_latest to read the older version",
            ));
        }
        node.loader.count_lost_version();
    }
    if get.touch {
        node.touches.touch(&record, &node.core.policy, now);
    }
    Ok(Some(Session::from_database(record)))
}

#[cfg(feature = "testing")]
impl SessionManager {
    /// What a read is answered from memory; `None` if it would ask the database. Unlike a read, it then changes nothing in memory.
    #[must_use]
    pub fn served_from_memory(&self, id: SessionId) -> Option<Option<Session>> {
        let (node, get) = (&self.0, self.get(id).no_touch());
        if let Some(record) = get.hit() {
            if node.core.cache.count_answer(Count::Hit) {
                node.observer.observe(id, Shown::Served(record.row.version));
            }
            return Some(Some(Session::from_cache(record)));
        }
        if !get.is_known_ended() {
            return None;
        }
        if node.core.cache.count_answer(Count::Ended) {
            node.observer.observe(id, Shown::Ended);
        }
        Some(None)
    }
}

impl Node {
    /// The record in memory, if it may be served, and the time by which that was judged.
    #[inline]
    pub(super) fn hit(&self, id: SessionId) -> Option<(SharedRecord, DbTime)> {
        hit(&self.core, &self.trust, id)
    }

    fn is_trusted(&self) -> bool {
        self.core.policy.clock.now() < self.trust.until()
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}
