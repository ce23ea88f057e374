//! The limits of a session that NIST SP 800-63B-4 recommends or requires.

use std::time::Duration;

use crate::config::Config;

const HOUR: Duration = Duration::from_secs(3_600);

/// An Authentication Assurance Level of NIST SP 800-63B-4, sections 2.1.3, 2.2.3 and 2.3.3. It
/// limits how long a session may live until its user has to authenticate again.
///
/// | level | absolute limit | idle limit |
/// |---|---|---|
/// | AAL1 | 30 days | none required |
/// | AAL2 | 24 hours | 1 hour |
/// | AAL3 | 12 hours | 15 minutes |
///
/// **A level requires more than these limits**: which authenticators are used is the application's part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum AssuranceLevel {
    /// Some assurance.
    Aal1,
    /// High confidence: two factors.
    Aal2,
    /// Very high confidence: a factor that cannot be exported.
    Aal3,
}

impl AssuranceLevel {
    /// The longest absolute limit.
    #[must_use]
    pub const fn absolute_timeout_max(self) -> Duration {
        match self {
            Self::Aal1 => Duration::from_secs(30 * 24 * 3_600),
            Self::Aal2 => Duration::from_secs(24 * 3_600),
            Self::Aal3 => Duration::from_secs(12 * 3_600),
        }
    }

    /// The longest idle limit. `None`: the level requires none.
    #[must_use]
    pub const fn idle_timeout_max(self) -> Option<Duration> {
        match self {
            Self::Aal1 => None,
            Self::Aal2 => Some(HOUR),
            Self::Aal3 => Some(Duration::from_secs(15 * 60)),
        }
    }
}

impl Config {
    /// Lowers `absolute_timeout` and `idle_timeout` to the limits of the level, and `last_access_flush_interval` to what they
    /// need. Lower values stay.
    ///
    /// ```
    /// use pg_session::{AssuranceLevel, Config};
    ///
    /// let config = Config::default().assurance(AssuranceLevel::Aal2);
    /// assert_eq!(config.absolute_timeout.as_secs(), 24 * 3_600);
    /// assert_eq!(config.idle_timeout.as_secs(), 3_600);
    /// config.validate()?;
    /// # Ok::<(), pg_session::Error>(())
    /// ```
    #[must_use]
    pub fn assurance(mut self, level: AssuranceLevel) -> Self {
        self.absolute_timeout = self.absolute_timeout.min(level.absolute_timeout_max());
        self.idle_timeout = self.idle_timeout.min(level.idle_timeout_max().unwrap_or(Duration::MAX));
        self.last_access_flush_interval = self.last_access_flush_interval.min(self.idle_timeout / 4);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_lowers_the_limits_and_raises_none() {
        let minutes = |level| {
            let config = Config::default().assurance(level);
            config.validate().unwrap();
            (config.absolute_timeout.as_secs() / 60, config.idle_timeout.as_secs() / 60)
        };
        assert_eq!(minutes(AssuranceLevel::Aal1), (43_200, 2_880));
        assert_eq!(minutes(AssuranceLevel::Aal2), (1_440, 60));
        assert_eq!(minutes(AssuranceLevel::Aal3), (720, 15));
        let strict = Config::default().assurance(AssuranceLevel::Aal3);
        assert_eq!(strict.clone().assurance(AssuranceLevel::Aal2), strict);
    }
}
