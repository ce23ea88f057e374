//! What a subscription receives.
//!
//! The events of one subscription, in order, are `(Listening (Notification | InSync)* Lost)*`;
//! after an overflow a `Lost` may follow another `Lost`, because the queue was emptied.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// One event of a [`Subscription`](crate::Subscription), in the order of the wire.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// LISTEN is in force for this channel. Everything committed after this event was handed out will be
    /// delivered, or `Lost` will be. **What was committed before is not delivered: read your state now.**
    Listening,
    /// A notification.
    Notification(Notification),
    /// A barrier came back. This subscription has received everything that was committed on this
    /// channel before `as_of`, and after the last `Listening`.
    InSync {
        /// Monotonic time taken just before the barrier was sent.
        as_of: Instant,
    },
    /// Notifications may have been missed, from here until the next `Listening` followed by `InSync`.
    Lost(LostReason),
}

/// Why notifications may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// The connection ended: closed by the server, cut on the way, or refused a statement.
    Connection,
    /// The server did not answer within the barrier's timeout: the connection is half-open, or as good as
    /// that.
    BarrierTimeout,
    /// This subscription was read too slowly; what stood in its queue was thrown away. The connection is
    /// fine.
    Overflow,
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "connection lost",
            Self::BarrierTimeout => "barrier not back in time",
            Self::Overflow => "queue overflow",
        })
    }
}

/// A notification. Cheap to clone: all subscribers of the channel share one.
///
/// **Each role that may connect to the database may notify any channel.** Treat the payload as foreign
/// input.
#[derive(Clone)]
pub struct Notification(Arc<tokio_postgres::Notification>, bool);

impl Notification {
    pub(crate) fn new(notification: tokio_postgres::Notification, between_statements: bool) -> Self {
        Self(Arc::new(notification), between_statements)
    }

    /// Whether it arrived while none of the listener's own statements ran. Then PostgreSQL, or a pooler that keeps the server
    /// connection, delivered it. A pooler that lends the server connection to others between statements does not.
    /// `false` proves nothing.
    #[must_use]
    pub fn arrived_between_statements(&self) -> bool {
        self.1
    }

    /// The channel it was sent to.
    #[must_use]
    pub fn channel(&self) -> &str {
        self.0.channel()
    }

    /// The payload; empty if there was none.
    #[must_use]
    pub fn payload(&self) -> &str {
        self.0.payload()
    }

    /// The process id of the server process that sent it.
    #[must_use]
    pub fn process_id(&self) -> i32 {
        self.0.process_id()
    }
}

impl fmt::Debug for Notification {
    /// Without the payload: it may hold what no log should.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("channel", &self.channel())
            .field("payload_bytes", &self.payload().len())
            .field("process_id", &self.process_id())
            .finish()
    }
}
