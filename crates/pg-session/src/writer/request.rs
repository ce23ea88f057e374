//! What the writer needs to know of a request, and a request on its way.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::Duration;

use quick_cache::DefaultHashBuilder;
use tokio::sync::oneshot;
use tracing::Span;

use crate::cache::Ticket;
use crate::core::Core;
use crate::error::Error;
use crate::failpoints::Point;
use crate::id::SessionId;
use crate::notification::ServerId;
use crate::postgres::failure::Failure;
use crate::session::record::Record;

/// Keys of requests. A bounded number of them, so the quicker hash function of the memory's map will do.
pub(super) type Keys<R> = HashSet<<R as Request>::Key, DefaultHashBuilder>;

/// What a statement reports on each request, and the server that has carried it out.
pub(super) type Executed<R> = (Vec<<R as Request>::Written>, Option<ServerId>);

/// A write that shares statements with others of its kind; see [`commit`](super::commit).
pub(crate) trait Request: Sized + Send + Sync + 'static {
    /// Requests with equal keys must not share a statement. Batches are sorted by it: one lock order.
    type Key: Ord + Hash + Copy + Send + Sync + 'static;
    /// What the statement reports on one request.
    type Written: Send;
    type Answer: Send + 'static;
    type Error: From<Error> + Send + 'static;

    /// What traces call it.
    const KIND: &'static str;

    /// Where a test can stop the writer between the commit and the answers.
    const COMMITTED: Option<Point> = None;

    /// Its key, and another that no other request of the statement may have, neither as first nor as second.
    fn conflict_keys(&self, core: &Core) -> (Self::Key, Option<Self::Key>);

    /// The session whose record is published if the request succeeds.
    fn written_id(&self) -> Option<SessionId> {
        None
    }

    /// The session whose version can conflict with the request.
    fn base_id(&self) -> Option<SessionId> {
        None
    }

    /// Whether the request fails because of what the session is now, and other nodes are to be notified of it.
    fn notifies_conflict(&self, _current: &Record) -> bool {
        false
    }

    /// Puts the request on top of what the session is now, after a conflict. An error answers the request.
    fn rebase(&mut self, _current: Option<Record>, _core: &Core) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Sends the batch as one statement. Reports on each request, in their order, and which server has answered: `None` if
    /// nothing of the answer may enter the cache. On failure nothing was written, or the outcome is unknown.
    fn execute(
        batch: &mut [Pending<Self>],
        core: &Core,
    ) -> impl Future<Output = Result<Executed<Self>, Failure>> + Send;

    /// Brings what was written into the cache.
    fn settle(&self, written: Self::Written, ticket: Ticket, core: &Core) -> Outcome<Self>;

    /// The keys of those requests whose rows other transactions have locked now, as far as one query can tell.
    fn find_locked(
        _batch: &[Pending<Self>],
        _core: &Core,
    ) -> impl Future<Output = Result<Keys<Self>, Failure>> + Send {
        std::future::ready(Ok(Keys::<Self>::default()))
    }

    /// How long a request whose row is locked is tried again.
    fn blocked_max(core: &Core) -> Duration {
        core.database.blocked_max()
    }

    /// Drops from memory what the failed request may have changed.
    fn failed(&self, _error: &Error, _core: &Core) {}
}

/// What became of a request.
pub(crate) enum Outcome<R: Request> {
    Done(R::Answer),
    Failed(R::Error),
    /// Another writer changed the session: the request is to be rebased.
    Conflict,
}

/// A request, and the caller that waits for its answer.
pub(crate) struct Pending<R: Request> {
    pub(super) request: R,
    keys: (R::Key, Option<R::Key>),
    /// Times that another writer changed the session first.
    pub(super) conflicts: u32,
    /// Of the caller.
    pub(super) span: Span,
    reply: oneshot::Sender<Result<R::Answer, R::Error>>,
}

/// Receives the answer.
pub(super) type Answer<R> = oneshot::Receiver<Result<<R as Request>::Answer, <R as Request>::Error>>;

impl<R: Request> Pending<R> {
    pub(super) fn new(request: R, span: Span, core: &Core) -> (Self, Answer<R>) {
        let (reply, answer) = oneshot::channel();
        (Self { keys: request.conflict_keys(core), request, conflicts: 0, span, reply }, answer)
    }

    pub(super) fn key(&self) -> R::Key {
        self.keys.0
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = R::Key> + use<R> {
        [Some(self.keys.0), self.keys.1].into_iter().flatten()
    }

    /// A caller that has dropped its future needs no answer; the commit is final.
    pub(super) fn answer(self, outcome: Result<R::Answer, R::Error>) {
        let _ = self.reply.send(outcome);
    }

    pub(super) fn fail(self, error: Error, core: &Core) {
        self.request.failed(&error, core);
        self.answer(Err(error.into()));
    }
}
