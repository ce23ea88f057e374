//! Where tests reach into the library: guards that they take away, and points at which they stop it.
//!
//! A guard that can be removed without a test failing is not a guard. So each has a test that runs
//! with it, and a control that runs without it and must fail. Without the `testing` feature all of
//! this is an empty type.

/// A guard that a control run removes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(feature = "testing"), allow(dead_code, unreachable_pub))]
pub enum Guard {
    /// Loads install without looking at what was invalidated meanwhile.
    FillTicket = 1,
    /// Hits are served without looking at the trust window.
    TrustWindow = 2,
    /// After a reconnect, entries of the old epoch are served without having been looked at.
    Revalidation = 4,
    /// Hits are served without looking at the session's end.
    Expiry = 8,
    /// A failed combined statement is not split.
    Split = 16,
    /// The outcome of an own write enters the memory whatever was seen or received since it left.
    PublishOrder = 32,
    /// Every holder of a lock is given the same fence.
    Fence = 64,
    /// `delete_all_sessions` and `evict_all` leave the node's own entries as they are.
    Generation = 128,
    /// A stripe that runs out of places loses its oldest invalidation without a trace.
    Forgotten = 256,
    /// An index knows whether it lists a session, not how often.
    IndexCount = 512,
    /// A fill that the group's index refuses leaves its mark in the user's index.
    IndexRollback = 1_024,
    /// Rows of any server enter the memory, not only of the one that the last proof came from.
    ServerIdentity = 2_048,
    /// An update whose outcome is unknown is not notified again.
    Notices = 4_096,
    /// `everywhere()` relies on a registry that was emptied a moment ago.
    CompleteRegistry = 8_192,
    /// Any tick proves a node, also one without its beat.
    OwnBeat = 16_384,
    /// A session is remembered as ended whatever was received since its load began.
    EndedTicket = 32_768,
    /// `everywhere()` does not wait for what the nodes have handled.
    Acknowledgement = 65_536,
    /// The memory is not verified after a node has fallen silent.
    Silence = 131_072,
    /// What this node receives raises no doubt about pinned sessions.
    PinDoubt = 262_144,
    /// What this node receives ends the pins of the sessions that it names, without a lookup.
    PinLookup = 524_288,
    /// A hit that is older than the database counts as stale at once.
    ObserverBound = 1_048_576,
    /// A node says that it has lost its listener while its pins still rest on the last proof.
    LossAfterWindow = 2_097_152,
    /// A request of `everywhere()` is acknowledged while pins that were doubted before it are still looked up.
    HeardWhenSettled = 4_194_304,
    /// An update that moves a session to another group may commit before it notifies.
    MoveInside = 8_388_608,
    /// The node that ends a group leaves in memory what it knows under another group: only the statement names it.
    NamedForgets = 16_777_216,
}

/// A point at which a test can stop each task that reaches it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub))]
pub enum Point {
    /// A load has its rows and has not installed them.
    Loaded,
    /// An update has committed and has not been published.
    Committed,
    /// A create has committed and has not been published.
    Created,
    /// A rotation has committed and has not been published.
    Rotated,
    /// A verification of the memory has its rows and has not handed them on.
    Verified,
    /// A lookup of pinned sessions has its rows and has not handed them on.
    LookedUp,
    /// The task that applies notifications has searched the memory for users of ended sessions, but not this node's
    /// notes.
    Ending,
}

#[cfg(not(feature = "testing"))]
pub(crate) use silent::Probes;
#[cfg(feature = "testing")]
pub use testing::{Gate, Probes};

#[cfg(not(feature = "testing"))]
mod silent {
    use super::{Guard, Point};

    #[derive(Clone, Debug, Default)]
    pub(crate) struct Probes(());

    impl Probes {
        #[allow(clippy::unused_self, reason = "the testing variant has a state")]
        #[inline]
        pub(crate) fn holds(&self, _: Guard) -> bool {
            true
        }

        #[allow(
            clippy::unused_self,
            clippy::unused_async,
            reason = "the testing variant has a state and waits"
        )]
        #[inline]
        pub(crate) async fn reach(&self, _: Point) {}
    }
}

#[cfg(feature = "testing")]
mod testing {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use tokio::sync::watch;

    use super::{Guard, Point};

    /// The probes of one manager.
    #[derive(Clone, Debug, Default)]
    pub struct Probes(Arc<State>);

    #[derive(Debug, Default)]
    struct State {
        removed: AtomicU32,
        gates: Mutex<HashMap<Point, Gate>>,
    }

    /// A closed gate at a point. Opens once and stays open.
    #[derive(Clone, Debug)]
    pub struct Gate {
        arrived: Arc<watch::Sender<usize>>,
        open: Arc<watch::Sender<bool>>,
    }

    impl Probes {
        /// Takes a guard away, for a control run.
        pub fn remove(&self, guard: Guard) {
            self.0.removed.fetch_or(guard as u32, Ordering::SeqCst);
        }

        /// Puts it back.
        pub fn restore(&self, guard: Guard) {
            self.0.removed.fetch_and(!(guard as u32), Ordering::SeqCst);
        }

        /// Closes a gate at `point`; it replaces the one before, which stays as it is for the tasks that wait at it.
        #[must_use]
        pub fn close(&self, point: Point) -> Gate {
            let gate =
                Gate { arrived: Arc::new(watch::Sender::new(0)), open: Arc::new(watch::Sender::new(false)) };
            self.gates().insert(point, gate.clone());
            gate
        }

        pub(crate) fn holds(&self, guard: Guard) -> bool {
            self.0.removed.load(Ordering::SeqCst) & guard as u32 == 0
        }

        pub(crate) async fn reach(&self, point: Point) {
            let gate = self.gates().get(&point).cloned();
            if let Some(gate) = gate {
                gate.arrived.send_modify(|count| *count += 1);
                // An error means that the test dropped its gate: it will not be opened, so the caller does not wait.
                let _ = gate.open.subscribe().wait_for(|open| *open).await;
            }
        }

        fn gates(&self) -> std::sync::MutexGuard<'_, HashMap<Point, Gate>> {
            self.0.gates.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    impl Gate {
        /// Waits until `count` callers have come by since the gate was closed.
        pub async fn arrived(&self, count: usize) {
            let mut arrived = self.arrived.subscribe();
            // The sender is in `self`: it cannot be gone.
            let _ = arrived.wait_for(|&so_far| so_far >= count).await;
        }

        /// Lets all callers through, now and later.
        pub fn open(&self) {
            self.open.send_replace(true);
        }
    }
}
