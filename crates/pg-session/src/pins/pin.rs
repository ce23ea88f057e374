//! [`Pin`]: what a socket, a stream or a job holds. [`Guarded`]: a stream that ends with its session.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;

use super::{Ended, Pins, Shared};
use crate::cause::Cause;
use crate::clock::Tick;
use crate::id::SessionId;

/// What [`Pin::limit`] leaves for the close frame and the client's answer.
const GOODBYE: Duration = Duration::from_millis(200);

/// Holds on to a session, so that a socket, a stream or a job ends with it; made by
/// [`SessionManager::pin`](crate::SessionManager::pin).
///
/// **What is open cannot outlive its session by more than [`trust_window`](crate::Config::trust_window)**, whatever fails.
/// Usually it ends within milliseconds of the commit that ends the session, on every node.
///
/// A change of the session's attributes does not end a pin, and neither does an eviction from memory. A pin is no access: it
/// does not keep an idle session alive.
///
/// ```no_run
/// # use pg_session::{Session, SessionManager};
/// # async fn next_message() -> Option<String> { None }
/// # async fn send(_: &str) {}
/// # async fn f(sessions: &SessionManager, session: &Session) -> Result<(), pg_session::Error> {
/// let pin = sessions.pin(session).await?;
/// loop {
///     tokio::select! {
///         closed = pin.closed() => {
///             println!("close code {}: {closed}", closed.close_code());
///             break;
///         }
///         Some(message) = next_message() => send(&message).await,
///         else => break,
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// Dropping the future of one of its methods loses nothing: an end stays an end, and the next call returns at once. Clones are
/// cheap, and belong to the same session. Dropping a pin ends nothing.
#[derive(Clone)]
pub struct Pin(pub(super) Arc<Held>);

/// What all pins of a session hold.
pub(super) struct Held {
    pub(super) id: SessionId,
    pub(super) shared: Arc<Shared>,
    pub(super) pins: Arc<Pins>,
}

/// Why what a pin holds open is to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Closed {
    /// The session has ended. It does not come back.
    Ended(Cause),
    /// This node cannot prove any longer that the session is alive. It has lost the database for a
    /// trust window, or it shuts down. The client may connect again, to this node or to another
    /// one.
    Unproved,
}

impl Pin {
    /// Whether the session may be acted for. Call it for each message before it is delivered. It
    /// costs three reads of memory and one of the clock, at any number of pins. It takes no lock
    /// and sends no query.
    ///
    /// `Ok` means: the session was alive at most [`trust_window`](crate::Config::trust_window) ago. After an end by this node,
    /// it is an error as soon as the ending call has returned.
    ///
    /// # Errors
    /// [`Closed::Ended`] for ever, once it has ended. [`Closed::Unproved`] as long as the node has no proof.
    #[inline]
    pub fn check(&self) -> Result<(), Closed> {
        let Held { shared, pins, .. } = &*self.0;
        // The proof before the doubts, and the clock last; see `invalidation::trust`.
        let proved_until = pins.proved_until();
        if let Some(ended) = shared.ended.get() {
            return Err(Closed::Ended(ended.cause));
        }
        let doubted_until = Tick::from_nanos(shared.doubted_until.load(Ordering::Acquire));
        if pins.policy.clock.now() < proved_until.min(doubted_until) { Ok(()) } else { Err(Closed::Unproved) }
    }

    /// Waits until the session has ended.
    pub async fn ended(&self) -> Cause {
        let cause = self.wait(|closed| match closed {
            Closed::Ended(cause) => Some(cause),
            Closed::Unproved => None,
        });
        cause.await
    }

    /// Waits until this node cannot prove any longer that the session is alive. For a session that has ended, it waits for ever:
    /// use it beside [`ended`](Pin::ended), or [`closed`](Pin::closed) instead of both.
    pub async fn unproved(&self) {
        self.wait(|closed| (closed == Closed::Unproved).then_some(())).await;
    }

    /// Waits until the session has ended, or cannot be proved to live any longer.
    pub async fn closed(&self) -> Closed {
        self.wait(Some).await
    }

    async fn wait<T>(&self, wanted: impl Fn(Closed) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.0.shared.changed.notified());
            // Before the look, so that no change is missed between the two.
            changed.as_mut().enable();
            if let Some(found) = self.check().err().and_then(&wanted) {
                return found;
            }
            changed.await;
        }
    }

    /// The session's id when it was pinned. **A capability**; see [`SessionId`].
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.0.id
    }

    /// After [`Cause::Rotated`], the id that the session goes on under, so that a socket may follow: read that session and pin
    /// it. `None` if another user is signed in there.
    ///
    /// **A client that has only proved that it knew the old id follows, too.** Do not follow where a rotation is to exclude a
    /// thief, as after a second factor.
    #[must_use]
    pub fn successor(&self) -> Option<SessionId> {
        self.0.shared.ended.get().and_then(|ended: &Ended| ended.successor)
    }

    /// Runs the future that serves the session. Drops it 200 ms after the session has ended, or
    /// cannot be proved to live any longer.
    ///
    /// Use it around a task that sends to a client. **A client that does not read blocks the
    /// sender.** Then the sender sees the end neither of a [`guard`](Pin::guard) nor of
    /// [`closed`](Pin::closed), and the socket would stay open. The 200 ms are for the last
    /// message. What the operating system has taken before may still arrive.
    ///
    /// # Errors
    /// Why it was dropped.
    ///
    /// # Cancel safety
    /// As `serving`.
    ///
    /// # Panics
    /// Outside of a tokio runtime with a timer, when the session has ended.
    pub async fn limit<F: Future>(&self, serving: F) -> Result<F::Output, Closed> {
        let too_late = async {
            let closed = self.closed().await;
            tokio::time::sleep(GOODBYE).await;
            closed
        };
        tokio::select! {
            biased;
            output = serving => Ok(output),
            closed = too_late => Err(closed),
        }
    }

    /// Ends a stream with the session: the last item is the error that says why. No item is delivered later.
    ///
    /// A sender that a client blocks does not ask for the next item; see [`limit`](Pin::limit).
    pub fn guard<S: Stream>(self, stream: S) -> Guarded<S> {
        let pin = self.clone();
        let closed = Box::pin(async move { pin.closed().await });
        Guarded { pin: self, stream: Box::pin(stream), closed: Some(closed) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pins.unregister(self);
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").field("id", &self.0.id).field("check", &self.check()).finish()
    }
}

impl Closed {
    /// The close code of a WebSocket: 4401 if the session has ended, 1013 ("try again later") if it is not proved.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Ended(_) => 4401,
            Self::Unproved => 1013,
        }
    }

    /// The status code of a gRPC stream: 16 (UNAUTHENTICATED) if the session has ended, 14 (UNAVAILABLE) if it is not proved.
    #[must_use]
    pub const fn grpc_code(self) -> i32 {
        match self {
            Self::Ended(_) => 16,
            Self::Unproved => 14,
        }
    }
}

/// The reason in a close frame: the name of the cause, or `unproved`.
impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(cause) => cause.fmt(f),
            Self::Unproved => f.write_str("unproved"),
        }
    }
}

impl std::error::Error for Closed {}

/// A stream that ends with its session; made by [`Pin::guard`].
#[must_use = "a stream does nothing until it is polled"]
pub struct Guarded<S> {
    pin: Pin,
    stream: std::pin::Pin<Box<S>>,
    /// `None` when the stream has ended.
    closed: Option<std::pin::Pin<Box<dyn Future<Output = Closed> + Send>>>,
}

impl<S> Guarded<S> {
    /// The pin that ends the stream.
    #[must_use]
    pub fn pin(&self) -> &Pin {
        &self.pin
    }
}

impl<S: Stream> Stream for Guarded<S> {
    type Item = Result<S::Item, Closed>;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(closed) = &mut self.closed else { return Poll::Ready(None) };
        if let Poll::Ready(closed) = closed.as_mut().poll(context) {
            self.closed = None;
            return Poll::Ready(Some(Err(closed)));
        }
        let item = self.stream.as_mut().poll_next(context);
        // Behind the item: the stream may have taken its time. And a holder that was starved may not have been woken yet.
        let item = match self.pin.check() {
            Err(closed) => Some(Err(closed)),
            Ok(()) => std::task::ready!(item).map(Ok),
        };
        if !matches!(item, Some(Ok(_))) {
            self.closed = None;
        }
        Poll::Ready(item)
    }
}

impl<S> fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}
