//! What the run takes: the nodes' memory and their connections, every two seconds; and how the two clocks stand.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::Client;

use super::client::connect;
use crate::clock::{now, wall};
use crate::history::{Entry, Journal, Sample};

const INTERVAL: Duration = Duration::from_secs(2);

pub(super) async fn run(
    url: String,
    journal: Arc<Journal>,
    pids: watch::Receiver<Vec<Option<u32>>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut client = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        journal.write(&Entry::Wall { at: now(), wall: wall() });
        // A server that does not answer has no connections to count.
        let counted = timeout(INTERVAL, connections(&mut client, &url)).await;
        let connections = counted.ok().flatten().unwrap_or(0);
        let pids = pids.borrow().clone();
        for (node, pid) in pids.into_iter().enumerate() {
            if let Some(resident_kib) = pid.and_then(resident) {
                journal.write(&Entry::Sample(Sample { node, resident_kib, connections }));
            }
        }
    }
}

/// The nodes' connections: their pools and listeners, not the resource's and not ours.
async fn connections(client: &mut Option<Client>, url: &str) -> Option<u64> {
    if client.as_ref().is_none_or(Client::is_closed) {
        *client = connect(url).await.ok();
    }
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('pg-listen', 'pg-session')";
    let row = client.as_ref()?.query_one(count, &[]).await.ok()?;
    u64::try_from(row.get::<_, i64>(0)).ok()
}

/// Kibibytes of memory that a process has.
fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
