//! The keys of the store, in memory.
//!
//! All of them, so that no request waits for the database and no number of wrong keys is a number of
//! questions to it. What changed there is asked for every so often; an unknown key is a reason to ask at
//! once, since it may be new, but only so often, and all who wait at a time wait for one answer.
//!
//! While the database is away, known keys go on for a bounded time. Who is not known then is told that
//! nobody knows, and not that his key is wrong.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{
    admit::Room,
    authenticate::Caller,
    error::Error,
    labels::{Labels, Wish},
    limits::{Meter, Metered},
};
use crate::{
    clock::Clock,
    config::store::StoreConfig,
    store::{Changes, Key, KeyHash, Spend, Store, StoreError},
    telemetry::metrics::Counter,
};

mod fleet;

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

/// What is known of the keys.
#[derive(Debug)]
struct Pages {
    by_hash: HashMap<KeyHash, Entry>,
    keys: HashMap<String, Known>,
    labels: Arc<Labels>,
    places: usize,
}

#[derive(Debug)]
struct Entry {
    caller: Arc<Caller>,
    /// From then on it opens nothing.
    until: Option<SystemTime>,
}

/// A key, with what its requests hold.
#[derive(Debug)]
struct Known {
    key: Key,
    held: Held,
}

/// What its requests hold and did, whatever becomes of its row.
#[derive(Debug)]
struct Held {
    room: Room,
    meter: Arc<Meter>,
}

impl Known {
    fn has_budgets(&self) -> bool {
        let terms = self.key.terms.as_ref();
        terms.is_some_and(|terms| !terms.budgets.is_empty())
    }

    fn is_metered(&self) -> bool {
        let terms = self.key.terms.as_ref();
        self.has_budgets() || terms.is_some_and(|terms| !terms.limits.is_none())
    }
}

#[derive(Debug)]
struct State {
    /// The change that is known.
    n: i64,
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
        let changes = store.changes(-1).await?;
        let now = Instant::now();
        let book = Self {
            store,
            clock,
            stale: config.stale(),
            pages: RwLock::new(Pages {
                by_hash: HashMap::new(),
                keys: HashMap::new(),
                labels: Arc::default(),
                places: 0,
            }),
            turn: tokio::sync::Mutex::default(),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            state: Mutex::new(State {
                n: -1,
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
        let n = self.state().n;
        let asking = async {
            let changes = self.store.changes(n).await?;
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
        for key in changes.keys {
            pages.put(&self.store, key);
        }
        pages.learn(spent);
        drop(pages);
        let mut state = self.state();
        state.n = changes.n;
        state.answered = Instant::now();
        if !std::mem::replace(&mut state.is_reached, true) {
            tracing::info!("the store answers again");
        }
    }

    /// Has the key of a name, which was revoked, open nothing any more.
    pub(super) fn forget(&self, name: &str) {
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        let of_name = pages.keys.values().find(|known| known.key.name == name);
        let hashes = of_name.map(|known| known.key.secrets.clone());
        for (hash, _) in hashes.into_iter().flatten() {
            pages.by_hash.remove(&hash);
        }
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

impl Pages {
    /// A key as it is now, in place of what it was.
    fn put(&mut self, store: &Store, key: Key) {
        let before = self.keys.remove(&key.id);
        if let Some(before) = &before {
            for (hash, _) in &before.key.secrets {
                self.by_hash.remove(hash);
            }
        }
        // What its requests hold counts on, also for those that were let in before.
        self.add(store, key, before.map(|before| before.held));
    }

    /// Those whose budgets have to be known.
    fn learn(&self, spent: &[Spend]) {
        for spend in spent {
            if let Some(known) = self.keys.get(&spend.key_id) {
                known.held.meter.learn([spend]);
            }
        }
    }

    fn budgeted(&self) -> BTreeSet<String> {
        let known = self.keys.values().filter(|known| known.has_budgets());
        known.map(|known| known.key.id.clone()).collect()
    }

    fn add(&mut self, store: &Store, key: Key, held: Option<Held>) {
        if key.revoked_at.is_some() {
            return;
        }
        let Some(terms) = key.terms.clone() else {
            tracing::error!(
                key = key.name,
                "its terms are of a newer version: it is not taken"
            );
            return;
        };
        let wish = self.labels.wish(terms.regions.as_deref(), &terms.tags);
        let wish = wish.unwrap_or_else(|error| {
            tracing::warn!(key = key.name, %error, "no node takes its requests");
            Wish::NONE
        });
        let held = held.unwrap_or_else(|| Held {
            room: Room::new(self.places),
            meter: Arc::default(),
        });
        let metered = Metered::new(&held.meter, &terms);
        let rooms = (held.room.bounded(self.places), metered);
        let pseudonym = Some(store.pseudonym(&key.id));
        let caller = Caller::new((&key.id, &key.name), pseudonym, (terms, wish), rooms);
        for (hash, ends_at) in &key.secrets {
            let ends = [*ends_at, key.expires_at].into_iter().flatten();
            let entry = Entry {
                caller: Arc::clone(&caller),
                until: ends.min(),
            };
            self.by_hash.insert(*hash, entry);
        }
        self.keys.insert(key.id.clone(), Known { key, held });
    }
}

fn has_budget(key: &Key) -> bool {
    key.terms
        .as_ref()
        .is_some_and(|terms| !terms.budgets.is_empty())
}

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
mod tests {
    use super::*;
    use crate::{
        config::{store::StoreUrl, terms::KeyTerms},
        store::{KeySecret, NewKey},
    };

    struct Held {
        store: Store,
        book: Arc<Book>,
        _dir: tempfile::TempDir,
    }

    async fn held(stale_s: u32) -> Held {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig {
            url: StoreUrl::Sqlite(dir.path().join("db")),
            stale_s: stale_s.try_into().unwrap(),
            ..StoreConfig::default()
        };
        let store = Store::open(&config).await.unwrap();
        let book = Book::open(store.clone(), &config, Clock::system());
        let book = book.await.unwrap();
        book.arrange(&Arc::default(), 3);
        Held {
            store,
            book,
            _dir: dir,
        }
    }

    impl Held {
        async fn make(
            &self,
            name: &str,
            terms: KeyTerms,
            expires_at: Option<SystemTime>,
        ) -> KeySecret {
            let secret = KeySecret::generate();
            let key = NewKey {
                name: name.to_owned(),
                owner: None,
                terms,
                expires_at,
            };
            let now = Clock::system().now();
            self.store.create_key(&key, &secret, now).await.unwrap();
            secret
        }

        async fn find(&self, key: &KeySecret) -> Result<String, Error> {
            let caller = self.book.find(key.as_str().as_bytes()).await?;
            Ok(caller.name.to_string())
        }
    }

    #[tokio::test]
    async fn a_new_key_is_known_at_once_and_a_revoked_one_after_the_next_look() {
        let held = held(60).await;
        let secret = held.make("a", KeyTerms::default(), None).await;
        assert_eq!(held.find(&secret).await.unwrap(), "a");
        held.store
            .revoke_key("a", Clock::system().now())
            .await
            .unwrap();
        assert_eq!(held.find(&secret).await.unwrap(), "a", "nobody has looked");
        held.book.ask().await.ok().unwrap();
        assert!(matches!(
            held.find(&secret).await,
            Err(Error::Unauthenticated)
        ));
        assert_eq!(held.book.len(), 0);
    }

    #[tokio::test]
    async fn a_key_that_was_revoked_here_opens_nothing_though_the_store_is_gone() {
        let held = held(60).await;
        let (gone, stays) = (
            held.make("gone", KeyTerms::default(), None).await,
            held.make("stays", KeyTerms::default(), None).await,
        );
        held.find(&gone).await.unwrap();
        held.store.close().await;
        held.book.forget("gone");
        assert!(held.find(&gone).await.is_err());
        assert_eq!(held.find(&stays).await.unwrap(), "stays");
    }

    #[tokio::test]
    async fn a_key_that_has_expired_opens_nothing() {
        let held = held(60).await;
        let now = Clock::system().now();
        let over = held.make("over", KeyTerms::default(), Some(now)).await;
        let later = Some(now + Duration::from_secs(600));
        let counts = held.make("counts", KeyTerms::default(), later).await;
        assert!(matches!(
            held.find(&over).await,
            Err(Error::Unauthenticated)
        ));
        assert_eq!(held.find(&counts).await.unwrap(), "counts");
    }

    #[tokio::test]
    async fn many_wrong_keys_are_few_questions() {
        let held = held(60).await;
        let (before, _) = held.book.questions();
        for n in 0..1_000 {
            let found = held.book.find(format!("wrong {n}").as_bytes()).await;
            assert!(matches!(found, Err(Error::Unauthenticated)), "{n}");
        }
        let (after, _) = held.book.questions();
        // Some more come with the time that it takes.
        assert!(after - before <= 100, "{}", after - before);
        // A key that is made now is known with the next look all the same.
        let secret = held.make("a", KeyTerms::default(), None).await;
        held.book.ask().await.ok().unwrap();
        assert_eq!(held.find(&secret).await.unwrap(), "a");
    }

    #[tokio::test]
    async fn without_the_store_known_keys_go_on_for_their_time_and_nobody_else_is_called_wrong() {
        let held = held(60).await;
        let secret = held.make("a", KeyTerms::default(), None).await;
        held.find(&secret).await.unwrap();
        held.store.close().await;
        assert_eq!(held.find(&secret).await.unwrap(), "a");
        for n in 0..20 {
            let found = held.book.find(format!("wrong {n}").as_bytes()).await;
            assert!(matches!(found, Err(Error::StoreUnavailable)), "{n}");
        }
        assert!(!held.book.is_reached());
        held.book.state().answered -= Duration::from_secs(61);
        assert!(matches!(
            held.find(&secret).await,
            Err(Error::StoreUnavailable)
        ));
    }

    #[tokio::test]
    async fn what_a_keys_requests_hold_counts_on_when_it_changes() {
        let held = held(60).await;
        let secret = held.make("a", KeyTerms::default(), None).await;
        let caller = held.book.find(secret.as_str().as_bytes()).await.unwrap();
        let taken = caller.places.take(2).unwrap();
        let now = Clock::system().now();
        let other = KeySecret::generate();
        let overlap = Duration::from_secs(60);
        held.store
            .rotate_key("a", &other, overlap, now)
            .await
            .unwrap();
        held.book.ask().await.ok().unwrap();
        held.book.arrange(&Arc::default(), 2);
        for secret in [secret, other] {
            let caller = held.book.find(secret.as_str().as_bytes()).await.unwrap();
            assert_eq!(caller.places.taken(), 2);
            assert!(caller.places.take(1).is_none());
        }
        drop(taken);
    }

    #[tokio::test]
    async fn a_key_for_nodes_that_there_are_none_of_gets_none() {
        let held = held(60).await;
        let terms = KeyTerms {
            tags: vec![crate::config::gateway::Label::new("nowhere").unwrap()],
            ..KeyTerms::default()
        };
        let secret = held.make("a", terms, None).await;
        let caller = held.book.find(secret.as_str().as_bytes()).await.unwrap();
        assert!(!caller.wish.takes(u64::MAX));
    }
}
