//! How often and at what pace the node repeats what failed: all policies beside each other.
//!
//! A caller waits for a write at most: [`STATEMENT`] pauses 0.5 s in all, and a locked row ends it after `query_timeout`.
//! Each of [`REBASES_MAX`] conflicts means that another writer's update was committed.

use std::time::Duration;

/// Pauses between tries: the first, and twice as long each time, up to a longest one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) max: Duration,
}

impl Backoff {
    const fn millis(first: u64, max: u64) -> Self {
        Self { first: Duration::from_millis(first), max: Duration::from_millis(max) }
    }

    /// The pause that follows `pause`.
    pub(crate) fn after(self, pause: Duration) -> Duration {
        (pause * 2).min(self.max)
    }

    /// The pause after so many tries.
    pub(crate) fn pause(self, tries: u32) -> Duration {
        self.first.saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX)).min(self.max)
    }
}

/// Tries of a statement that collided with another transaction, before its requests fail.
pub(crate) const STATEMENT_TRIES_MAX: u32 = 8;
pub(crate) const STATEMENT: Backoff = Backoff::millis(2, 256);

/// Retries of writes whose rows are locked. A row that becomes free starts the pauses anew.
pub(crate) const LOCKED_ROW: Backoff = Backoff::millis(5, 40);
/// The longest that a bulk change waits for each row. The first wait is `row_lock_wait`.
pub(crate) const BULK_ROW_WAIT_MAX: Duration = Duration::from_millis(80);

/// Conflicts of one write before it fails. In each, another writer's update of the same session was committed.
pub(crate) const REBASES_MAX: u32 = 100;
/// Rounds of a modification. In each of them another writer's update was committed.
pub(crate) const MODIFY_ROUNDS_MAX: u32 = 100;
/// Tries of one deletion. In each but the last, another writer rotated one of its sessions.
pub(crate) const DELETE_TRIES_MAX: u32 = 100;

/// Tries to apply the migrations when several nodes start at once.
pub(crate) const MIGRATION_TRIES_MAX: u32 = 5;

/// Tries of one load that collided or whose plan was outdated.
pub(crate) const LOAD_TRIES_MAX: u32 = 3;

/// Retries of the accesses whose rows are locked, before they wait for the next interval.
pub(crate) const TOUCH_RETRIES_MAX: u32 = 8;
pub(crate) const TOUCH: Backoff = Backoff::millis(2, 256);

/// Retries of a chunk that could not be verified after a reconnect, until the next epoch.
pub(crate) const RESYNC: Backoff = Backoff::millis(200, 5_000);

/// Pauses between looks at the registry while `everywhere()` waits. The window ends it.
pub(crate) const EVERYWHERE: Backoff = Backoff::millis(1, 8);

/// Failed or late tries in a row to take a lock, before it counts as held.
pub(crate) const LOCK_TRIES_MAX: u32 = 4;
/// The pause after a try to take a lock that failed.
pub(crate) const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// Wakes of a lock's waiter that are followed at once. Any role can send them, so each further try has a pause before it.
pub(crate) const LOCK_FREE_WAKES: u32 = 32;
pub(crate) const LOCK_WAKE_PAUSE: Duration = Duration::from_millis(50);
/// The pause after a renewal that failed at once: this part of the lease, at most as long as [`RELEASE`]'s longest.
pub(crate) const RENEWAL_PAUSE_PART: u32 = 10;
/// Tries to give a lock back, until its lease ends.
pub(crate) const RELEASE: Backoff = Backoff::millis(50, 1_000);

/// Asks of the pool while the server has no connection left, until the statement's time is over.
pub(crate) const FULL_SERVER: Backoff = Backoff::millis(5, 200);
/// Connections that a read may try. Each has an equal share of the time.
pub(crate) const READ_TRIES: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<u128> = (0..5).map(|tries| LOCKED_ROW.pause(tries).as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 40]);
        assert_eq!(LOCKED_ROW.pause(u32::MAX), LOCKED_ROW.max);
        assert_eq!(RESYNC.after(RESYNC.first), RESYNC.pause(1));
    }
}
