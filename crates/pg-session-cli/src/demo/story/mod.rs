//! The story, one act per file, in the order in which a newcomer meets the questions: does it share, does it
//! propagate, is it fast, does it expire, does it batch, does logout hold, and what if the network or the database
//! fails.

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

use super::stage::{Node, Stage};
use super::teller::{Teller, Trouble};
use crate::why::Why;

/// How often a condition that is not timed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Tells all of it.
///
/// # Errors
/// [`Trouble`] with the first step that did not hold.
pub(super) async fn tell(stage: &Stage, teller: &Teller) -> Result<(), Trouble> {
    let ann = create::play(stage, teller).await?;
    update::play(stage, teller, ann).await?;
    hits::play(stage, teller, ann).await?;
    step_up::play(stage, teller, ann).await?;
    together::play(stage, teller).await?;
    logout::play(stage, teller, ann).await?;
    cut::play(stage, teller).await?;
    restart::play(stage, teller).await
}

/// A session that has to be there.
async fn found(node: &Node, id: SessionId) -> Result<Session, Why> {
    let session = node.sessions.get(id).await?;
    session.ok_or_else(|| Why::new(format!("{} does not find the session", node.name)))
}

/// Waits until `condition` holds. The step's own limit ends it.
async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
