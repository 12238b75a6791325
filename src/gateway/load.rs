//! How busy a node is: what selection compares.
//!
//! Three things make a node dear: the requests that it holds (locks among them), the latency that
//! was measured lately, and that it is new. The latency is an exponentially weighted moving average
//! that rises at once to a peak and sinks slowly. Only streams tell one: how long a reply that comes
//! whole takes is a matter of its length.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Time in which a latency loses its weight, to a part of 1/e.
const DECAY: Duration = Duration::from_secs(10);
/// Time after which a latency tells nothing any more.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// The part of its share that a new node gets at once.
const COLD: f64 = 0.1;
/// The shortest latency that tells nodes apart.
const FLOOR: Duration = Duration::from_millis(1);

/// What the configuration says of a node's share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    /// How much dearer than others it is by its price and its weight: 1 without them.
    pub(super) bias: f64,
    /// Most requests that it holds.
    pub(super) max_in_flight: u32,
    /// Time until a new node gets its whole share.
    pub(super) warm_up: Duration,
}

impl Share {
    /// The part of it that a node gets at this age.
    fn warmth(&self, age: Duration) -> f64 {
        if age >= self.warm_up {
            return 1.0;
        }
        COLD + (1.0 - COLD) * age.as_secs_f64() / self.warm_up.as_secs_f64()
    }
}

/// How busy one node is.
#[derive(Debug)]
pub(super) struct Load {
    in_flight: AtomicU32,
    /// `Share::max_in_flight`, where it is read without waiting.
    most: AtomicU32,
    measured: Mutex<Measured>,
}

#[derive(Debug)]
struct Measured {
    share: Share,
    /// The average, in seconds, and when it was that.
    latency: Option<(f64, Instant)>,
    /// Since when it is new; nothing once it is like the others.
    cold_since: Option<Instant>,
}

/// What one more request costs with a node, compared to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    busy: f64,
    /// In seconds.
    latency: Option<f64>,
}

impl Cost {
    /// Where one of two was not measured lately, only requests decide.
    pub(super) fn is_below(self, other: Self) -> bool {
        match (self.latency, other.latency) {
            (Some(own), Some(others)) => self.busy * own < other.busy * others,
            _ => self.busy < other.busy,
        }
    }
}

impl Load {
    pub(super) fn new(share: Share) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            most: AtomicU32::new(share.max_in_flight),
            measured: Mutex::new(Measured {
                share,
                latency: None,
                cold_since: Some(Instant::now()),
            }),
        }
    }

    /// Has another share from now on; what it holds and what was measured counts on.
    pub(super) fn set_share(&self, share: Share) {
        self.most.store(share.max_in_flight, Ordering::Relaxed);
        self.lock().share = share;
    }

    /// Requests that it holds.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more, if there is room for it; [`Load::leave`] is then due once.
    pub(super) fn enter(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let one_more = |now: u32| (now < most).then_some(now.saturating_add(1));
        self.in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes in how long a reply took to begin.
    pub(super) fn measured(&self, latency: Duration) {
        let (now, sample) = (Instant::now(), latency.max(FLOOR).as_secs_f64());
        let mut measured = self.lock();
        let average = match measured.latency {
            Some((average, at)) if average > sample => {
                let kept = weight_after(now.saturating_duration_since(at));
                average * kept + sample * (1.0 - kept)
            }
            _ => sample,
        };
        measured.latency = Some((average, now));
    }

    /// It is as a new one from now on, of which nothing is known.
    pub(super) fn begin_warm_up(&self) {
        let mut measured = self.lock();
        measured.latency = None;
        measured.cold_since = Some(Instant::now());
    }

    /// It is no newer than the others: where all are new, none is spared.
    pub(super) fn skip_warm_up(&self) {
        self.lock().cold_since = None;
    }

    /// What one more request costs now.
    pub(super) fn cost(&self) -> Cost {
        let now = Instant::now();
        let (share, latency, cold_since) = {
            let measured = self.lock();
            (measured.share, measured.latency, measured.cold_since)
        };
        let age = cold_since.map(|since| now.saturating_duration_since(since));
        let warmth = age.map_or(1.0, |age| share.warmth(age));
        let latency = latency.and_then(|(average, at)| {
            let age = now.saturating_duration_since(at);
            let sunk = average * weight_after(age);
            (age < FORGOTTEN).then_some(sunk.max(FLOOR.as_secs_f64()))
        });
        Cost {
            busy: (f64::from(self.in_flight()) + 1.0) * share.bias / warmth,
            latency,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight_after(time: Duration) -> f64 {
    (-time.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
impl Default for Share {
    fn default() -> Self {
        Self {
            bias: 1.0,
            max_in_flight: u32::MAX,
            warm_up: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn load() -> Load {
        Load::new(Share::default())
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_decide_until_both_were_measured() {
        let (one, two) = (load(), load());
        assert!(!one.cost().is_below(two.cost()) && !two.cost().is_below(one.cost()));
        assert!(one.enter());
        assert!(two.cost().is_below(one.cost()));
        one.measured(ms(10));
        assert!(two.cost().is_below(one.cost()), "two was not measured");
        two.measured(ms(100));
        assert!(
            one.cost().is_below(two.cost()),
            "2 x 10 ms against 1 x 100 ms"
        );
        advance(FORGOTTEN).await;
        assert!(two.cost().is_below(one.cost()), "long ago");
        one.leave();
        assert_eq!(one.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn another_share_holds_at_once_and_what_is_held_counts_on() {
        let (node, other) = (load(), load());
        assert!(node.enter() && node.enter());
        node.set_share(Share {
            bias: 8.0,
            max_in_flight: 2,
            ..Share::default()
        });
        assert!(!node.enter(), "as many as it may hold now");
        assert_eq!(node.in_flight(), 2);
        node.leave();
        node.leave();
        assert!(other.cost().is_below(node.cost()), "it is dearer now");
        assert!(node.enter());
    }

    #[tokio::test(start_paused = true)]
    async fn a_latency_rises_at_once_and_sinks_slowly() {
        let load = load();
        let latency = |load: &Load| load.cost().latency.unwrap();
        load.measured(ms(10));
        load.measured(ms(1000));
        assert!((latency(&load) - 1.0).abs() < 1e-9);
        advance(ms(100)).await;
        load.measured(ms(10));
        let sunk = latency(&load);
        assert!(sunk < 1.0 && sunk > 0.9, "{sunk}");
        advance(DECAY).await;
        let later = latency(&load);
        assert!(later < 0.4 && later > 0.3, "{later}");
        load.measured(Duration::ZERO);
        advance(DECAY * 5).await;
        assert!(latency(&load) >= FLOOR.as_secs_f64());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_node_comes_slowly_to_its_share() {
        let share = Share {
            warm_up: Duration::from_secs(30),
            ..Share::default()
        };
        let (new, old) = (Load::new(share), load());
        for _ in 0..8 {
            assert!(old.enter());
        }
        assert!(old.cost().is_below(new.cost()), "9 against 1 / 0.1");
        advance(Duration::from_secs(15)).await;
        assert!(new.cost().is_below(old.cost()), "9 against 1 / 0.55");
        advance(Duration::from_secs(15)).await;
        assert!((new.cost().busy - 1.0).abs() < 1e-9);
        new.begin_warm_up();
        assert!((new.cost().busy - 10.0).abs() < 1e-9);
        new.skip_warm_up();
        assert!((new.cost().busy - 1.0).abs() < 1e-9);
    }

    #[tokio::test]
    async fn a_share_says_how_dear_a_node_is_and_how_much_it_holds() {
        let half = Share {
            bias: 2.0,
            max_in_flight: 2,
            ..Share::default()
        };
        let (half, whole) = (Load::new(half), load());
        assert!(whole.cost().is_below(half.cost()));
        assert!(half.enter() && half.enter());
        assert!(!half.enter(), "it is full");
        half.leave();
        assert!(half.enter());
        assert_eq!(half.in_flight(), 2);
    }
}
