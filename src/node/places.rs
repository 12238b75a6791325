//! Places with one engine: so many requests at once, some more that wait their turn, and no more.
//!
//! Turns come in the order of arrival. Who stops waiting gives his room in the queue back at once;
//! a place that was had goes back when it is dropped.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::problem::Refusal;

/// Most requests that wait unless the configuration says otherwise, as multiples of those that are
/// worked on, and at all: more only makes answers late that another node could give now.
const USUAL_ROUNDS: usize = 4;
const USUAL_MOST: usize = 64;
/// The share of the newest time in the mean of them, as a divisor.
const MEAN_OVER: u32 = 8;
/// What is said of when to come again: at least a second, at most what clients wait for.
const SOONEST_S: u64 = 1;
const LATEST_S: u64 = 120;

/// No place was had. Nothing was sent to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// When one may be free, by how long places were held lately.
    pub(super) retry_after_s: u16,
}

/// The places with one engine.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<All>,
    /// Requests that may wait; by the number of places if unset.
    queue: Option<usize>,
    patience: Duration,
}

#[derive(Debug)]
struct All {
    /// Gives turns in the order of arrival.
    free: Arc<Semaphore>,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    limit: usize,
    /// Places that are still held and no longer exist once they are given back.
    surplus: usize,
    waiting: usize,
    /// The mean time for which a place was held lately.
    held_for: Duration,
}

impl All {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// `limit` places and a queue of `queue`, in which nobody waits longer than `patience`.
    pub(super) fn new(limit: usize, queue: Option<usize>, patience: Duration) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        let counts = Counts {
            limit,
            surplus: 0,
            waiting: 0,
            held_for: Duration::ZERO,
        };
        let all = All {
            free: Arc::new(Semaphore::new(limit)),
            counts: Mutex::new(counts),
        };
        Self {
            all: Arc::new(all),
            queue,
            patience,
        }
    }

    /// Makes it so many places; those that are held stay held.
    pub(super) fn resize(&self, limit: usize) {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        let mut counts = self.all.counts();
        let less = counts.limit.saturating_sub(limit);
        let more = limit.saturating_sub(counts.limit);
        counts.limit = limit;
        let still_held = less.saturating_sub(self.all.free.forget_permits(less));
        counts.surplus = counts.surplus.saturating_add(still_held);
        let stay = more.min(counts.surplus);
        counts.surplus = counts.surplus.saturating_sub(stay);
        self.all.free.add_permits(more.saturating_sub(stay));
    }

    /// A place, at once or when it is the caller's turn.
    ///
    /// # Errors
    /// [`Full`] if the queue is full, or the turn does not come in time.
    pub(super) async fn take(&self) -> Result<EnginePlace, Full> {
        if let Ok(permit) = Arc::clone(&self.all.free).try_acquire_owned() {
            return Ok(self.had(permit));
        }
        let turn = self.enter().ok_or_else(|| self.full())?;
        let acquired = timeout(self.patience, Arc::clone(&self.all.free).acquire_owned()).await;
        drop(turn);
        match acquired {
            Ok(Ok(permit)) => Ok(self.had(permit)),
            Ok(Err(_)) | Err(_) => Err(self.full()),
        }
    }

    /// What is said to whoever gets no place.
    pub(super) fn full(&self) -> Full {
        let counts = self.all.counts();
        let places = u32::try_from(counts.limit).unwrap_or(u32::MAX).max(1);
        let before = u32::try_from(counts.waiting).unwrap_or(u32::MAX);
        // A place comes free each time that the mean holder takes, shared by all of them.
        let wait = (counts.held_for / places).saturating_mul(before.saturating_add(1));
        let seconds = wait.as_millis().div_ceil(1000);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        let seconds = seconds.clamp(SOONEST_S, LATEST_S);
        Full {
            retry_after_s: u16::try_from(seconds).unwrap_or(u16::MAX),
        }
    }

    /// How many there are.
    pub(super) fn limit(&self) -> usize {
        self.all.counts().limit
    }

    /// Requests that hold one.
    pub(super) fn held(&self) -> usize {
        let counts = self.all.counts();
        let all = counts.limit.saturating_add(counts.surplus);
        all.saturating_sub(self.all.free.available_permits())
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.all.counts().waiting
    }

    /// Requests that may wait.
    pub(super) fn queue(&self) -> usize {
        let usual = || {
            let rounds = self.limit().saturating_mul(USUAL_ROUNDS);
            rounds.min(USUAL_MOST)
        };
        self.queue.unwrap_or_else(usual)
    }

    fn enter(&self) -> Option<Turn> {
        let most = self.queue();
        let mut counts = self.all.counts();
        if counts.waiting >= most {
            return None;
        }
        counts.waiting = counts.waiting.saturating_add(1);
        Some(Turn(Arc::clone(&self.all)))
    }

    fn had(&self, permit: OwnedSemaphorePermit) -> EnginePlace {
        EnginePlace {
            all: Arc::clone(&self.all),
            permit: Some(permit),
            since: Instant::now(),
        }
    }
}

/// Room in the queue.
struct Turn(Arc<All>);

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.0.counts();
        counts.waiting = counts.waiting.saturating_sub(1);
    }
}

/// A place, held as long as the engine may work for its request.
#[must_use]
#[derive(Debug)]
pub(super) struct EnginePlace {
    all: Arc<All>,
    /// Gone in the drop.
    permit: Option<OwnedSemaphorePermit>,
    since: Instant,
}

impl Drop for EnginePlace {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        let held = self.since.elapsed();
        counts.held_for = if counts.held_for.is_zero() {
            held
        } else {
            counts.held_for - counts.held_for / MEAN_OVER + held / MEAN_OVER
        };
        if counts.surplus > 0 {
            counts.surplus = counts.surplus.saturating_sub(1);
            if let Some(permit) = self.permit.take() {
                permit.forget();
            }
        }
    }
}

impl From<Full> for Refusal {
    fn from(Full { retry_after_s }: Full) -> Self {
        Self::Overloaded { retry_after_s }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn full(places: &Places) -> u16 {
        let Some(Err(full)) = places.take().now_or_never() else {
            panic!("there is room")
        };
        full.retry_after_s
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_the_order_of_arrival_and_the_queue_has_an_end() {
        let places = Places::new(1, Some(2), PATIENCE);
        let first = places.take().await.unwrap();
        let mut second = Box::pin(places.take());
        let mut third = Box::pin(places.take());
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        assert_eq!((places.held(), places.waiting()), (1, 2));
        assert_eq!(full(&places), 1);
        drop(first);
        assert!((&mut third).now_or_never().is_none());
        let second = second.now_or_never().unwrap().unwrap();
        assert_eq!((places.held(), places.waiting()), (1, 1));
        drop(second);
        drop(third.now_or_never().unwrap().unwrap());
        assert_eq!((places.held(), places.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_queue_gives_up_his_room_and_his_turn() {
        let places = Places::new(1, Some(2), PATIENCE);
        let first = places.take().await.unwrap();
        let mut leaver = Box::pin(places.take());
        let mut stayer = Box::pin(places.take());
        assert!((&mut leaver).now_or_never().is_none());
        assert!((&mut stayer).now_or_never().is_none());
        drop(leaver);
        assert_eq!(places.waiting(), 1);
        drop(first);
        drop(stayer.now_or_never().unwrap().unwrap());
        assert_eq!((places.held(), places.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_told() {
        let places = Places::new(1, Some(1), PATIENCE);
        let _first = places.take().await.unwrap();
        let begun = Instant::now();
        assert!(places.take().await.is_err());
        assert_eq!(begun.elapsed(), PATIENCE);
        assert_eq!(places.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn when_to_come_again_follows_how_long_places_are_held() {
        let cases = [
            // Places, those that wait, seconds for which a place is held, what is said.
            (1, 0, 0, 1),
            (1, 0, 30, 30),
            (2, 0, 30, 15),
            (2, 3, 30, 60),
            (4, 0, 1, 1),
            (1, 9, 60, 120),
        ];
        for (limit, waiting, held_s, expected) in cases {
            let places = Places::new(limit, Some(waiting), Duration::MAX);
            for _ in 0..2 {
                let place = places.take().await.unwrap();
                advance(Duration::from_secs(held_s)).await;
                drop(place);
            }
            let mut held = Vec::new();
            for _ in 0..limit {
                held.push(places.take().await.unwrap());
            }
            let mut queued = Vec::new();
            for _ in 0..waiting {
                let mut wait = Box::pin(places.take());
                assert!((&mut wait).now_or_never().is_none());
                queued.push(wait);
            }
            assert_eq!(full(&places), expected, "{limit} {waiting} {held_s}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_size_holds_once_what_is_too_much_was_given_back() {
        let places = Places::new(3, Some(0), PATIENCE);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(places.take().await.unwrap());
        }
        places.resize(1);
        assert_eq!((places.limit(), places.held()), (1, 3));
        held.truncate(1);
        assert_eq!(places.held(), 1);
        full(&places);
        places.resize(2);
        held.push(places.take().await.unwrap());
        full(&places);
        // Fewer and more again, while all are held.
        places.resize(1);
        places.resize(2);
        held.pop();
        held.push(places.take().await.unwrap());
        full(&places);
        held.clear();
        assert_eq!((places.limit(), places.held()), (2, 0));
    }

    #[test]
    fn the_usual_queue_is_some_rounds_and_no_more() {
        for (limit, queue, expected) in [
            (4, None, 16),
            (2048, None, 64),
            (4, Some(0), 0),
            (4, Some(500), 500),
        ] {
            assert_eq!(Places::new(limit, queue, PATIENCE).queue(), expected);
        }
    }
}
