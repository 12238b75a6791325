//! What goes on on a connection, and when it is too little.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{CLOSE_GRACE, Limits};

/// Whether a connection has a request in flight, since when it has none, and what nobody reads.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    in_flight: AtomicUsize,
    /// Says that there was a request.
    begun: Notify,
    /// Milliseconds from `opened` to the end of the last request; 0 before the first.
    idle_since_ms: AtomicU64,
    /// For each reply that shares the connection with others, and some that ended.
    untaken: Mutex<Vec<Weak<Untaken>>>,
    /// Milliseconds from `opened` to when the peer last took something of any of them.
    taken_ms: AtomicU64,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Request,
    Taking,
}

/// Milliseconds from a connection's beginning to when a reply gave what was not taken yet; 0 while
/// the reply is the one that is waited for.
pub(super) type Untaken = AtomicU64;

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            begun: Notify::new(),
            idle_since_ms: AtomicU64::new(0),
            untaken: Mutex::default(),
            taken_ms: AtomicU64::new(0),
        }
    }

    /// Ends once the connection has been without a request for too long, or nothing of its replies
    /// was taken though something of each waits. Where others go on, one that nobody reads may wait: who
    /// shares a connection to us is not cut off because of a neighbour.
    pub(super) async fn idle(&self, limits: &Limits) -> Overdue {
        loop {
            let since = Duration::from_millis(self.idle_since_ms.load(Ordering::Relaxed));
            let limit = if since.is_zero() {
                limits.head_timeout
            } else {
                limits.idle_timeout
            };
            let busy = self.in_flight.load(Ordering::Relaxed) > 0;
            let now = Instant::now();
            let deadline = if busy {
                let taken = Duration::from_millis(self.taken_ms.load(Ordering::Relaxed));
                let since = self.untaken_since().map(|it| it.max(self.opened + taken));
                since.unwrap_or(now) + limits.write_timeout
            } else {
                self.opened + since + limit
            };
            if deadline <= now {
                return if busy {
                    Overdue::Taking
                } else {
                    Overdue::Request
                };
            }
            // An idle connection can become one whose reply is not taken.
            sleep_until(deadline.min(now + limits.write_timeout)).await;
        }
    }

    /// Waits until there is no request, nor was any for a moment.
    pub(super) async fn until_at_rest(&self) {
        loop {
            sleep(CLOSE_GRACE).await;
            if self.in_flight.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }

    /// Waits until the connection is to close after its requests. The first one of a connection that
    /// was just made may be on its way.
    pub(super) async fn until_leave(&self, leave: &CancellationToken) {
        leave.cancelled().await;
        tokio::select! {
            biased;
            () = self.begun.notified() => {}
            () = sleep_until(self.opened + CLOSE_GRACE) => {}
        }
    }

    /// Milliseconds since the connection began, and never 0.
    fn age_ms(&self) -> u64 {
        let age = self.opened.elapsed().as_millis();
        u64::try_from(age).unwrap_or(u64::MAX).max(1)
    }

    /// Notes that the peer took something; milliseconds since the connection began.
    pub(super) fn took(&self) -> u64 {
        let now = self.age_ms();
        self.taken_ms.fetch_max(now, Ordering::Relaxed);
        now
    }

    /// Watches one more reply.
    pub(super) fn watch(&self) -> Arc<Untaken> {
        let since = Arc::default();
        let mut untaken = self.untaken.lock().unwrap_or_else(PoisonError::into_inner);
        if untaken.len() == untaken.capacity() {
            untaken.retain(|reply| reply.strong_count() > 0);
        }
        untaken.push(Arc::downgrade(&since));
        since
    }

    /// Since when the peer has left every reply untaken, if it has. While one is waited for, as a long
    /// answer is, nothing shows that the peer is gone, and its neighbours are not cut off.
    fn untaken_since(&self) -> Option<Instant> {
        let untaken = self.untaken.lock().unwrap_or_else(PoisonError::into_inner);
        let since = untaken.iter().filter_map(Weak::upgrade);
        let oldest = since.map(|since| since.load(Ordering::Relaxed)).min()?;
        (oldest > 0).then(|| self.opened + Duration::from_millis(oldest))
    }
}

/// A request in flight on its connection; lives as long as the reply's body.
#[derive(Debug)]
pub(super) struct InFlight(pub(super) Arc<Activity>);

impl InFlight {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        activity.begun.notify_one();
        Self(Arc::clone(activity))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0
            .idle_since_ms
            .store(self.0.age_ms(), Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
