//! The time of day, as an argument.
//!
//! Pure code takes `now: SystemTime`; the roles hold a [`Clock`] and are the only ones to read it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a role takes the time of day from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Copy, Debug, Default)]
enum Source {
    #[default]
    System,
    /// Goes as tokio's time goes, which tests can stop and wind on.
    #[cfg(test)]
    Tokio(tokio::time::Instant, SystemTime),
    /// Is set back all the time.
    #[cfg(test)]
    Stopped(SystemTime),
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that shows the system's time now and from now on goes as tokio's time goes.
    #[cfg(test)]
    pub(crate) fn tokio() -> Self {
        let now = Self::system().now();
        Self {
            source: Source::Tokio(tokio::time::Instant::now(), now),
        }
    }

    /// A clock that shows the system's time now, and no other.
    #[cfg(test)]
    pub(crate) fn stopped() -> Self {
        let now = Self::system().now();
        Self {
            source: Source::Stopped(now),
        }
    }

    /// The time of day now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system's clock"
    )]
    pub fn now(&self) -> SystemTime {
        match self.source {
            Source::System => SystemTime::now(),
            #[cfg(test)]
            Source::Tokio(since, then) => then + since.elapsed(),
            #[cfg(test)]
            Source::Stopped(now) => now,
        }
    }
}

/// Whole seconds since the Unix epoch; 0 for a time before it.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The time `seconds` after the Unix epoch, or `None` if the platform cannot represent it.
#[must_use]
pub fn from_unix_seconds(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
