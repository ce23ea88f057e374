//! Whether an update notifies inside its transaction, or commits first.
//!
//! A commit that notifies waits for all others that do. A node that writes alone has no one to wait for, and one transaction
//! is cheaper than two. So an update commits first only if another of this node is in flight, or other nodes notified lately.
//!
//! Both orders keep the promises, so the counts may be wrong for a moment. An update commits first
//! only while the node's row is in the registry. If the node ends before it has notified, the row
//! falls silent, and the others notice that.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::Tick;
use crate::postgres::update::NotifyOrder;

/// How long a notification of another node counts: many times what an update takes.
const BUSY: Duration = Duration::from_millis(100);

/// Which updates commit before they notify.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotifyPolicy {
    /// None.
    Inside,
    /// All.
    AfterCommit,
    /// Those that would wait for others that notify.
    WhenBusy,
}

/// What this node knows of commits that notify.
#[derive(Debug)]
pub(crate) struct Contention {
    policy: NotifyPolicy,
    in_flight: AtomicUsize,
    /// Notifications that were received, without those that this node has sent. One that was sent and not yet received
    /// lowers it.
    others: AtomicI64,
    /// The highest of these so far: more are news of other nodes.
    others_seen: AtomicI64,
    /// Until when other nodes count as busy, in nanoseconds of the node's clock.
    busy_until: AtomicU64,
    /// Until when the node's row is in the registry for certain, in nanoseconds of the node's clock.
    registered_until: AtomicU64,
}

/// An update in flight, and its order.
pub(crate) struct Ordered<'a> {
    contention: &'a Contention,
    pub(crate) order: NotifyOrder,
}

impl Contention {
    pub(crate) fn new(policy: NotifyPolicy) -> Self {
        Self {
            policy,
            in_flight: AtomicUsize::new(0),
            others: AtomicI64::new(0),
            others_seen: AtomicI64::new(0),
            busy_until: AtomicU64::new(0),
            registered_until: AtomicU64::new(0),
        }
    }

    /// A statement of updates leaves now.
    pub(crate) fn start(&self, now: Tick) -> Ordered<'_> {
        let accompanied = self.in_flight.fetch_add(1, Ordering::Relaxed) > 0;
        let others = self.others.load(Ordering::Relaxed);
        if others > self.others_seen.fetch_max(others, Ordering::Relaxed) {
            self.busy_until.store(now.plus(BUSY).nanos(), Ordering::Relaxed);
        }
        let busy = accompanied || now.nanos() < self.busy_until.load(Ordering::Relaxed);
        let registered = now.nanos() < self.registered_until.load(Ordering::Relaxed);
        let order = match self.policy {
            _ if !registered => NotifyOrder::Inside,
            NotifyPolicy::AfterCommit => NotifyOrder::AfterCommit,
            NotifyPolicy::WhenBusy if busy => NotifyOrder::AfterCommit,
            NotifyPolicy::Inside | NotifyPolicy::WhenBusy => NotifyOrder::Inside,
        };
        Ordered { contention: self, order }
    }

    /// A tick has shown the node's row: no other node removes it until then.
    pub(crate) fn registered(&self, until: Tick) {
        self.registered_until.fetch_max(until.nanos(), Ordering::Relaxed);
    }

    /// The row may be gone: a crash of the server and a failover empty the registry. Until the next tick, updates notify
    /// inside.
    pub(crate) fn unregistered(&self) {
        self.registered_until.store(0, Ordering::Relaxed);
    }

    /// This node has sent so many notifications of changes.
    pub(crate) fn sent(&self, notifications: usize) {
        let notifications = i64::try_from(notifications).unwrap_or(i64::MAX);
        self.others.fetch_sub(notifications, Ordering::Relaxed);
    }

    /// A notification of changes was received, from any node.
    pub(crate) fn received(&self) {
        self.others.fetch_add(1, Ordering::Relaxed);
    }

    /// The listener has a new connection: what was sent before may never be received.
    pub(crate) fn restart(&self) {
        self.others.store(0, Ordering::Relaxed);
        self.others_seen.store(0, Ordering::Relaxed);
    }
}

impl Drop for Ordered<'_> {
    fn drop(&mut self) {
        self.contention.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its row is in the registry.
    fn registered(policy: NotifyPolicy) -> Contention {
        let contention = Contention::new(policy);
        contention.registered(Tick::ZERO.plus(Duration::from_secs(6)));
        contention
    }

    fn order(contention: &Contention, milliseconds: u64) -> NotifyOrder {
        contention.start(Tick::ZERO.plus(Duration::from_millis(milliseconds))).order
    }

    #[test]
    fn a_lone_update_notifies_inside() {
        let contention = registered(NotifyPolicy::WhenBusy);
        for n in 0..3 {
            assert_eq!(order(&contention, n), NotifyOrder::Inside);
            // Received before the answer, or behind the next update.
            contention.received();
            contention.sent(1);
            assert_eq!(order(&contention, n), NotifyOrder::Inside);
            contention.sent(1);
            assert_eq!(order(&contention, n), NotifyOrder::Inside);
            contention.received();
        }
    }

    #[test]
    fn an_update_beside_another_commits_first() {
        let contention = registered(NotifyPolicy::WhenBusy);
        let first = contention.start(Tick::ZERO);
        assert_eq!((first.order, order(&contention, 0)), (NotifyOrder::Inside, NotifyOrder::AfterCommit));
        drop(first);
        assert_eq!(order(&contention, 0), NotifyOrder::Inside);
    }

    #[test]
    fn while_other_nodes_notify_updates_commit_first() {
        let contention = registered(NotifyPolicy::WhenBusy);
        contention.received();
        assert_eq!(order(&contention, 0), NotifyOrder::AfterCommit);
        assert_eq!(order(&contention, 99), NotifyOrder::AfterCommit);
        assert_eq!(order(&contention, 100), NotifyOrder::Inside);
        contention.received();
        contention.restart();
        assert_eq!(order(&contention, 101), NotifyOrder::Inside);
        assert_eq!(order(&registered(NotifyPolicy::AfterCommit), 0), NotifyOrder::AfterCommit);
    }

    #[test]
    fn a_node_without_a_row_notifies_inside() {
        let contention = Contention::new(NotifyPolicy::AfterCommit);
        assert_eq!(order(&contention, 0), NotifyOrder::Inside);
        contention.registered(Tick::ZERO.plus(Duration::from_secs(6)));
        assert_eq!(order(&contention, 5_999), NotifyOrder::AfterCommit);
        assert_eq!(order(&contention, 6_000), NotifyOrder::Inside);
        contention.registered(Tick::ZERO.plus(Duration::from_secs(12)));
        contention.unregistered();
        assert_eq!(order(&contention, 6_001), NotifyOrder::Inside);
    }
}
