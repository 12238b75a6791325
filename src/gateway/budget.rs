//! How many tries may follow first ones (docs/wire.md, "Retrying").
//!
//! Two bounds hold at once. Of the requests in flight a fifth may be tried again, so that a moment's
//! trouble is not doubled. And over time each request earns a fifth of a further try, so that a fleet
//! that fails for long gets 1.2 times what its callers send, and no more; what was not used is kept up
//! to a bound.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Further tries that are always allowed at once, and that are there at the beginning.
const MIN_RETRIES: usize = 3;
/// One further try is allowed for so many requests.
const REQUESTS_PER_RETRY: usize = 5;
/// Most further tries that are kept for later, in fifths.
const MOST_SAVED: usize = 100 * REQUESTS_PER_RETRY;
/// Without requests enough, one more is allowed after so long, up to the least.
const FREE_EVERY: Duration = Duration::from_secs(3);

/// The budget of a gateway.
#[derive(Debug)]
pub(super) struct RetryBudget {
    in_flight: Arc<AtomicUsize>,
    saved: Mutex<Saved>,
}

#[derive(Debug)]
struct Saved {
    /// Fifths of a try.
    fifths: usize,
    free_since: Instant,
}

/// Leave to try once more, held as long as the request that needed it.
#[must_use]
#[derive(Debug)]
pub(super) struct RetryPermit(Arc<AtomicUsize>);

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self {
            in_flight: Arc::default(),
            saved: Mutex::new(Saved {
                fifths: MIN_RETRIES * REQUESTS_PER_RETRY,
                free_since: Instant::now(),
            }),
        }
    }

    /// A request is tried for the first time.
    pub(super) fn earn(&self) {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        saved.fifths = saved.fifths.saturating_add(1).min(MOST_SAVED);
    }

    /// Further tries of requests that have not ended.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Leave to try once more while there are `requests` in flight.
    pub(super) fn take(&self, requests: usize) -> Option<RetryPermit> {
        let most = (requests / REQUESTS_PER_RETRY).max(MIN_RETRIES);
        let one_more = |now: usize| (now < most).then_some(now.saturating_add(1));
        let order = Ordering::Relaxed;
        self.in_flight.fetch_update(order, order, one_more).ok()?;
        // From here on it is given back if there is none to spend.
        let permit = RetryPermit(Arc::clone(&self.in_flight));
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        saved.add_free();
        saved.fifths = saved.fifths.checked_sub(REQUESTS_PER_RETRY)?;
        Some(permit)
    }
}

impl Saved {
    fn add_free(&mut self) {
        let least = MIN_RETRIES * REQUESTS_PER_RETRY;
        let since = self.free_since.elapsed();
        let free = since.as_millis() / FREE_EVERY.as_millis();
        if free == 0 {
            return;
        }
        self.free_since = Instant::now();
        if self.fifths < least {
            let free = usize::try_from(free).unwrap_or(usize::MAX);
            let more = free.saturating_mul(REQUESTS_PER_RETRY);
            self.fifths = self.fifths.saturating_add(more).min(least);
        }
    }
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn at_once_a_fifth_of_what_is_in_flight_and_never_less_than_three() {
        let budget = RetryBudget::new();
        (0..1000).for_each(|_| budget.earn());
        for (requests, most) in [(0, 3), (4, 3), (15, 3), (20, 4), (50, 10)] {
            let held: Vec<_> = std::iter::from_fn(|| budget.take(requests)).collect();
            assert_eq!((held.len(), budget.in_flight()), (most, most), "{requests}");
            drop(held);
            assert_eq!(budget.in_flight(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn over_time_a_fifth_of_the_requests_and_a_few() {
        let budget = RetryBudget::new();
        let mut retries = 0;
        for _ in 0..1000 {
            budget.earn();
            // Each is over at once, so that few are held at any time.
            retries += usize::from(budget.take(100).is_some());
            retries += usize::from(budget.take(100).is_some());
        }
        assert_eq!(retries, MIN_RETRIES + 200);
        assert!(budget.take(100).is_none());
        assert_eq!(budget.in_flight(), 0);
        for (wait, more) in [(FREE_EVERY, 1), (FREE_EVERY * 2, 2), (FREE_EVERY * 9, 3)] {
            tokio::time::advance(wait).await;
            assert_eq!(
                std::iter::from_fn(|| budget.take(0)).count(),
                more,
                "{wait:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_used_is_kept_up_to_a_bound() {
        let budget = RetryBudget::new();
        (0..10_000).for_each(|_| budget.earn());
        tokio::time::advance(FREE_EVERY * 100).await;
        let spent = (0..1000).filter(|_| budget.take(100).is_some()).count();
        assert_eq!(spent, MOST_SAVED / REQUESTS_PER_RETRY);
    }
}
