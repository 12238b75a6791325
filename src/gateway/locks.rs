//! Locks: a node's public key for a caller's next request, and a place with that node held for it.
//!
//! A lock is its caller's alone, serves once, and ends by itself. Its id is random, so that nobody
//! guesses another's; and who did could not use it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{authenticate::Caller, error::Error, node::Chosen};
use crate::{config::gateway::LocksConfig, openai::nodes::MAX_SAFE};

/// What a lock is for.
#[must_use]
#[derive(Debug)]
pub(super) struct Lock {
    pub(super) model: Arc<str>,
    /// The public key that the caller was given.
    pub(super) key: [u8; 32],
    /// The node, and a place with it.
    pub(super) node: Chosen,
}

/// All locks.
#[derive(Debug)]
pub(super) struct Locks {
    pub(super) limits: LocksConfig,
    table: Mutex<Table>,
    /// Wakes the task that ends locks: the first of them ends sooner now.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Table {
    held: HashMap<u64, Held>,
    /// How many each caller has, by its name; those with none are left out.
    of_caller: HashMap<Arc<str>, usize>,
    /// The ends of all that are held, with their ids.
    ends: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Held {
    caller: Arc<str>,
    lock: Lock,
    ends: Instant,
}

impl Locks {
    pub(super) fn new(limits: LocksConfig) -> Self {
        Self {
            limits,
            table: Mutex::default(),
            sooner: Notify::new(),
        }
    }

    /// Whether a caller may take another.
    ///
    /// # Errors
    /// [`Error::TooManyLocks`].
    pub(super) fn check_room(&self, caller: &Caller) -> Result<(), Error> {
        self.table().check_room(caller, &self.limits)
    }

    /// Gives a lock to a caller, for as long as `time`, and says its id.
    ///
    /// # Errors
    /// [`Error::TooManyLocks`].
    pub(super) fn give(&self, caller: &Caller, lock: Lock, time: Duration) -> Result<u64, Error> {
        let ends = Instant::now()
            .checked_add(time)
            .ok_or(Error::TooManyLocks)?;
        let mut table = self.table();
        table.check_room(caller, &self.limits)?;
        let mut id = random_id();
        while table.held.contains_key(&id) {
            id = random_id();
        }
        let name = Arc::clone(&caller.name);
        let count = table.of_caller.entry(Arc::clone(&name)).or_default();
        *count = count.saturating_add(1);
        let is_first = table.ends.first().is_none_or(|(first, _)| ends < *first);
        table.ends.insert((ends, id));
        let held = Held {
            caller: name,
            lock,
            ends,
        };
        table.held.insert(id, held);
        drop(table);
        if is_first {
            self.sooner.notify_one();
        }
        Ok(id)
    }

    /// Takes the lock of this caller for a request to this model and key; it serves no other.
    ///
    /// # Errors
    /// [`Error::LockNotFound`] whatever it is that does not fit.
    pub(super) fn take(
        &self,
        id: u64,
        caller: &Caller,
        model: &str,
        key: &[u8; 32],
    ) -> Result<Lock, Error> {
        let mut table = self.table();
        let fits = |held: &Held| {
            held.caller == caller.name
                && *held.lock.model == *model
                && held.lock.key == *key
                && Instant::now() < held.ends
        };
        if !table.held.get(&id).is_some_and(fits) {
            return Err(Error::LockNotFound);
        }
        table.remove(id).ok_or(Error::LockNotFound)
    }

    /// Ends locks that nobody used; never ends itself.
    pub(super) async fn expire(&self) {
        loop {
            let (ended, next) = self.table().ended(Instant::now());
            // Outside of the table: dropping one gives back a place with its node.
            drop(ended);
            let Some(next) = next else {
                self.sooner.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = sleep_until(next) => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn check_room(&self, caller: &Caller, limits: &LocksConfig) -> Result<(), Error> {
        let own = self.of_caller.get(&caller.name).copied().unwrap_or(0);
        if own >= limits.per_key.get() || self.held.len() >= limits.total.get() {
            return Err(Error::TooManyLocks);
        }
        Ok(())
    }

    fn remove(&mut self, id: u64) -> Option<Lock> {
        let Held { caller, lock, ends } = self.held.remove(&id)?;
        self.ends.remove(&(ends, id));
        let left = self.of_caller.get_mut(&caller).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            self.of_caller.remove(&caller);
        }
        Some(lock)
    }

    /// Takes out what has ended, and says when the next ends.
    fn ended(&mut self, now: Instant) -> (Vec<Lock>, Option<Instant>) {
        let mut ended = Vec::new();
        while let Some((ends, id)) = self.ends.first().copied() {
            if ends > now {
                return (ended, Some(ends));
            }
            self.ends.remove(&(ends, id));
            ended.extend(self.remove(id));
        }
        (ended, None)
    }
}

/// A number of 53 random bits that is not zero.
fn random_id() -> u64 {
    use rand::RngExt as _;
    rand::rng().random_range(1..=MAX_SAFE)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use tokio::time::{advance, sleep};

    use super::*;
    use crate::{
        gateway::{
            authenticate::Callers,
            labels::Labels,
            node::{Node, Terms},
        },
        sealer::Roots,
    };

    const KEY: [u8; 32] = [5; 32];

    fn locks(per_key: usize, total: usize) -> Arc<Locks> {
        let limit = |count| NonZeroUsize::new(count).unwrap();
        Arc::new(Locks::new(LocksConfig {
            per_key: limit(per_key),
            total: limit(total),
            ..LocksConfig::default()
        }))
    }

    fn node() -> Arc<Node> {
        let url = "http://127.0.0.1:1".parse().unwrap();
        Arc::new(Node::new(url, None, Roots::Public, Terms::default()))
    }

    fn lock(node: &Arc<Node>) -> Lock {
        Lock {
            model: "m".into(),
            key: KEY,
            node: Chosen::new(node).unwrap(),
        }
    }

    fn callers() -> [Arc<Caller>; 2] {
        let digest = |byte: u8| hex::encode([byte; 32]);
        let file = format!(
            "[[key]]\nname = \"a\"\nsha256 = \"{}\"\n[[key]]\nname = \"b\"\nsha256 = \"{}\"\n",
            digest(1),
            digest(2)
        );
        let keys = toml::from_str(&file).unwrap();
        let callers = Callers::with_keys(keys, &Labels::default(), 1, None).unwrap();
        let Callers::Keys(keys) = callers else {
            unreachable!("keys were given")
        };
        [1, 2].map(|byte| Arc::clone(&keys[&[byte; 32]]))
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_serves_its_caller_once_for_what_it_was_taken_for() {
        let (locks, node, [a, b]) = (locks(4, 4), node(), callers());
        let time = Duration::from_secs(5);
        let id = locks.give(&a, lock(&node), time).unwrap();
        assert!((1..=MAX_SAFE).contains(&id));
        assert_eq!(node.in_flight(), 1);
        let cases = [
            ("another caller", id, &b, "m", KEY),
            ("another model", id, &a, "n", KEY),
            ("another key", id, &a, "m", [6; 32]),
            ("another lock", id ^ 1, &a, "m", KEY),
            ("no lock", 0, &a, "m", KEY),
        ];
        for (name, id, caller, model, key) in cases {
            let taken = locks.take(id, caller, model, &key);
            assert!(matches!(taken, Err(Error::LockNotFound)), "{name}");
        }
        let taken = locks.take(id, &a, "m", &KEY).unwrap();
        assert_eq!(node.in_flight(), 1, "held on");
        assert!(locks.take(id, &a, "m", &KEY).is_err(), "used");
        drop(taken);
        assert_eq!(node.in_flight(), 0);
        let table = locks.table();
        assert!(table.held.is_empty() && table.ends.is_empty() && table.of_caller.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_nobody_uses_gives_its_place_back_at_its_end() {
        let (locks, node, [a, _]) = (locks(4, 4), node(), callers());
        let expiring = Arc::clone(&locks);
        let task = tokio::spawn(async move { expiring.expire().await });
        let late = locks.give(&a, lock(&node), Duration::from_secs(9)).unwrap();
        sleep(Duration::from_secs(1)).await;
        let soon = locks.give(&a, lock(&node), Duration::from_secs(5)).unwrap();
        sleep(Duration::from_millis(4900)).await;
        assert_eq!(node.in_flight(), 2);
        sleep(Duration::from_millis(200)).await;
        assert_eq!(node.in_flight(), 1);
        assert!(locks.take(soon, &a, "m", &KEY).is_err());
        sleep(Duration::from_millis(3000)).await;
        assert_eq!(node.in_flight(), 0);
        assert!(locks.take(late, &a, "m", &KEY).is_err());
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_has_ended_before_anybody_looks() {
        let (locks, node, [a, _]) = (locks(1, 1), node(), callers());
        let id = locks.give(&a, lock(&node), Duration::from_secs(5)).unwrap();
        advance(Duration::from_secs(5)).await;
        assert!(locks.take(id, &a, "m", &KEY).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn locks_are_bounded_for_each_caller_and_in_all() {
        let (locks, node, [a, b]) = (locks(2, 3), node(), callers());
        let time = Duration::from_secs(5);
        let give = |caller: &Caller| locks.give(caller, lock(&node), time);
        let first = give(&a).unwrap();
        give(&a).unwrap();
        assert!(matches!(give(&a), Err(Error::TooManyLocks)), "its share");
        assert!(locks.check_room(&a).is_err());
        give(&b).unwrap();
        assert!(matches!(give(&b), Err(Error::TooManyLocks)), "in all");
        assert_eq!(node.in_flight(), 3, "what was refused holds nothing");
        drop(locks.take(first, &a, "m", &KEY).unwrap());
        give(&b).unwrap();
    }
}
