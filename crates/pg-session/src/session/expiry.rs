//! When a session ends by itself: the absolute limit, the idle limit, and the bookkeeping of last access.
//!
//! Every node judges the idle limit by the last access *that the database knows*. So no node serves
//! a session that the database already calls expired. A node therefore has to tell the database in
//! time:
//!
//! - an access is [`Touch::Later`] while the confirmed one is younger than half the idle limit: the regular flush,
//!   at most a quarter of the idle limit away (`Config` checks that), comes early enough;
//! - otherwise it is [`Touch::Now`], and the flush leaves at once.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::DbTime;

/// Whether a session ends after `idle_timeout` without access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdleLimit {
    /// The session ends `idle_timeout` after its last access, or at its absolute limit if that comes first.
    #[default]
    Enforced,
    /// Only the absolute limit ends the session.
    Exempt,
}

/// When an attribute that is being set expires.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lifetime {
    Session,
    Until(DbTime),
    For(Duration),
}

impl Lifetime {
    /// The instant on the database's clock, given what that clock shows at the latest. As
    /// PostgreSQL keeps it. The node that sets an attribute shows the same end as those that read
    /// it.
    pub(crate) fn resolve(self, now: DbTime) -> DbTime {
        match self {
            Self::Session => DbTime::NEVER,
            Self::Until(time) => time.as_stored(),
            Self::For(duration) => now.plus(duration).as_stored(),
        }
    }
}

/// What a touch asks of its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    /// Too close to the one before, or recorded: nothing to do.
    Nothing,
    /// First access since the last flush: to be flushed at the next interval.
    Later,
    /// First access since the last flush, and the database's idea of the last access is old: flush now.
    Now,
}

/// The last access, as this node knows it and as the database has confirmed it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Access {
    pub(super) last: AtomicI64,
    confirmed: AtomicI64,
}

/// Whether an access waits to be flushed. Not in [`Access`], which every hit looks at, and which is to be small.
#[derive(Debug, Default)]
pub(crate) struct Unflushed(AtomicBool);

impl Access {
    pub(crate) fn new(confirmed: DbTime) -> Self {
        Self { last: AtomicI64::new(confirmed.nanos()), confirmed: AtomicI64::new(confirmed.nanos()) }
    }

    pub(crate) fn last(&self) -> DbTime {
        DbTime::from_nanos(self.last.load(Ordering::Relaxed))
    }

    pub(crate) fn confirmed(&self) -> DbTime {
        DbTime::from_nanos(self.confirmed.load(Ordering::Relaxed))
    }

    /// Takes over what an older record of the same session knew. Times only move forward.
    pub(crate) fn inherit(&self, older: &Access) {
        self.last.fetch_max(older.last.load(Ordering::Relaxed), Ordering::Relaxed);
        self.confirmed.fetch_max(older.confirmed.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The database now holds `confirmed` as the last access.
    pub(crate) fn confirm(&self, confirmed: DbTime) {
        self.confirmed.fetch_max(confirmed.nanos(), Ordering::Relaxed);
        self.last.fetch_max(confirmed.nanos(), Ordering::Relaxed);
    }

    /// Whether an access at `now` is one with that before it: less than `step` ago.
    #[inline]
    pub(crate) fn is_recent(&self, now: DbTime, step: Duration) -> bool {
        now < self.last().plus(step)
    }

    /// Records an access at `now`. `urgent_after` is how old the confirmed access may be before the flush must not wait: half
    /// the idle limit, or `None` for a session without one.
    pub(crate) fn touch(&self, unflushed: &Unflushed, now: DbTime, urgent_after: Option<Duration>) -> Touch {
        self.last.fetch_max(now.nanos(), Ordering::Relaxed);
        // Acquire pairs with `take`'s release. The flusher that clears the flag reads `last` after
        // it. So an access that finds the flag still set was stored early enough for that flush.
        if unflushed.0.swap(true, Ordering::AcqRel) {
            return Touch::Nothing;
        }
        match urgent_after {
            Some(limit) if now > self.confirmed().plus(limit) => Touch::Now,
            _ => Touch::Later,
        }
    }

    /// The access to flush. From here on a touch asks to be flushed again.
    pub(crate) fn take(&self, unflushed: &Unflushed) -> DbTime {
        unflushed.0.swap(false, Ordering::AcqRel);
        self.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(hours: u32) -> DbTime {
        DbTime::EPOCH.plus(HOUR * hours)
    }

    #[test]
    fn the_last_access_never_moves_backwards() {
        let unflushed = Unflushed::default();
        let access = Access::new(at(5));
        access.touch(&unflushed, at(4), None);
        assert_eq!(access.last(), at(5));
        access.confirm(at(3));
        assert_eq!((access.last(), access.confirmed()), (at(5), at(5)));
        let newer = Access::new(at(2));
        newer.inherit(&access);
        assert_eq!((newer.last(), newer.confirmed()), (at(5), at(5)));
    }

    #[test]
    fn an_access_is_urgent_only_past_half_the_idle_limit() {
        let unflushed = Unflushed::default();
        let access = Access::new(at(0));
        assert_eq!(access.touch(&unflushed, at(24), Some(HOUR * 24)), Touch::Later);
        access.take(&unflushed);
        assert_eq!(access.touch(&unflushed, at(25), Some(HOUR * 24)), Touch::Now);
        access.take(&unflushed);
        access.confirm(at(25));
        assert_eq!(access.touch(&unflushed, at(26), Some(HOUR * 24)), Touch::Later);
        access.take(&unflushed);
        assert_eq!(access.touch(&unflushed, at(99), None), Touch::Later);
    }

    #[test]
    fn pending_access_is_queued_once_and_latest_is_flushed() {
        let unflushed = Unflushed::default();
        let access = Access::new(at(0));
        assert_eq!(access.touch(&unflushed, at(1), None), Touch::Later);
        assert_eq!(access.touch(&unflushed, at(2), None), Touch::Nothing);
        assert_eq!(access.take(&unflushed), at(2));
        assert_eq!(access.touch(&unflushed, at(3), None), Touch::Later);
    }

    #[test]
    fn accesses_within_a_step_are_one() {
        let (access, step) = (Access::new(at(1)), Duration::from_secs(1));
        assert!(access.is_recent(at(1).plus(Duration::from_millis(999)), step));
        assert!(!access.is_recent(at(1).plus(step), step));
    }
}
