//! Time: the node's monotonic clock, and what it knows of the database's clock.
//!
//! The database's clock decides when something expires. A node compares without asking by keeping
//! an upper bound of the difference between the two clocks: [`Clock::database_now`] is never behind
//! the database. So a node calls a session expired at most a round trip too early, and then asks
//! the database. It is never too late.
//!
//! This is the only file that reads a clock. It does not decide anything about sessions.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds on this node's monotonic clock, since the clock was made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Tick(u64);

impl Tick {
    pub(crate) const ZERO: Tick = Tick(0);

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) fn nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }
}

/// An instant on the database's clock: nanoseconds since the Unix epoch, of which PostgreSQL keeps microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DbTime(i64);

impl DbTime {
    /// Later than anything: "does not expire".
    pub(crate) const NEVER: DbTime = DbTime(i64::MAX);
    #[cfg(any(test, feature = "testing"))]
    pub(crate) const EPOCH: DbTime = DbTime(0);

    pub(crate) fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    pub(crate) fn nanos(self) -> i64 {
        self.0
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos_of(duration)))
    }

    /// As PostgreSQL keeps it: in whole microseconds, cut off. "Never" stays.
    pub(crate) fn as_stored(self) -> Self {
        if self == Self::NEVER { self } else { Self(self.0 - self.0.rem_euclid(1_000)) }
    }

    /// How long after `earlier` this is; zero if it is not.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn nanos_of(duration: Duration) -> i64 {
    i64::try_from(nanoseconds(duration)).unwrap_or(i64::MAX)
}

/// 584 years fit. `Duration::as_nanos` is arithmetic of 128 bits, which a hit can do without.
#[inline]
fn nanoseconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

/// Saturates at the years 1677 and 2262, which `Config` and the migrations keep out of reach.
impl From<SystemTime> for DbTime {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(nanos_of(since)),
            Err(before) => Self(nanos_of(before.duration()).saturating_neg()),
        }
    }
}

impl From<DbTime> for SystemTime {
    fn from(time: DbTime) -> Self {
        let distance = Duration::from_nanos(time.0.unsigned_abs());
        if time.0 < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
    }
}

impl fmt::Debug for DbTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NEVER => f.write_str("never"),
            time => write!(f, "{:?}", SystemTime::from(time)),
        }
    }
}

/// The machine's wall clock, for what is stamped and not decided by the database: the times inside tokens.
#[allow(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub(crate) fn wall_now() -> SystemTime {
    SystemTime::now()
}

/// How far two crystal oscillators may drift apart: 200 parts per million, twice what common hardware does.
const DRIFT_PER_MILLION: u64 = 200;
/// PostgreSQL cuts its clock to whole microseconds, so a reading may be this much behind.
const READING_NANOS: i64 = 1_000;

/// The node's clock and its bounds of the database's.
pub(crate) struct Clock {
    source: Source,
    bounds: Mutex<Option<Bounds>>,
    /// The upper bound of `database - node`, in nanoseconds, for readers.
    ahead: AtomicI64,
}

enum Source {
    Monotonic {
        anchor: Reading,
    },
    /// Moves only when a test says so.
    #[cfg_attr(not(feature = "testing"), allow(dead_code))]
    Manual {
        nanos: std::sync::Arc<AtomicU64>,
    },
}

/// The machine's monotonic clock, as it was read.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
type Reading = std::time::Instant;

/// The machine's monotonic clock, as it was read: `CLOCK_BOOTTIME`, which goes on while the machine is suspended. `Instant` does
/// not. After a suspension it would give a node the rest of its trust window, for what was revoked meanwhile.
#[cfg(any(target_os = "linux", target_os = "android"))]
struct Reading(rustix::time::Timespec);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Reading {
    #[inline]
    fn now() -> Self {
        Self(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
    }

    #[inline]
    fn elapsed(&self) -> Duration {
        use rustix::time::Timespec;
        let Timespec { tv_sec, tv_nsec } = Self::now().0 - self.0;
        // The clock does not go backwards, and a second has fewer nanoseconds than this type holds.
        Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_nsec).unwrap_or(0))
    }
}

/// `database - node` lies between `low` and `high`, as learned at `at`.
#[derive(Clone, Copy)]
struct Bounds {
    low: i64,
    high: i64,
    at: Tick,
}

impl Clock {
    /// Reads the machine's monotonic clock. Until the first [`observe`](Clock::observe) the node's wall clock
    /// represents the database's.
    #[allow(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn monotonic() -> Self {
        let wall = DbTime::from(SystemTime::now());
        Self::new(Source::Monotonic { anchor: Reading::now() }, wall)
    }

    #[cfg(feature = "testing")]
    pub(crate) fn manual(nanos: std::sync::Arc<AtomicU64>) -> Self {
        Self::new(Source::Manual { nanos }, DbTime::EPOCH)
    }

    fn new(source: Source, wall: DbTime) -> Self {
        let clock = Self { source, bounds: Mutex::new(None), ahead: AtomicI64::new(0) };
        clock.ahead.store(wall.nanos().saturating_sub(signed(clock.now())), Ordering::Relaxed);
        clock
    }

    /// The monotonic clock, read now. A clock kept by a task would be cheaper. It would pause in a
    /// paused or starved process, exactly when trust must run out.
    #[inline]
    #[allow(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn now(&self) -> Tick {
        match &self.source {
            Source::Monotonic { anchor } => Tick(nanoseconds(anchor.elapsed())),
            Source::Manual { nanos } => Tick(nanos.load(Ordering::SeqCst)),
        }
    }

    /// The latest that the database's clock can be at `tick`.
    #[inline]
    pub(crate) fn database_at(&self, tick: Tick) -> DbTime {
        DbTime(signed(tick).saturating_add(self.ahead.load(Ordering::Relaxed)))
    }

    /// The latest that the database's clock can be now.
    #[inline]
    pub(crate) fn database_now(&self) -> DbTime {
        self.database_at(self.now())
    }

    /// Learns from a statement sent at `sent` and answered by `received`, which read `reading` from the database's
    /// clock (Cristian's algorithm; readings are intersected as in Marzullo's). A reading that contradicts the bounds
    /// means that a clock was stepped: the newest reading wins.
    pub(crate) fn observe(&self, sent: Tick, received: Tick, reading: DbTime) {
        let low = reading.nanos().saturating_sub(signed(received));
        let high = reading.nanos().saturating_add(READING_NANOS).saturating_sub(signed(sent));
        let mut bounds = self.bounds.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let learned = match *bounds {
            Some(known) => {
                let drift = self.drift(received.0.saturating_sub(known.at.0));
                let both = Bounds {
                    low: low.max(known.low.saturating_sub(drift)),
                    high: high.min(known.high.saturating_add(drift)),
                    at: received,
                };
                if both.low <= both.high { both } else { Bounds { low, high, at: received } }
            }
            None => Bounds { low, high, at: received },
        };
        self.ahead.store(learned.high, Ordering::Relaxed);
        *bounds = Some(learned);
    }

    /// How far the two clocks may have drifted apart in so many nanoseconds.
    fn drift(&self, passed: u64) -> i64 {
        match self.source {
            Source::Monotonic { .. } => {
                i64::try_from(passed / 1_000_000 * DRIFT_PER_MILLION).unwrap_or(i64::MAX)
            }
            // A test moves both. A beat on its way meanwhile must not widen the bounds.
            Source::Manual { .. } => 0,
        }
    }
}

fn signed(tick: Tick) -> i64 {
    i64::try_from(tick.0).unwrap_or(i64::MAX)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("database_now", &self.database_now()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const MS: u64 = 1_000_000;

    fn clock() -> (Clock, Arc<AtomicU64>) {
        let nanos = Arc::new(AtomicU64::new(0));
        let source = Source::Manual { nanos: Arc::clone(&nanos) };
        (Clock::new(source, DbTime::EPOCH), nanos)
    }

    fn ms(number: u64) -> Tick {
        Tick(number * MS)
    }

    fn db(number: i64) -> DbTime {
        DbTime(number * 1_000_000)
    }

    #[test]
    fn a_time_is_as_postgresql_keeps_it() {
        let stored = |nanos| DbTime(nanos).as_stored();
        assert_eq!(
            [stored(1_999), stored(2_000), stored(2_001)],
            [DbTime(1_000), DbTime(2_000), DbTime(2_000)]
        );
        assert_eq!(stored(-1), DbTime(-1_000));
        assert_eq!(DbTime::NEVER.as_stored(), DbTime::NEVER);
    }

    #[test]
    fn the_database_is_never_believed_to_be_behind_where_it_is() {
        let (clock, _) = clock();
        // Sent at 10 ms, answered at 30 ms; the database read 1 000 ms somewhere between.
        clock.observe(ms(10), ms(30), db(1_000));
        // At the earliest it read at 10 ms, so at 30 ms it may be at 1 020 ms.
        assert_eq!(clock.database_at(ms(30)), DbTime(1_020 * 1_000_000 + READING_NANOS));
    }

    #[test]
    fn a_slow_answer_does_not_widen_what_a_quick_one_taught() {
        let (clock, _) = clock();
        clock.observe(ms(10), ms(11), db(1_000));
        let tight = clock.database_at(ms(2_000));
        clock.observe(ms(12), ms(1_012), db(1_500));
        let after = clock.database_at(ms(2_000));
        assert!(after.nanos() - tight.nanos() < 1_000_000, "{tight:?} {after:?}");
    }

    #[test]
    fn a_step_of_either_clock_is_followed_at_once() {
        let (clock, _) = clock();
        clock.observe(ms(10), ms(11), db(1_000));
        clock.observe(ms(20), ms(21), db(3_600_000));
        assert!(clock.database_at(ms(21)) >= db(3_600_000));
        clock.observe(ms(30), ms(31), db(2_000));
        assert!(clock.database_at(ms(31)) < db(2_003));
    }

    /// A time namespace moves `CLOCK_BOOTTIME` alone, as a suspension does.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_clock_counts_the_time_of_a_suspension() {
        use rustix::time::{ClockId, clock_gettime};
        if std::env::var_os("IN_A_TIME_NAMESPACE").is_some() {
            let Reading(time) = Reading::now();
            let awake = clock_gettime(ClockId::Monotonic);
            assert!((time - awake).tv_sec >= 3_599, "{time:?} {awake:?}");
            return println!("the clock has moved");
        }
        let namespace = ["--user", "--map-root-user", "--time", "--boottime", "3600", "--fork"];
        let inside = |program: &std::ffi::OsStr, arguments: &[&str]| {
            let mut command = std::process::Command::new("unshare");
            command.args(namespace).arg(program).args(arguments).env("IN_A_TIME_NAMESPACE", "1");
            command.output()
        };
        if !inside("true".as_ref(), &[]).is_ok_and(|output| output.status.success()) {
            return println!("SKIPPED: this machine makes no time namespace");
        }
        let name = "clock::tests::the_clock_counts_the_time_of_a_suspension";
        let program = std::env::current_exe().unwrap();
        let output = inside(program.as_os_str(), &["--exact", name, "--nocapture"]).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("the clock has moved"), "{text}");
    }

    #[test]
    fn times_survive_the_round_trip() {
        for nanos in [0, 1_000, -1_000, 1_790_000_000_123_456_000, i64::MIN + 1] {
            assert_eq!(DbTime::from(SystemTime::from(DbTime(nanos))), DbTime(nanos));
        }
    }
}
