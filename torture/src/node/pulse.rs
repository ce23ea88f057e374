//! Reports the node's status: each change of its trust at once, its queues every second.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::{Node, Word, say};
use crate::clock::{nanos, now};
use crate::history::{Entry, Gauge};

const LOOK: Duration = Duration::from_millis(10);
const GAUGE: Duration = Duration::from_secs(1);

pub(super) async fn run(node: Arc<Node>, mut stopped: watch::Receiver<bool>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_trusted = None;
    let mut gauged = 0;
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        let (at, status) = (now(), node.manager.status());
        let trusted = status.trusted_for.is_some();
        if was_trusted.replace(trusted) != Some(trusted) {
            node.journal.write(&Entry::Trust { at, trusted });
            say(&Word::Trusted(trusted));
        }
        if at > gauged + nanos(GAUGE) {
            gauged = at;
            node.journal.write(&Entry::Gauge(Gauge {
                writes_waiting: status.writes.waiting,
                touches_waiting: status.touches_waiting,
                sessions_cached: status.cache.sessions,
                hits_compared: status.observer.compared,
                hits_stale: status.observer.stale,
            }));
        }
    }
}
