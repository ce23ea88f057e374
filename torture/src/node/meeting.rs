//! Meetings: five times a second, all nodes go to one session at about the same time, as two requests of one page do.
//!
//! Some read it and some change it; then nobody does for a while, but each looks again when the trust window has passed.
//! Whoever kept what was overtaken at the meeting still has it then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Node;
use super::client::Client;
use crate::clock::{Nanos, now};
use crate::dice::Dice;
use crate::plan::{SLOTS, TRUST_WINDOW};

const INTERVAL: Nanos = 200_000_000;
/// How long before a meeting they begin to look.
const BEFORE: Nanos = 800_000_000;
/// How far apart they come.
const SPREAD_MS: u64 = 400;
/// Meetings of one node that may last at once: beyond, it misses some.
const MEETINGS_MAX: usize = 64;
/// When they look again, after the window.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_millis(400)];

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
    // The same one for all nodes; what each does there is its own.
    let slot = Dice::new(node.plan.seed).fork(!number).index(SLOTS);
    let mut dice = node.dice.fork(!number);
    let (offset, is_change) = (dice.millis(0, SPREAD_MS), dice.chance(60));
    let mut client = Client::new(node, dice);
    // Everybody has it in memory when they meet, so that a change leaves at once.
    let Some(session) = client.on_board(slot).await else { return };
    client.read(session, false, None).await;
    let meeting = number * INTERVAL + BEFORE;
    tokio::time::sleep(Duration::from_nanos(meeting.saturating_sub(now())) + offset).await;
    if is_change {
        client.update(session).await;
    } else {
        client.read(session, false, None).await;
    }
    tokio::time::sleep(TRUST_WINDOW).await;
    for pause in AGAIN {
        tokio::time::sleep(pause).await;
        client.read(session, false, None).await;
    }
}
