//! How slowly a body may come: what holds a place by coming has to go on coming.
//!
//! A body may fall behind its least rate by so much time, and what comes faster earns no more than
//! that: whoever has sent a lot may not rest for longer than who has sent nothing.

use std::time::Duration;

use tokio::time::Instant;

/// The least rate of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeastRate {
    /// Bytes in a second; 0 for none.
    pub(crate) bytes_per_s: u32,
    /// How far it may fall behind that.
    pub(crate) behind: Duration,
}

/// How one body keeps up with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    rate: LeastRate,
    /// When it has fallen behind, if nothing comes until then; nothing without a rate.
    until: Option<Instant>,
}

impl Pace {
    /// Of a body that begins now.
    pub(crate) fn begin(rate: LeastRate, now: Instant) -> Self {
        let until = (rate.bytes_per_s > 0).then(|| now.checked_add(rate.behind));
        Self {
            rate,
            until: until.flatten(),
        }
    }

    /// Takes in that so many bytes of it have come.
    pub(crate) fn came(&mut self, bytes: usize, now: Instant) {
        let (Some(until), Some(latest)) = (self.until, now.checked_add(self.rate.behind)) else {
            return;
        };
        let nanos = u128::try_from(bytes)
            .unwrap_or(u128::MAX)
            .saturating_mul(1_000_000_000)
            .checked_div(self.rate.bytes_per_s.into())
            .and_then(|nanos| u64::try_from(nanos).ok());
        let earned = Duration::from_nanos(nanos.unwrap_or(u64::MAX));
        let later = until.checked_add(earned);
        self.until = Some(later.map_or(latest, |later| later.min(latest)));
    }

    /// When it is too slow, if nothing comes until then.
    pub(crate) fn too_slow_at(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until, timeout};

    use super::*;

    const RATE: LeastRate = LeastRate {
        bytes_per_s: 1024,
        behind: Duration::from_secs(10),
    };

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// Its name, its least rate, what it sends after each rest, and when it is too slow.
    type Case = (
        &'static str,
        LeastRate,
        &'static [usize],
        Duration,
        Option<Duration>,
    );

    /// After how long a body is too slow that sends `bytes` after each `rest`, or `None` if it is not
    /// within an hour.
    async fn ends(rate: LeastRate, bytes: &[usize], rest: Duration) -> Option<Duration> {
        let begun = Instant::now();
        let mut pace = Pace::begin(rate, begun);
        for bytes in bytes.iter().cycle() {
            let too_slow = pace.too_slow_at()?;
            if timeout(rest, sleep_until(too_slow)).await.is_ok() {
                return Some(begun.elapsed());
            }
            pace.came(*bytes, Instant::now());
            if begun.elapsed() > s(3600) {
                return None;
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_too_slow_once_it_is_so_far_behind() {
        let off = LeastRate {
            bytes_per_s: 0,
            ..RATE
        };
        let cases: [Case; 9] = [
            ("steady at the rate", RATE, &[1024], s(1), None),
            ("faster", RATE, &[1 << 20], s(1), None),
            ("in bursts at the rate", RATE, &[9 * 1024], s(9), None),
            ("half the rate", RATE, &[512], s(1), Some(s(19))),
            ("a byte each second", RATE, &[1], s(1), Some(s(10))),
            ("nothing at all", RATE, &[0], s(1), Some(s(10))),
            (
                "a burst, and a longer rest",
                RATE,
                &[1 << 20],
                s(11),
                Some(s(10)),
            ),
            (
                "a long stall after much",
                RATE,
                &[1 << 20, 0],
                s(6),
                Some(s(16)),
            ),
            ("no rate", off, &[0], s(1), None),
        ];
        for (name, rate, bytes, rest, expected) in cases {
            let found = ends(rate, bytes, rest).await;
            // A tick of the timer's is a millisecond.
            let found = found.map(|found| s(found.as_secs()));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_at_their_ends_do_no_harm() {
        for (bytes_per_s, behind) in [(1, Duration::MAX), (u32::MAX, Duration::ZERO)] {
            let rate = LeastRate {
                bytes_per_s,
                behind,
            };
            let mut pace = Pace::begin(rate, Instant::now());
            for bytes in [0, 1, usize::MAX] {
                advance(s(1)).await;
                pace.came(bytes, Instant::now());
            }
            assert_eq!(pace.too_slow_at().is_none(), behind == Duration::MAX);
        }
    }
}
