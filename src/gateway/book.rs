//! The keys of the store, in memory.
//!
//! All of them, so that no request waits for the database and no number of wrong keys is a number of
//! questions to it. What changed there is asked for every so often; an unknown key is a reason to ask at
//! once, since it may be new, but only so often, and all who wait at a time wait for one answer.
//!
//! While the database is away, known keys go on for a bounded time. Who is not known then is told that
//! nobody knows, and not that his key is wrong.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use self::pages::{Known, Pages, has_budget};
use super::{authenticate::Caller, error::Error, labels::Labels};
use crate::{
    clock::Clock,
    config::store::StoreConfig,
    store::{Change, Changes, KeyHash, KeySecret, Spend, Store, StoreError},
    telemetry::metrics::Counter,
};

pub(super) mod fleet;
mod pages;

/// Questions because of unknown keys: so many at once, and one more each second.
const MOST_LOOKS: u32 = 8;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long one may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// All keys that open anything, and who has them.
#[derive(Debug)]
pub(super) struct Book {
    store: Store,
    clock: Clock,
    /// How long it counts without the database.
    stale: Duration,
    pages: RwLock<Pages>,
    /// One question at a time.
    turn: tokio::sync::Mutex<()>,
    /// Questions that were begun, and the last one that came to an end: so who waits knows whether one was
    /// for him. Who asks may leave before there is an answer.
    begun: AtomicU64,
    ended: AtomicU64,
    state: Mutex<State>,
    looks: Counter,
    failed: Counter,
}

#[derive(Debug)]
struct State {
    /// The last change that is known.
    last: Option<Change>,
    /// When the database last answered, and whether it did when it was asked last.
    answered: Instant,
    is_reached: bool,
    /// Questions that may be asked because of unknown keys, and since when they are counted.
    left: u32,
    since: Instant,
}

impl Book {
    /// Reads all keys.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn open(
        store: Store,
        config: &StoreConfig,
        clock: Clock,
    ) -> Result<Arc<Self>, StoreError> {
        let changes = store.changes(None).await?;
        let now = Instant::now();
        let book = Self {
            store,
            clock,
            stale: config.stale(),
            pages: RwLock::default(),
            turn: tokio::sync::Mutex::default(),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            state: Mutex::new(State {
                last: None,
                answered: now,
                is_reached: true,
                left: MOST_LOOKS,
                since: now,
            }),
            looks: Counter::default(),
            failed: Counter::default(),
        };
        let budgeted = changes.keys.iter().filter(|key| has_budget(key));
        let budgeted = budgeted.map(|key| key.id.clone()).collect();
        let spent = book.store.spent(&budgeted, clock.now()).await?;
        book.take(changes, &spent);
        Ok(Arc::new(book))
    }

    /// Has all keys held to the labels and places of a configuration from now on.
    pub(super) fn arrange(&self, labels: &Arc<Labels>, places: usize) {
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        pages.labels = Arc::clone(labels);
        pages.places = places;
        let known = std::mem::take(&mut pages.keys);
        pages.by_hash.clear();
        for Known { key, held } in known.into_values() {
            pages.add(&self.store, key, Some(held));
        }
    }

    /// Who has this key.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], or [`Error::StoreUnavailable`] where nobody knows.
    pub(super) async fn find(&self, key: &[u8]) -> Result<Arc<Caller>, Error> {
        let hash = self.store.hash(key);
        if let Some(found) = self.known(hash) {
            return found;
        }
        self.look().await?;
        self.known(hash).unwrap_or(Err(Error::Unauthenticated))
    }

    fn known(&self, hash: KeyHash) -> Option<Result<Arc<Caller>, Error>> {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let entry = pages.by_hash.get(&hash)?;
        if self.state().answered.elapsed() > self.stale {
            return Some(Err(Error::StoreUnavailable));
        }
        let counts = entry.until.is_none_or(|until| self.clock.now() < until);
        Some(match counts {
            true => Ok(Arc::clone(&entry.caller)),
            false => Err(Error::Unauthenticated),
        })
    }

    /// Has what changed asked for, unless that was done too often, or a question that began after this
    /// call has answered.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] where it is not asked and what is known is of now, otherwise
    /// [`Error::StoreUnavailable`].
    async fn look(&self) -> Result<(), Error> {
        let begun = self.begun.load(Ordering::Acquire);
        let turn = self.turn.lock().await;
        if self.ended.load(Ordering::Acquire) > begun {
            let is_reached = self.state().is_reached;
            return is_reached.then_some(()).ok_or(Error::StoreUnavailable);
        }
        if !self.state().may_look() {
            return Err(match self.state().is_reached {
                true => Error::Unauthenticated,
                false => Error::StoreUnavailable,
            });
        }
        let answered = self.ask().await;
        drop(turn);
        answered.map_err(|_| Error::StoreUnavailable)
    }

    /// Asks what changed; whoever calls has the turn.
    async fn ask(&self) -> Result<(), Unreached> {
        let number = self.begun.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        self.looks.inc();
        let last = self.state().last.clone();
        let asking = async {
            let changes = self.store.changes(last.as_ref()).await?;
            // A key is not used before it is known what it has spent.
            let mut budgeted = self.pages().budgeted();
            budgeted.extend(
                changes
                    .keys
                    .iter()
                    .filter(|it| has_budget(it))
                    .map(|it| it.id.clone()),
            );
            let spent = self.store.spent(&budgeted, self.clock.now()).await?;
            self.take(changes, &spent);
            Ok::<_, StoreError>(())
        };
        let asked = match timeout(LOOK_TIMEOUT, asking).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.unreached(&error.to_string())),
            Err(_) => Err(self.unreached("it takes too long")),
        };
        self.ended.store(number, Ordering::Release);
        asked
    }

    /// What keys that have budgets have spent.
    async fn spent(&self) -> Result<Vec<Spend>, StoreError> {
        let keys = self.pages().budgeted();
        self.store.spent(&keys, self.clock.now()).await
    }

    fn pages(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreached(&self, error: &str) -> Unreached {
        self.failed.inc();
        let was_reached = std::mem::replace(&mut self.state().is_reached, false);
        if was_reached {
            tracing::error!(error, "the store does not answer: known keys go on");
        }
        Unreached
    }

    fn take(&self, changes: Changes, spent: &[Spend]) {
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        if changes.is_all {
            pages.keep_only(&changes.keys);
        }
        for key in changes.keys {
            pages.put(&self.store, key);
        }
        pages.learn(spent, self.clock.now());
        drop(pages);
        let mut state = self.state();
        let was_known = state.last.replace(changes.last).is_some();
        state.answered = Instant::now();
        if !std::mem::replace(&mut state.is_reached, true) {
            tracing::info!("the store answers again");
        }
        if changes.is_all && was_known {
            tracing::warn!("the store is another copy than before: all keys are read anew");
        }
    }

    /// Has a key, which was revoked, open nothing any more, whatever a question that was begun before says.
    pub(super) fn forget(&self, id: &str) {
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        pages.forget(id);
    }

    /// Has what opened a key, which got another secret, end `at` then, unless it ends before.
    pub(super) fn end_others(&self, id: &str, secret: &KeySecret, at: SystemTime) {
        let stays = self.store.hash(secret.as_str().as_bytes());
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        pages.end_others(id, stays, at);
    }

    /// Asks what changed now, so that what this gateway changed itself is in force. Where it has no
    /// answer, it is asked again soon.
    pub(super) async fn refresh(&self) {
        let turn = self.turn.lock().await;
        let _ = self.ask().await;
        drop(turn);
    }

    /// Follows the database; never ends.
    pub(super) async fn follow(&self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // It says itself that it failed, and is tried again.
            self.refresh().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keys that open something.
    pub(super) fn len(&self) -> usize {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        pages.keys.len()
    }

    /// Questions to the database so far, and those without an answer.
    pub(super) fn questions(&self) -> (u64, u64) {
        (self.looks.get(), self.failed.get())
    }

    /// Whether the database answered when it was asked last.
    pub(super) fn is_reached(&self) -> bool {
        self.state().is_reached
    }
}

/// The database gave no answer, which was said.
struct Unreached;

impl State {
    /// Whether one more question may be asked because of an unknown key.
    fn may_look(&mut self) -> bool {
        let passed = self.since.elapsed().as_nanos() / LOOK_EVERY.as_nanos();
        if passed > 0 {
            let more = u32::try_from(passed).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(MOST_LOOKS);
            self.since = Instant::now();
        }
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests;
