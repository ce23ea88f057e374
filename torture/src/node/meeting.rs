//! Meetings: five times a second, all nodes come to one session, as two requests of one page do. One begins with a change;
//! others answer as soon as they see it, and some only look on.
//!
//! An answer commits right after what it answers. On a node whose pool is slower than its listener, it overtakes the
//! publication of the node's own change, or a load that saw that change: each of these has to give way. Then no client writes
//! there for seconds. So a node that kept an old version still has it after the trust window.

use std::sync::Arc;
use std::time::Duration;

use pg_session::SessionId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Node;
use super::client::Client;
use crate::clock::{Nanos, nanos, now};
use crate::plan::{CLIENT_PLACES, MEETING_PLACES, TRUST_WINDOW};
use crate::rng::Rng;

const INTERVAL: Nanos = 200_000_000;
/// How long before a meeting all nodes look at the session, to have it in memory then.
const BEFORE: Nanos = 800_000_000;
/// How long a change is waited for, and how often is looked for it: these looks are for finding it only, and not written down.
const LENGTH: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(10);
/// How many of the readers of a change answer it, in percent.
const ANSWER: u64 = 60;
/// When they look again, one after the other, after the window.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_millis(400)];
/// Meetings of one node that may last at once: beyond, it misses some.
const MEETINGS_MAX: usize = 64;

// No two meetings at one place at a time.
const _: () = assert!(
    MEETING_PLACES as u64 * INTERVAL > BEFORE + (LENGTH.as_nanos() + 2 * TRUST_WINDOW.as_nanos()) as Nanos,
    "too few places"
);

pub(super) async fn run(node: Arc<Node>, mut stopped: watch::Receiver<bool>) {
    let mut meetings = JoinSet::new();
    loop {
        let next = now() / INTERVAL + 1;
        let wait = Duration::from_nanos((next * INTERVAL).saturating_sub(now()));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        while meetings.try_join_next().is_some() {}
        if meetings.len() < MEETINGS_MAX {
            meetings.spawn(meet(Arc::clone(&node), next));
        }
    }
}

async fn meet(node: Arc<Node>, number: u64) {
    // Place and beginner are the same for all nodes; what each does there is its own.
    let place = CLIENT_PLACES + (number % MEETING_PLACES as u64) as usize;
    let begins = Rng::new(node.plan.seed).fork(!number).index(node.plan.nodes) == node.plan.node;
    let mut rng = node.rng.fork(!number);
    let answers = rng.chance(ANSWER);
    let mut client = Client::new(Arc::clone(&node), rng);
    let Some(session) = client.on_place(place, begins).await else { return };
    let meeting = number * INTERVAL + BEFORE;
    tokio::time::sleep(Duration::from_nanos(meeting.saturating_sub(now()))).await;
    if begins || (see_change(&node, session).await && answers) {
        client.update(session).await;
    }
    let rest = (meeting + nanos(LENGTH)).saturating_sub(now());
    tokio::time::sleep(Duration::from_nanos(rest) + TRUST_WINDOW).await;
    for pause in AGAIN {
        tokio::time::sleep(pause).await;
        client.read(session, false, None).await;
    }
}

/// Whether a version was seen that came after the first.
async fn see_change(node: &Node, session: Uuid) -> bool {
    let id = SessionId::from_uuid(session);
    let mut first = None;
    let polling = async {
        loop {
            if let Ok(Some(session)) = node.manager.get(id).no_touch().await
                && session.version() > *first.get_or_insert(session.version())
            {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(LENGTH, polling).await.is_ok()
}
