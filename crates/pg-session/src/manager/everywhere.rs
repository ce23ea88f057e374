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
//! A node without a row is not trusted. It becomes trusted by a tick behind its first beat, and the
//! revocation is ahead of that tick. So is one whose row says that it has no listener. A node that
//! does not answer is not trusted when the trust window has passed since the commit. Its last proof
//! was sent before. So the wait has an end under any fault, and never an unknown outcome.
//!
//! A pin counts as alive until it is looked up. So a node answers when the pins that were doubted before r were looked up.
//!
//! A crash of the server empties the registry, and a node that has not noticed it may be trusted. Then the caller's row is gone
//! as well. So the wait ends early only if that row is older than the window.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};
use uuid::Uuid;

use super::revoked::Revoked;
use super::{Node, SessionManager};
use crate::cause::Cause;
use crate::clock::Tick;
use crate::ending::Ending;
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
    /// An actor that no entry can have is an error of the change.
    ending: Result<Ending, Error>,
    change: Change<'a, T>,
}

type Changing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

enum Change<'a, T> {
    New(Box<dyn FnOnce(Ending) -> Changing<'a, T> + Send + 'a>),
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
    /// Nodes that did not answer, or have lost their listener. They read from the database until they have handled the change.
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
        change: impl FnOnce(Ending) -> F + Send + 'a,
    ) -> Self
    where
        F: Future<Output = Result<T, Error>> + Send + 'a,
    {
        let change = Change::New(Box::new(|ending| Box::pin(change(ending))));
        Self { manager, revoked, ending: Ok(Ending::new(cause)), change }
    }

    /// Why the sessions end: what pins, sockets and events on all nodes report. It is ignored by a change that ends no session.
    pub fn cause(mut self, cause: Cause) -> Self {
        self.ending = self.ending.map(|ending| ending.with_cause(cause));
        self
    }

    /// Who ends the sessions, for the audit log: a name of an operator or a program, of at most 255 bytes. **It is not checked.** Without an audit
    /// log, and for a change that ends no session, it is ignored.
    ///
    /// Another text is an error of the change, of the kind [`InvalidArgument`](crate::ErrorKind::InvalidArgument).
    pub fn by(mut self, actor: &str) -> Self {
        self.ending = self.ending.and_then(|ending| ending.with_actor(actor));
        self
    }

    /// Makes the change, and waits until no node can serve the old state from memory.
    ///
    /// It returns when all nodes have answered, as a rule within milliseconds. A node that does not answer is waited for
    /// until its trust has ended. No pin of an ended session counts as alive afterwards. This takes [`Config::trust_window`](crate::Config::trust_window) and a thousandth of it
    /// at most, also if the database fails meanwhile. A node that was started less than a trust window ago waits for the
    /// rest of it. **All nodes must have the same `trust_window`.**
    ///
    /// # Errors
    /// Those of the change. The wait has none.
    ///
    /// # Cancel safety
    /// Dropping the future does not undo a change that was submitted.
    pub async fn everywhere(self) -> Result<Everywhere, Error> {
        self.with_everywhere().await.map(|(_, everywhere)| everywhere)
    }

    /// As [`everywhere`](Self::everywhere). Returns what the change returns, too, for example the number of sessions.
    ///
    /// With an audit log, the entries of the sessions get the receipt, a moment later.
    ///
    /// # Errors
    /// Those of the change. The wait has none.
    ///
    /// # Cancel safety
    /// As [`everywhere`](Self::everywhere).
    pub async fn with_everywhere(mut self) -> Result<(T, Everywhere), Error> {
        let (manager, revoked) = (self.manager, self.revoked.clone());
        let revocation = Uuid::new_v4();
        self.ending = self.ending.map(|ending| ending.with_revocation(revocation));
        let changed = self.await?;
        // Its pins have ended with the change. If some are still looked up, it answers as the others do.
        let done = manager.0.core.pins.last_doubt().is_none().then(|| manager.0.prover.node());
        let (others, took) = manager.0.wait_everywhere(done).await;
        let acknowledged = usize::from(done.is_some()) + others.heard;
        let everywhere = manager.receipt(revoked, acknowledged, others.lapsed(), took);
        manager.0.record_receipt(revocation, &everywhere);
        Ok((changed, everywhere))
    }
}

impl SessionManager {
    /// Waits until no node can serve from memory what was ended or changed by a COMMIT before this
    /// call. It may be one of this program, of another one, or of SQL. It changes nothing. It takes
    /// as long as [`Revocation::everywhere`].
    ///
    /// ```no_run
    /// # async fn f(sessions: &pg_session::SessionManager) -> Result<(), Box<dyn std::error::Error>> {
    /// // After `DELETE FROM sessions WHERE …` in psql:
    /// let done = sessions.everywhere().await?;
    /// println!("gone on {} nodes after {:?}", done.acknowledged, done.took);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::ShuttingDown`](crate::ErrorKind::ShuttingDown). The wait has none.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn everywhere(&self) -> Result<Everywhere, Error> {
        self.0.check_open()?;
        // This node has to hear the request as well: the change may be that of another one.
        let (nodes, took) = self.0.wait_everywhere(None).await;
        Ok(self.receipt(Revoked::Earlier, nodes.heard, nodes.lapsed(), took))
    }

    fn receipt(&self, revoked: Revoked, acknowledged: usize, lapsed: usize, took: Duration) -> Everywhere {
        Everywhere { revoked, finished_at: self.database_time(), acknowledged, lapsed, took }
    }
}

impl<'a, T: 'a> Future for Revocation<'a, T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.change {
                Change::Submitted(change) => return change.as_mut().poll(context),
                Change::New(start) => {
                    let start = std::mem::replace(start, Box::new(|_| Box::pin(std::future::pending())));
                    let ending = std::mem::replace(&mut self.ending, Ok(Ending::new(Cause::Unknown)));
                    self.change = Change::Submitted(match ending {
                        Ok(ending) => start(ending),
                        Err(error) => Box::pin(async { Err(error) }),
                    });
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

/// The nodes that have to handle the change, at the last look.
#[derive(Clone, Copy, Default)]
struct Others {
    heard: usize,
    /// Those that have no listener, and are not trusted.
    lost: usize,
    silent: usize,
}

impl Others {
    fn lapsed(self) -> usize {
        self.lost + self.silent
    }
}

impl Node {
    /// The change was committed before this call. The node `done` has handled it.
    async fn wait_everywhere(&self, done: Option<Uuid>) -> (Others, Duration) {
        let clock = &self.core.policy.clock;
        let committed = clock.now();
        let window = window_elsewhere(self.core.config.trust_window);
        let mut others = Others::default();
        // An error means that the window has passed, so nothing is left to wait for.
        let _ = timeout(window, self.wait_for_rows(done, window, &mut others)).await;
        (others, clock.now().since(committed))
    }

    async fn wait_for_rows(&self, done: Option<Uuid>, window: Duration, others: &mut Others) {
        let mut pause = EVERYWHERE.first;
        let request = Token::random();
        let mut asked = None;
        loop {
            match self.look(request, &mut asked, (done, window), others).await {
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
        (done, window): (Option<Uuid>, Duration),
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
        for row in rows.iter().filter(|row| Some(row.node) != done) {
            let is_acknowledged = row.heard || !self.core.failpoints.holds(Guard::Acknowledgement);
            if row.server != server {
                found.silent += 1;
            } else if row.listener_lost {
                found.lost += 1;
            } else if is_acknowledged {
                found.heard += 1;
            } else {
                found.silent += 1;
            }
        }
        *others = found;
        let own = rows.iter().find(|row| row.node == own);
        Ok(found.silent == 0 && own.is_some_and(|own| self.is_complete(own, server, window)))
    }

    /// In the background, because the database may not answer: `everywhere()` must not take longer. The shutdown waits for it.
    fn record_receipt(&self, revocation: Uuid, everywhere: &Everywhere) {
        let core = Arc::clone(&self.core);
        let receipt = match serde_json::to_string(everywhere) {
            Ok(receipt) => receipt,
            // A time beyond the year 9999 has no text.
            Err(error) => return warn!(%error, %revocation, "a receipt is missing in the audit log"),
        };
        self.tasks.writing.tasks.spawn(async move {
            if let Err(failure) = core.database.record_receipt(revocation, &receipt).await {
                warn!(error = %failure.error, %revocation, "a receipt is missing in the audit log");
            }
        });
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
