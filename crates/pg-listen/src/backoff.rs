//! How long to wait before the next attempt to connect: exponential, with full jitter.
//!
//! A restart of PostgreSQL disconnects all nodes at once. Full jitter, a uniform choice from zero
//! to the ceiling, spreads them. A fixed part would keep them together.

use std::time::Duration;

use uuid::Uuid;

/// The limits of the wait between two attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) min: Duration,
    /// The ceiling of every wait.
    pub(crate) max: Duration,
}

impl Backoff {
    /// The wait after `failures` attempts in a row that led to nothing (0 after a connection that was in
    /// sync).
    pub(crate) fn delay(self, failures: u32) -> Duration {
        self.jittered(failures, random_fraction())
    }

    fn jittered(self, failures: u32, fraction: f64) -> Duration {
        debug_assert!((0.0..1.0).contains(&fraction));
        self.ceiling(failures).mul_f64(fraction)
    }

    fn ceiling(self, failures: u32) -> Duration {
        let factor = 2_u32.checked_pow(failures).unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max)
    }
}

/// Uniform in `0.0..1.0`, from 32 bits of a random UUID that hold neither its version nor its variant.
fn random_fraction() -> f64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    f64::from(u32::try_from(high >> 32).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_secs(5) };

    #[test]
    fn ceiling_doubles_up_to_the_maximum_and_never_overflows() {
        let ceilings: Vec<u128> = (0..9).map(|failures| BACKOFF.ceiling(failures).as_millis()).collect();
        assert_eq!(ceilings, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(BACKOFF.ceiling(u32::MAX), BACKOFF.max);
    }

    #[test]
    fn jitter_reaches_from_zero_to_the_ceiling() {
        assert_eq!(BACKOFF.jittered(3, 0.0), Duration::ZERO);
        assert_eq!(BACKOFF.jittered(3, 0.5), Duration::from_millis(200));
        assert!(BACKOFF.jittered(3, 0.999) < Duration::from_millis(400));
    }

    #[test]
    fn waits_of_many_nodes_are_spread() {
        let delays: Vec<Duration> = (0..1_000).map(|_| BACKOFF.delay(7)).collect();
        assert!(delays.iter().all(|delay| *delay < BACKOFF.max));
        for tenth in 0..10 {
            let range = BACKOFF.max.mul_f64(f64::from(tenth) / 10.0)
                ..BACKOFF.max.mul_f64(f64::from(tenth + 1) / 10.0);
            let share = delays.iter().filter(|delay| range.contains(delay)).count();
            assert!((30..300).contains(&share), "{share} of 1000 in {range:?}");
        }
    }
}
