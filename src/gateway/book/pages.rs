//! What a book knows of each key, and of what its requests hold.

use std::{
    collections::{BTreeSet, HashMap},
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
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) by_hash: HashMap<KeyHash, Entry>,
    pub(super) keys: HashMap<String, Known>,
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

pub(super) fn has_budget(key: &Key) -> bool {
    key.terms
        .as_ref()
        .is_some_and(|terms| !terms.budgets.is_empty())
}
