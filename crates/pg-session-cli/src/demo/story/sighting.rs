//! When a node first shows something: reads it again and again, without a pause that would blur the time.

use std::time::Instant;

use pg_session::{Session, SessionId};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::demo::cluster::Node;
use crate::failure::Failure;

/// A task that reads until it sees what it looks for.
pub(super) struct Sighting(AbortOnDropHandle<Result<Instant, Failure>>);

impl Sighting {
    /// Starts reading `id` on `node`; returns when the first read has been answered.
    pub(super) async fn of(
        node: &Node,
        id: SessionId,
        wanted: impl Fn(Option<&Session>) -> bool + Send + 'static,
    ) -> Result<Self, Failure> {
        let (ready, reading) = oneshot::channel();
        let sessions = node.sessions.clone();
        let look = async move {
            let mut ready = Some(ready);
            loop {
                let session = sessions.get(id).no_touch().await?;
                if wanted(session.as_ref()) {
                    return Ok(Instant::now());
                }
                if let Some(ready) = ready.take() {
                    // If its waiter was dropped, this task is dropped as well.
                    let _ = ready.send(());
                }
                // Lets the node receive; a hit never waits by itself.
                tokio::task::yield_now().await;
            }
        };
        let looking = AbortOnDropHandle::new(tokio::spawn(look));
        // An early end is an error, or shows at once what should come later: the caller's figures say which.
        let _ = reading.await;
        Ok(Self(looking))
    }

    /// When it was seen.
    pub(super) async fn seen(self) -> Result<Instant, Failure> {
        self.0.await?
    }
}
