//! What a book knows of each key, and of what its requests hold.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use crate::{
    gateway::{
        admit::Room,
        authenticate::Caller,
        labels::{Labels, Wish},
        limits::{Meter, Metered},
    },
    store::{Key, KeyHash, Spend, Store},
};

/// What is known of the keys.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pub(super) by_hash: HashMap<KeyHash, Entry>,
    pub(super) keys: HashMap<String, Known>,
    /// Keys that were revoked here. No answer of the database makes one open again: it can be of before, or
    /// of another copy. An administrator asked for each, and its row is kept for ever as well.
    revoked: HashSet<String>,
    /// When secrets end that were ended here, until the database says the same.
    ends: HashMap<KeyHash, SystemTime>,
    pub(super) labels: Arc<Labels>,
    pub(super) places: usize,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) caller: Arc<Caller>,
    /// From then on it opens nothing.
    pub(super) until: Option<SystemTime>,
}

/// A key, with what its requests hold.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) key: Key,
    pub(super) held: Held,
}

/// What its requests hold and did, whatever becomes of its row.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) room: Room,
    pub(super) meter: Arc<Meter>,
}

impl Known {
    fn has_budgets(&self) -> bool {
        let terms = self.key.terms.as_ref();
        terms.is_some_and(|terms| !terms.budgets.is_empty())
    }

    pub(super) fn is_metered(&self) -> bool {
        let terms = self.key.terms.as_ref();
        self.has_budgets() || terms.is_some_and(|terms| !terms.limits.is_none())
    }
}

impl Pages {
    /// A key as it is now, in place of what it was.
    pub(super) fn put(&mut self, store: &Store, key: Key) {
        let before = self.remove(&key.id);
        // What its requests hold counts on, also for those that were let in before.
        self.add(store, key, before.map(|before| before.held));
    }

    fn remove(&mut self, id: &str) -> Option<Known> {
        let known = self.keys.remove(id)?;
        for (hash, _) in &known.key.secrets {
            self.by_hash.remove(hash);
        }
        Some(known)
    }

    /// Removes all keys but these.
    pub(super) fn keep_only(&mut self, keys: &[Key]) {
        let stay: HashSet<_> = keys.iter().map(|key| key.id.as_str()).collect();
        let known = self.keys.keys();
        let gone: Vec<_> = known
            .filter(|id| !stay.contains(id.as_str()))
            .cloned()
            .collect();
        for id in gone {
            self.remove(&id);
        }
    }

    /// A key that was revoked.
    pub(super) fn forget(&mut self, id: &str) {
        self.remove(id);
        self.revoked.insert(id.to_owned());
    }

    /// A key that got another secret, besides which all others end.
    pub(super) fn end_others(&mut self, id: &str, stays: KeyHash, at: SystemTime) {
        let Some(known) = self.keys.get(id) else {
            return;
        };
        let goes_on = |(hash, ends_at): &&(KeyHash, Option<SystemTime>)| {
            *hash != stays && ends_at.is_none_or(|ends_at| at < ends_at)
        };
        for (hash, _) in known.key.secrets.iter().filter(goes_on) {
            let end = self.ends.entry(*hash).or_insert(at);
            *end = at.min(*end);
            if let Some(entry) = self.by_hash.get_mut(hash) {
                entry.until = earliest([entry.until, Some(at)]);
            }
        }
    }

    /// Those whose budgets have to be known.
    pub(super) fn learn(&self, spent: &[Spend], now: SystemTime) {
        for spend in spent {
            if let Some(known) = self.keys.get(&spend.key_id) {
                known.held.meter.learn([spend], now);
            }
        }
    }

    pub(super) fn budgeted(&self) -> BTreeSet<String> {
        let known = self.keys.values().filter(|known| known.has_budgets());
        known.map(|known| known.key.id.clone()).collect()
    }

    pub(super) fn add(&mut self, store: &Store, key: Key, held: Option<Held>) {
        if key.revoked_at.is_some() || self.revoked.contains(&key.id) {
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
            let ended = self.ends.get(hash).copied();
            let entry = Entry {
                caller: Arc::clone(&caller),
                until: earliest([*ends_at, key.expires_at, ended]),
            };
            self.by_hash.insert(*hash, entry);
        }
        self.keys.insert(key.id.clone(), Known { key, held });
    }
}

fn earliest<const N: usize>(ends: [Option<SystemTime>; N]) -> Option<SystemTime> {
    ends.into_iter().flatten().min()
}

pub(super) fn has_budget(key: &Key) -> bool {
    key.terms
        .as_ref()
        .is_some_and(|terms| !terms.budgets.is_empty())
}
