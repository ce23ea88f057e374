//! `everywhere()`: waits until no node can serve what was revoked.
//!
//! ```text
//! caller   revocation ── COMMIT ── request r ── looks: does each row of the registry contain r?
//! node                               … revocation … r ── r in its row
//! ```
//!
//! The request r is a random number that is notified after the commit. So it is behind the revocation in the queue. No other
//! role can know it earlier. An ordered number would be wrong if it was taken before the commit, and could be forged.
//!
//! A node without a row is not trusted. It becomes trusted by a tick behind its first beat, and the revocation is ahead of
//! that tick. A node that does not answer is not trusted when the trust window has passed since the commit: its last proof
//! was sent before. So the wait has an end under any fault, and never an unknown outcome.
//!
//! A crash of the server empties the registry, and a node that has not noticed it may be trusted. Then the caller's row is gone
//! as well. So the wait ends early only if that row is older than the window.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::revoked::Revoked;
use super::{Node, SessionManager};
use crate::cause::Cause;
use crate::clock::Tick;
use crate::error::Error;
use crate::failpoints::Guard;
use crate::invalidation::proof::window_elsewhere;
use crate::notification::{ServerId, Token};
use crate::postgres::failure::Failure;
use crate::postgres::nodes::NodeRow;
use crate::retry::EVERYWHERE;

/// The future of a change that ends or evicts sessions, or removes an attribute.
///
/// Awaited, it returns when the change is committed and this node has handled it. The other nodes handle it within
/// milliseconds, and at the latest after [`Config::trust_window`](crate::Config::trust_window).
/// [`everywhere`](Revocation::everywhere) waits for them.
#[must_use = "it does nothing until it is awaited"]
pub struct Revocation<'a, T> {
    manager: &'a SessionManager,
    revoked: Revoked,
    cause: Cause,
    change: Change<'a, T>,
}

type Changing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

enum Change<'a, T> {
    New(Box<dyn FnOnce(Cause) -> Changing<'a, T> + Send + 'a>),
    Submitted(Changing<'a, T>),
}

/// What [`Revocation::everywhere`] returns: no node can serve the old state any more.
///
/// As JSON, it is a receipt; [`sign`](Everywhere::sign) and [`verify`](Everywhere::verify) it with a
/// [`Signer`](crate::Signer):
///
/// ```no_run
/// # async fn f(sessions: &pg_session::SessionManager, signer: &pg_session::Signer) -> Result<(), Box<dyn std::error::Error>> {
/// let done = sessions.user(42).delete().everywhere().await?;
/// let receipt = done.sign(signer)?; // for the audit log
/// assert_eq!(pg_session::Everywhere::verify(signer, &receipt)?, done);
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Everywhere {
    /// What was revoked. Sessions have their public names.
    pub revoked: Revoked,
    /// When no node could serve the old state any more, by the database's clock.
    #[serde(with = "humantime_serde")]
    pub finished_at: SystemTime,
    /// Nodes that have handled the change, this one included.
    pub acknowledged: usize,
    /// Nodes that did not answer. They read from the database until they have handled the change.
    pub lapsed: usize,
    /// From the commit until no node could serve the old state.
    #[serde(with = "humantime_serde")]
    pub took: Duration,
}

impl<'a, T: 'a> Revocation<'a, T> {
    pub(super) fn new<F>(
        manager: &'a SessionManager,
        revoked: Revoked,
        cause: Cause,
        change: impl FnOnce(Cause) -> F + Send + 'a,
    ) -> Self
    where
        F: Future<Output = Result<T, Error>> + Send + 'a,
    {
        Self { manager, revoked, cause, change: Change::New(Box::new(|cause| Box::pin(change(cause)))) }
    }

    /// Why the sessions end: what pins, sockets and events on all nodes report. It is ignored by a change that ends no session.
    pub fn cause(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// Makes the change, and waits until no node can serve the old state from memory.
    ///
    /// It returns when all nodes have answered, as a rule within milliseconds. A node that does not answer is waited for
    /// until its trust has ended. So this takes [`Config::trust_window`](crate::Config::trust_window) and a thousandth of it
    /// at most, also if the database fails meanwhile. A node that was started less than a trust window ago waits for the
    /// rest of it. **All nodes must have the same `trust_window`.**
    ///
    /// # Errors
    /// Those of the change. The wait has none.
    ///
    /// # Cancel safety
    /// Dropping the future does not undo a change that was submitted.
    pub async fn everywhere(self) -> Result<Everywhere, Error> {
        let (manager, revoked) = (self.manager, self.revoked.clone());
        self.await?;
        let (others, took) = manager.0.wait_everywhere().await;
        Ok(Everywhere {
            revoked,
            finished_at: manager.database_time(),
            acknowledged: 1 + others.heard,
            lapsed: others.silent,
            took,
        })
    }
}

impl<'a, T: 'a> Future for Revocation<'a, T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let cause = self.cause;
        loop {
            match &mut self.change {
                Change::Submitted(change) => return change.as_mut().poll(context),
                Change::New(start) => {
                    let start = std::mem::replace(start, Box::new(|_| Box::pin(std::future::pending())));
                    self.change = Change::Submitted(start(cause));
                }
            }
        }
    }
}

impl<T> std::fmt::Debug for Revocation<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Revocation").finish_non_exhaustive()
    }
}

/// The nodes besides this one, at the last look.
#[derive(Clone, Copy, Default)]
struct Others {
    heard: usize,
    silent: usize,
}

impl Node {
    /// The change was committed before this call, and this node has handled it.
    async fn wait_everywhere(&self) -> (Others, Duration) {
        let clock = &self.core.policy.clock;
        let committed = clock.now();
        let window = window_elsewhere(self.core.config.trust_window);
        let mut others = Others::default();
        // An error means that the window has passed, so nothing is left to wait for.
        let _ = timeout(window, self.wait_for_rows(window, &mut others)).await;
        (others, clock.now().since(committed))
    }

    async fn wait_for_rows(&self, window: Duration, others: &mut Others) {
        let mut pause = EVERYWHERE.first;
        let request = Token::random();
        let mut asked = None;
        loop {
            match self.look(request, &mut asked, window, others).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(failure) => debug!(error = %failure.error, "the registry of nodes could not be read"),
            }
            sleep(pause).await;
            pause = EVERYWHERE.after(pause);
        }
    }

    /// Whether all nodes have heard the request, which this sends first.
    async fn look(
        &self,
        request: Token,
        asked: &mut Option<ServerId>,
        window: Duration,
        others: &mut Others,
    ) -> Result<bool, Failure> {
        let database = &self.core.database;
        let server = match *asked {
            Some(server) => server,
            None => *asked.insert(database.request_acknowledgement(request).await?),
        };
        let rows = database.node_rows(request).await?;
        let own = self.prover.node();
        let mut found = Others::default();
        for row in rows.iter().filter(|row| row.node != own) {
            let is_acknowledged = row.heard || !self.core.failpoints.holds(Guard::Acknowledgement);
            if is_acknowledged && row.server == server {
                found.heard += 1;
            } else {
                found.silent += 1;
            }
        }
        *others = found;
        let own = rows.iter().find(|row| row.node == own);
        Ok(found.silent == 0 && own.is_some_and(|own| self.is_complete(own, server, window)))
    }

    /// Whether each node that is trusted has a row beside `own`: it was not removed for as long as a node may be trusted.
    fn is_complete(&self, own: &NodeRow, server: ServerId, window: Duration) -> bool {
        let now: Tick = self.core.policy.clock.now();
        let registration = self.prover.registration();
        let is_old = registration.is_some_and(|registration| {
            registration.first_beat == own.first_beat && now.since(registration.since) >= window
        }) || !self.core.failpoints.holds(Guard::CompleteRegistry);
        is_old && own.server == server && self.core.is_proved(server)
    }
}
