//! The machine's clocks, as nanoseconds that processes can compare: CLOCK_MONOTONIC is one clock for all of them.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds on the machine's monotonic clock, or a length of time in the same unit.
pub type Nanos = u64;

/// The machine's monotonic clock.
pub fn now() -> Nanos {
    read(ClockId::CLOCK_MONOTONIC)
}

/// The machine's wall clock, which is also the database's, in nanoseconds since the epoch.
pub fn wall() -> Nanos {
    read(ClockId::CLOCK_REALTIME)
}

fn read(clock: ClockId) -> Nanos {
    #[allow(
        clippy::expect_used,
        reason = "Linux has both clocks, and without them there is nothing to measure"
    )]
    let time = clock_gettime(clock).expect("the machine has this clock");
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec()) * 1_000_000_000 + part(time.tv_nsec())
}

pub fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub fn millis(nanos: Nanos) -> f64 {
    nanos as f64 / 1e6
}
