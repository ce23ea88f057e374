//! The story, one act per file, in the order of a newcomer's questions. Does it share? Does it
//! propagate? Is it fast? Does it expire? Does it batch? Does logout hold? What if the network or
//! the database fails?

mod create;
mod cut;
mod hits;
mod logout;
mod restart;
mod sighting;
mod step_up;
mod together;
mod update;

use std::time::Duration;

use pg_session::{Session, SessionId};

use super::cluster::{Cluster, Node};
use super::reporter::{DemoError, Reporter};
use crate::failure::Failure;

/// How often a condition that is not timed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Tells all of it.
///
/// # Errors
/// [`DemoError`] with the first step that did not hold.
pub(super) async fn run(cluster: &Cluster, reporter: &Reporter) -> Result<(), DemoError> {
    let ann = create::play(cluster, reporter).await?;
    update::play(cluster, reporter, ann).await?;
    hits::play(cluster, reporter, ann).await?;
    step_up::play(cluster, reporter, ann).await?;
    together::play(cluster, reporter).await?;
    logout::play(cluster, reporter, ann).await?;
    cut::play(cluster, reporter).await?;
    restart::play(cluster, reporter).await
}

/// A session that has to be there.
async fn found(node: &Node, id: SessionId) -> Result<Session, Failure> {
    let session = node.sessions.get(id).await?;
    session.ok_or_else(|| Failure::new(format!("{} does not find the session", node.name)))
}

/// Waits until `condition` holds. The step's own limit ends it.
async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
