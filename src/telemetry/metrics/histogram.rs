//! Times, counted by how long they were.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds in seconds. A model's first token takes milliseconds to seconds, a long answer
/// minutes.
pub const SECONDS: [f64; 17] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0,
    600.0,
];

/// Times by the bounds of [`SECONDS`]; an observation is two atomic additions.
#[derive(Debug)]
pub struct Histogram {
    /// The last is for what is longer than every bound.
    counts: [AtomicU64; SECONDS.len() + 1],
    sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_us: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one time.
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let place = SECONDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The sum in seconds.
    #[must_use]
    pub(super) fn sum(&self) -> f64 {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// Each bound, infinity at the end, with what fell between it and the one before.
    #[must_use]
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = SECONDS.into_iter().chain([f64::INFINITY]);
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        bounds.zip(counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_at_the_first_bound_that_it_does_not_exceed() {
        let cases = [
            (0, 0.005),
            (5, 0.005),
            (6, 0.01),
            (1000, 1.0),
            (600_001, f64::INFINITY),
        ];
        for (ms, bound) in cases {
            let histogram = Histogram::default();
            histogram.observe(Duration::from_millis(ms));
            let buckets = histogram.buckets();
            let counted: Vec<_> = buckets.iter().filter(|(_, count)| *count > 0).collect();
            assert_eq!(counted, [&(bound, 1)], "{ms} ms");
        }
    }
}
