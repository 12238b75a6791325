//! What happened in the last minute, by two windows.
//!
//! The minutes are those of the clock. Of the minute before, so much counts as would if it had been even:
//! at 20 seconds past, two thirds. So in any 60 seconds there is never more than twice the bound, and in n
//! minutes on end never more than n + 1 times.

use std::time::{Duration, SystemTime};

/// Milliseconds of a minute.
const MINUTE: u64 = 60_000;

/// Two minutes' counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::gateway) struct Minutes {
    /// Minutes since the Unix epoch.
    pub(super) n: u64,
    pub(super) now: u64,
    pub(super) before: u64,
}

/// A minute, and how many milliseconds of it are over.
pub(super) fn minute(time: SystemTime) -> (u64, u64) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    (millis / MINUTE, millis % MINUTE)
}

impl Minutes {
    /// The same counts as they stand in the minute `n`. What a clock that was set back, or another gateway's
    /// that is ahead, counted later counts as of now.
    pub(super) fn at(self, n: u64) -> Self {
        match n.checked_sub(self.n) {
            None => Self { n, ..self },
            Some(0) => self,
            Some(1) => Self {
                n,
                now: 0,
                before: self.now,
            },
            Some(_) => Self {
                n,
                ..Self::default()
            },
        }
    }

    /// Both together, as of the minute that is now.
    pub(super) fn and(self, other: Self, time: SystemTime) -> Self {
        let n = minute(time).0;
        let (one, two) = (self.at(n), other.at(n));
        Self {
            n,
            now: one.now.saturating_add(two.now),
            before: one.before.saturating_add(two.before),
        }
    }

    /// Counts so many now, and says in which minute that was.
    pub(super) fn add(&mut self, time: SystemTime, count: u64) -> u64 {
        *self = self.at(minute(time).0);
        self.now = self.now.saturating_add(count);
        self.n
    }

    /// Counts so many of the minute `n` no more.
    pub(super) fn take_back(&mut self, n: u64, count: u64) {
        if n == self.n {
            self.now = self.now.saturating_sub(count);
        } else if n.checked_add(1) == Some(self.n) {
            self.before = self.before.saturating_sub(count);
        }
    }

    /// Whether nothing of it counts any more.
    pub(super) fn is_over(self, time: SystemTime) -> bool {
        let then = self.at(minute(time).0);
        then.now == 0 && then.before == 0
    }

    /// How long it takes until nothing of it counts any more, if nothing else comes.
    pub(super) fn over_in(self, time: SystemTime) -> Duration {
        let (n, over) = minute(time);
        let then = self.at(n);
        let rest = match (then.now, then.before) {
            (0, 0) => 0,
            (0, _) => MINUTE.saturating_sub(over),
            _ => (2 * MINUTE).saturating_sub(over),
        };
        Duration::from_millis(rest)
    }

    /// How much of a bound is left now.
    pub(super) fn left(self, time: SystemTime, most: u64) -> u64 {
        let (n, over) = minute(time);
        let then = self.at(n);
        let rest = u128::from(MINUTE.saturating_sub(over));
        let before = u128::from(then.before).saturating_mul(rest);
        let before = before.div_ceil(u128::from(MINUTE));
        let before = u64::try_from(before).unwrap_or(u64::MAX);
        most.saturating_sub(then.now.saturating_add(before))
    }

    /// Whether `count` more are within `most`; else how long it takes until they are, if nothing else comes.
    pub(super) fn room(self, time: SystemTime, count: u64, most: u64) -> Result<(), Duration> {
        if count <= self.left(time, most) {
            return Ok(());
        }
        let (n, over) = minute(time);
        let then = self.at(n);
        let for_now = most.checked_sub(then.now.saturating_add(count));
        let wait = match for_now {
            // Later in this minute, when less of the one before counts.
            Some(for_before) => weighs(then.before, for_before).saturating_sub(over),
            // In the next one.
            None => {
                let at = weighs(then.now, most.saturating_sub(count));
                MINUTE.saturating_sub(over).saturating_add(at)
            }
        };
        Err(Duration::from_millis(wait.max(1)))
    }
}

/// Milliseconds into a minute at which `before` of the one before counts for `most`.
fn weighs(before: u64, most: u64) -> u64 {
    let of = u128::from(most).saturating_mul(u128::from(MINUTE));
    let rest = of.checked_div(u128::from(before)).unwrap_or(of);
    MINUTE.saturating_sub(u64::try_from(rest).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000 * MINUTE + millis)
    }

    #[test]
    fn the_minute_before_counts_less_and_less() {
        let mut minutes = Minutes::default();
        minutes.add(at(0), 60);
        // Milliseconds from the beginning of that minute, and what is left of 60.
        let cases = [
            (0, 0),
            (59_999, 0),
            (60_000, 0),
            (61_000, 1),
            (90_000, 30),
            (119_999, 59),
            (120_000, 60),
            (9_000_000, 60),
        ];
        for (millis, left) in cases {
            assert_eq!(minutes.left(at(millis), 60), left, "{millis}");
        }
        assert!(!minutes.is_over(at(119_999)) && minutes.is_over(at(120_000)));
    }

    #[test]
    fn after_the_time_that_is_told_there_is_room() {
        for (counts, most) in [
            ([60, 0], 60),
            ([10, 50], 60),
            ([0, 60], 60),
            ([7, 3], 10),
            ([1, 0], 1),
        ] {
            for millis in [60_000, 60_001, 75_000, 90_500, 119_999] {
                for count in [1, most / 2, most] {
                    let mut minutes = Minutes::default();
                    minutes.add(at(0), counts[0]);
                    minutes.add(at(60_000), counts[1]);
                    let Err(wait) = minutes.room(at(millis), count, most) else {
                        continue;
                    };
                    let then = at(millis) + wait;
                    assert_eq!(
                        minutes.room(then, count, most),
                        Ok(()),
                        "{counts:?} {millis} {count}"
                    );
                    let before = then - Duration::from_millis(2);
                    let is_early =
                        before < at(millis) || minutes.room(before, count, most).is_err();
                    assert!(is_early, "{counts:?} {millis} {count} {wait:?}");
                    assert!(wait <= Duration::from_millis(2 * MINUTE));
                }
            }
        }
    }

    #[test]
    fn what_is_taken_back_was_never_there_unless_its_minute_is_over() {
        let mut minutes = Minutes::default();
        let first = minutes.add(at(0), 5);
        minutes.take_back(first, 2);
        assert_eq!(minutes.left(at(0), 10), 7);
        minutes.add(at(60_000), 1);
        minutes.take_back(first, 3);
        assert_eq!(minutes.left(at(60_000), 10), 9);
        minutes.add(at(120_000), 1);
        minutes.take_back(first, 9);
        assert_eq!(minutes.left(at(120_000), 10), 8);
        // A clock that is set back.
        minutes.add(at(0), 1);
        assert_eq!(minutes.left(at(0), 10), 7);
        assert_eq!(minutes.left(at(120_000), 10), 10);
    }

    #[test]
    fn counts_of_others_are_added_in_the_same_minute() {
        let (mut one, mut two) = (Minutes::default(), Minutes::default());
        one.add(at(0), 3);
        two.add(at(60_000), 4);
        let both = one.and(two, at(60_000));
        assert_eq!((both.now, both.before), (4, 3));
        assert_eq!(both, two.and(one, at(60_000)));
        // One whose clock is ahead, by however much, makes nothing of this one's go away.
        two.add(at(600_000), 1);
        let both = one.and(two, at(0));
        assert_eq!((both.now, both.before), (4, 0));
    }
}
