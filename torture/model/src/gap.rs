//! Commit, then notify: `postgres/update_call.rs` and `writer/notices.rs`, step by step.
//!
//! ```text
//! server  UPDATE ── COMMIT ── gap ── NOTIFY ──────────────────────▶ answer
//!           │                  └── the process ends ──▶ owed ── NOTIFY again
//!           └── its caller gives up: owed, and it may still commit
//! ```
//!
//! Only the writes of [`Apart`] have the gap. All others notify with their commit.
//!
//! [`Apart`]: crate::policy::Apart

use arrayvec::ArrayVec;

use crate::guard::Guard;
use crate::policy::Policy;
use crate::version::Version;

/// One process for each node, one elsewhere and one whose caller has given up.
const GAPS_MAX: usize = 4;

/// Whose statement it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Caller {
    Node(usize),
    Elsewhere,
    /// It has given up.
    None,
}

/// A server process that has committed and has not notified.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Gap {
    pub(crate) version: Version,
    pub(crate) caller: Caller,
}

/// What is between a commit and its notification.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Gaps {
    pub(crate) open: ArrayVec<Gap, GAPS_MAX>,
    /// The base of a statement whose caller has given up. It has the row's lock and may still commit.
    pub(crate) stuck: Option<Version>,
    /// A caller has given up: once, or notifications without an effect would have no end.
    pub(crate) given_up: bool,
    /// What the node elsewhere has to notify again.
    pub(crate) owed: Option<Version>,
    /// The node elsewhere has ended, and what it owed is lost.
    pub(crate) died: bool,
}

impl Gaps {
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.open.iter().any(|gap| gap.caller == Caller::Elsewhere)
    }

    pub(crate) fn add(&mut self, version: Version, caller: Caller) {
        self.open.push(Gap { version, caller });
    }

    /// The caller of the process does not wait for it any more.
    pub(crate) fn abandon(&mut self, caller: Caller) {
        for gap in &mut self.open {
            if gap.caller == caller {
                gap.caller = Caller::None;
            }
        }
    }

    /// Whether what is owed may be notified. While its row is locked, the notification settles nothing.
    pub(crate) fn may_settle(&self, policy: &Policy) -> bool {
        policy.holds(Guard::NotifyAgain) && (self.stuck.is_none() || !policy.holds(Guard::RowFree))
    }

    pub(crate) fn owe(&mut self, version: Version) {
        self.owed = self.owed.max(Some(version));
    }
}
