//! What was seen during a search: a model in which nothing happens keeps every promise.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that the promises are about, or a guard at work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// A read was answered from memory.
    Hit,
    /// A read joined a load in flight.
    Join,
    /// A load found that the session has ended.
    None,
    Install,
    /// A load or an update that the loss of the connection has overtaken was put into memory, unverified.
    InstallAfterLoss,
    Refusal,
    /// An update was put into memory.
    Publish,
    /// An update was not, because something came between.
    LatePublish,
    /// An update was overtaken between what it was made from and the lock.
    Moved,
    NotFound,
    Trusted,
    /// After a loss.
    TrustedAgain,
    /// An entry of an earlier epoch was verified, or dropped.
    Verified,
    Outdated,
    /// What was in memory was not served, or what a load brought not given to a reader, because it had ended.
    EndedInMemory,
    EndedAboard,
    /// A process notified of an update that was visible before.
    LateNotice,
    /// A process ended between its commit and its notification.
    GapEnd,
    /// A node notified of an update whose outcome is unknown.
    NoticeAgain,
    /// The silence of a node that ended was noticed.
    Silence,
    /// An update was committed whose caller had given up.
    CommitAlone,
}

const ALL: [Seen; 21] = [
    Seen::Hit,
    Seen::Join,
    Seen::None,
    Seen::Install,
    Seen::InstallAfterLoss,
    Seen::Refusal,
    Seen::Publish,
    Seen::LatePublish,
    Seen::Moved,
    Seen::NotFound,
    Seen::Trusted,
    Seen::TrustedAgain,
    Seen::Verified,
    Seen::Outdated,
    Seen::EndedInMemory,
    Seen::EndedAboard,
    Seen::LateNotice,
    Seen::GapEnd,
    Seen::NoticeAgain,
    Seen::Silence,
    Seen::CommitAlone,
];

/// How often each was seen. Beside the states, not in them: there it would multiply them.
#[derive(Default)]
pub struct Tally([AtomicU64; ALL.len()]);

impl Tally {
    pub(crate) fn add(&self, seen: Seen) {
        self.0[seen as usize].fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn count(&self, seen: Seen) -> u64 {
        self.0[seen as usize].load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(ALL.iter().map(|&seen| (seen, self.count(seen)))).finish()
    }
}
