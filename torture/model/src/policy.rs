//! What a search explores: its bounds, and the protocol with or without its guards.

use std::sync::Arc;

use crate::guard::Guard;
use crate::tally::Tally;
use crate::version::Version;

/// How the session ends, and what is notified.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ending {
    /// By its id.
    Session,
    /// With all sessions of its user, or of its group.
    Owner,
    /// With all sessions of a group. The first update moves the session there, so a node that holds the first version does
    /// not find it by that group.
    NewGroup,
    /// With all sessions.
    All,
    /// By itself, on the database's clock. No node is notified.
    Expiry,
}

/// The writes that commit first and notify then. All others notify with their commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Apart {
    Nothing,
    Updates,
    /// Of elsewhere.
    Deletes,
}

/// What may happen, and how often, so that there is an end to it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Nodes with all three lanes.
    pub nodes: usize,
    /// Whether there is one more node, of which only the commits matter.
    pub elsewhere: bool,
    /// Updates, by any client.
    pub updates: u8,
    /// How the session may end, once: deleted by any client, or by itself.
    pub ending: Option<Ending>,
    /// Whether the outcome of an update may stay unknown to its node.
    pub unknown: bool,
    /// Whether the caller of an update that commits first may give up before it ends.
    pub gives_up: bool,
    /// Which writes commit first and notify then.
    pub apart: Apart,
    /// Whether a client deletes the session again and gets the answer that there is none.
    pub again: bool,
    /// Whether the node elsewhere may end while it owes a notification.
    pub death: bool,
    /// Connections that may break.
    pub disconnects: u8,
    /// The trust window, in ticks; time has no bound.
    pub window: u8,
    /// Whether what a lane does without a wait is one step.
    pub coarse: bool,
}

/// A protocol: its bounds, the guards that are removed, and what the search has seen.
#[derive(Clone, Debug)]
pub struct Policy {
    pub bounds: Bounds,
    pub removed: &'static [Guard],
    pub tally: Arc<Tally>,
}

impl Policy {
    #[must_use]
    pub fn new(bounds: Bounds, removed: &'static [Guard]) -> Self {
        Self { bounds, removed, tally: Arc::default() }
    }

    /// Whether the update that commits `version` commits first and notifies then.
    pub(crate) fn commits_first(&self, version: Version) -> bool {
        let moves = self.bounds.ending == Some(Ending::NewGroup) && version == Version::FIRST.next();
        self.bounds.apart == Apart::Updates && !(moves && self.holds(Guard::MoveInside))
    }

    pub(crate) fn holds(&self, guard: Guard) -> bool {
        !self.removed.contains(&guard)
    }
}
