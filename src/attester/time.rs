//! A clock that never goes back.
//!
//! A clock that is set back would make old requests acceptable again after their claims were
//! forgotten (docs/wire.md, "Request").

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use crate::clock::{Clock, from_unix_seconds, unix_seconds};

/// The larger of the system's time and the largest seen, in whole seconds.
#[derive(Debug)]
pub(crate) struct SteadyClock {
    clock: Clock,
    largest: AtomicU64,
}

impl SteadyClock {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            largest: AtomicU64::new(0),
        }
    }

    /// Seconds since the Unix epoch; never less than any earlier answer.
    pub(crate) fn unix_now(&self) -> u64 {
        self.at_least(unix_seconds(self.clock.now()))
    }

    pub(crate) fn now(&self) -> SystemTime {
        from_unix_seconds(self.unix_now()).unwrap_or_else(|| self.clock.now())
    }

    fn at_least(&self, system: u64) -> u64 {
        self.largest
            .fetch_max(system, Ordering::Relaxed)
            .max(system)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_stands_still() {
        let clock = SteadyClock::new(Clock::system());
        let seen: Vec<u64> = [100, 99, 0, 101, 100].map(|t| clock.at_least(t)).to_vec();
        assert_eq!(seen, [100, 100, 100, 101, 101]);
    }

    #[test]
    fn the_time_is_the_systems() {
        let clock = SteadyClock::new(Clock::system());
        let system = unix_seconds(Clock::system().now());
        assert!(clock.unix_now().abs_diff(system) <= 1);
        assert_eq!(unix_seconds(clock.now()), clock.unix_now());
    }
}
