//! The sealing keys: made in memory, published before they are needed, forgotten after
//! they end.

use std::{cmp::Reverse, time::Duration};

use attestation::{
    Dialect, MAX_KEY_LIFE, PublicKey,
    statement::{ClaimedKey, Suite},
};

use crate::{
    config::node::KeysConfig,
    seal::{
        EhbpKeys, EhbpSecret, Kem, NodeSecret, OpeningKeys, RandomError, SeedKeys, SeedSecret,
        encode_key_configs,
    },
};

/// A key is good from a little before it is made, so that a sealer whose clock is behind within
/// the tolerated difference uses it at once.
const NOT_BEFORE_SLACK_S: u64 = 120;
/// Seconds after its end in which a key still opens (docs/wire.md, "Keys").
const OPENS_AFTER_END_S: u64 = 600;
/// The next key is published when this part of the newest key's life is left.
const REMAINING_PART: u64 = 4;

/// The last second in which a key opens.
pub(crate) fn opens_until(key: &ClaimedKey) -> u64 {
    key.not_after.saturating_add(OPENS_AFTER_END_S)
}

/// What a key of the ring is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// This project's own sealing.
    Own(Kem),
    /// A dialect.
    Of(Dialect),
}

impl Purpose {
    fn suite(self) -> Suite {
        match self {
            Self::Own(Kem::X25519) => Suite::X25519,
            Self::Own(Kem::XWing) => Suite::XWing,
            Self::Of(dialect) => dialect.suite(),
        }
    }
}

/// The keys that open.
#[derive(Debug)]
pub(crate) struct KeyRing {
    life_s: u64,
    /// Each once, in the order in which keys of one age are published.
    purposes: Vec<Purpose>,
    opening: OpeningKeys,
    ehbp: EhbpKeys,
    seed: SeedKeys,
    /// Of all suites, the newest first.
    keys: Vec<ClaimedKey>,
}

impl KeyRing {
    /// A ring with one fresh key of each suite, the first under a random id.
    ///
    /// # Errors
    /// [`RandomError`] if the system gives no randomness.
    pub(crate) fn of(
        config: &KeysConfig,
        dialects: &[Dialect],
        now: u64,
    ) -> Result<Self, RandomError> {
        let life = Duration::from_secs(config.life_s.get());
        Self::new(life, &config.suites, dialects, now)
    }

    fn new(
        life: Duration,
        kems: &[Kem],
        dialects: &[Dialect],
        now: u64,
    ) -> Result<Self, RandomError> {
        // The better one first, however they are configured.
        let own = [Kem::XWing, Kem::X25519].into_iter();
        let own = own.filter(|kem| kems.contains(kem)).map(Purpose::Own);
        let mut ring = Self {
            life_s: life.as_secs(),
            purposes: own
                .chain(dialects.iter().copied().map(Purpose::Of))
                .collect(),
            opening: OpeningKeys::new(),
            ehbp: EhbpKeys::new(),
            seed: SeedKeys::new(),
            keys: Vec::new(),
        };
        ring.turn(now)?;
        Ok(ring)
    }

    /// Adds the next keys when they are due and forgets keys that no longer open.
    ///
    /// # Errors
    /// [`RandomError`] if the system gives no randomness for a new key; the old ones stay.
    pub(crate) fn turn(&mut self, now: u64) -> Result<(), RandomError> {
        let (live, ended) = std::mem::take(&mut self.keys)
            .into_iter()
            .partition::<Vec<_>, _>(|key| now <= opens_until(key));
        self.keys = live;
        ended.iter().for_each(|key| self.forget(key));
        for purpose in self.purposes.clone() {
            if self.is_due(purpose, now) {
                self.add(purpose, now)?;
            }
        }
        Ok(())
    }

    /// Whether turning would change nothing.
    pub(crate) fn rests(&self, now: u64) -> bool {
        let none_ended = self.keys.iter().all(|key| now <= opens_until(key));
        none_ended && !self.purposes.iter().any(|it| self.is_due(*it, now))
    }

    /// Forgets all keys but those with these ids.
    pub(crate) fn keep_only(&mut self, ids: &[u8]) {
        let (kept, undone) = std::mem::take(&mut self.keys)
            .into_iter()
            .partition::<Vec<_>, _>(|key| ids.contains(&key.key_id));
        self.keys = kept;
        undone.iter().for_each(|key| self.forget(key));
    }

    /// The ids of all keys that open.
    pub(crate) fn ids(&self) -> Vec<u8> {
        self.keys.iter().map(|key| key.key_id).collect()
    }

    fn forget(&mut self, key: &ClaimedKey) {
        self.opening.remove(key.key_id);
        self.ehbp.remove(key.key_id);
        self.seed.remove(key.key_id);
    }

    fn is_due(&self, purpose: Purpose, now: u64) -> bool {
        self.keys_for(purpose).next().is_none_or(|newest| {
            newest
                .not_after
                .saturating_sub(self.life_s / REMAINING_PART)
                <= now
        })
    }

    fn add(&mut self, purpose: Purpose, now: u64) -> Result<(), RandomError> {
        // A ring holds few keys: an id comes round again long after its last use, and one is free.
        let Some(key_id) = self.free_id() else {
            return Ok(());
        };
        let public_key = self.generate(purpose, key_id)?;
        let not_before = now.saturating_sub(NOT_BEFORE_SLACK_S);
        let latest = not_before.saturating_add(MAX_KEY_LIFE.as_secs());
        let key = ClaimedKey {
            key_id,
            suite: purpose.suite(),
            public_key,
            not_before,
            not_after: now.saturating_add(self.life_s).min(latest),
        };
        self.keys.insert(0, key);
        Ok(())
    }

    fn generate(&mut self, purpose: Purpose, key_id: u8) -> Result<PublicKey, RandomError> {
        Ok(match purpose {
            Purpose::Own(kem) => {
                let secret = NodeSecret::generate(kem)?;
                let public_key = secret.public_key();
                self.opening.insert(key_id, secret);
                public_key
            }
            Purpose::Of(Dialect::Ehbp) => {
                let secret = EhbpSecret::generate()?;
                let public_key = secret.public_key();
                self.ehbp.insert(key_id, secret);
                PublicKey::X25519(public_key)
            }
            Purpose::Of(Dialect::Seed) => {
                let secret = SeedSecret::generate()?;
                let public_key = secret.public_key();
                self.seed.insert(key_id, secret);
                PublicKey::X25519(public_key)
            }
        })
    }

    /// The id after the newest key's that no other key has.
    fn free_id(&self) -> Option<u8> {
        let next = |key: &ClaimedKey| key.key_id.wrapping_add(1);
        let first = self.keys.first().map_or_else(rand::random, next);
        (0..=u8::MAX)
            .map(|step| first.wrapping_add(step))
            .find(|id| self.keys.iter().all(|key| key.key_id != *id))
    }

    /// What requests are opened with.
    pub(crate) fn opening(&self) -> &OpeningKeys {
        &self.opening
    }

    /// What requests in EHBP are opened with.
    pub(crate) fn ehbp(&self) -> &EhbpKeys {
        &self.ehbp
    }

    /// What requests in the seed's format are opened with.
    pub(crate) fn seed(&self) -> &SeedKeys {
        &self.seed
    }

    /// The last second in which the key of that id opens; `None` if there is none.
    pub(crate) fn opens_until(&self, key_id: u8) -> Option<u64> {
        let mut keys = self.keys.iter();
        keys.find(|key| key.key_id == key_id).map(opens_until)
    }

    /// The keys that a sealer may still use at `now`, by suite and the newest first.
    pub(crate) fn published(&self, now: u64) -> Vec<ClaimedKey> {
        let live = |key: &&ClaimedKey| now < key.not_after;
        let purposes = self.purposes.iter();
        purposes
            .flat_map(|purpose| self.keys_for(*purpose).filter(live).cloned())
            .collect()
    }

    /// The published keys of this project's own suites as `application/ohttp-keys`: the newest first,
    /// X-Wing before X25519 of the same age.
    pub(crate) fn configs(&self, now: u64) -> Vec<u8> {
        let own = |purpose: &&Purpose| matches!(purpose, Purpose::Own(_));
        let mut keys: Vec<_> = self
            .purposes
            .iter()
            .filter(own)
            .flat_map(|purpose| self.keys_for(*purpose))
            .filter(|key| now < key.not_after)
            .collect();
        keys.sort_by_key(|key| Reverse(key.not_before));
        encode_key_configs(keys.iter().map(|key| (key.key_id, &key.public_key)))
    }

    /// The newest published key of a dialect.
    pub(crate) fn newest_of(&self, dialect: Dialect, now: u64) -> Option<[u8; 32]> {
        let mut keys = self.keys_for(Purpose::Of(dialect));
        let newest = keys.find(|key| now < key.not_after)?;
        newest.public_key.x25519().copied()
    }

    /// The keys for one purpose, newest first.
    fn keys_for(&self, purpose: Purpose) -> impl Iterator<Item = &ClaimedKey> {
        let suite = purpose.suite();
        self.keys.iter().filter(move |key| key.suite == suite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leftovers::{Needle, tried_alone};

    const DAY: u64 = 24 * 60 * 60;

    /// A ring of one suite.
    fn ring(life_s: u64, now: u64) -> KeyRing {
        let life = Duration::from_secs(life_s);
        KeyRing::new(life, &[Kem::X25519], &[], now).unwrap()
    }

    #[test]
    fn the_next_key_is_published_before_the_old_one_ends() {
        let mut ring = ring(DAY, 1_000_000);
        let first = ring.published(1_000_000)[0].clone();
        assert_eq!(
            (first.not_before, first.not_after),
            (999_880, 1_000_000 + DAY)
        );

        let due = first.not_after - DAY / 4;
        ring.turn(due - 1).unwrap();
        assert_eq!(ring.published(due), std::slice::from_ref(&first));
        ring.turn(due).unwrap();
        ring.turn(due).unwrap();
        let both = ring.published(due);
        assert_eq!(both.len(), 2, "once");
        assert_eq!(both[0].key_id, first.key_id.wrapping_add(1), "newest first");
        assert_ne!(both[0].public_key, first.public_key);
        assert_eq!(both[1], first);
    }

    #[test]
    fn no_key_lives_longer_than_a_sealer_takes() {
        let ring = ring(MAX_KEY_LIFE.as_secs(), 1_000_000);
        let key = ring.published(1_000_000)[0].clone();
        assert_eq!(key.not_after - key.not_before, MAX_KEY_LIFE.as_secs());
    }

    #[test]
    fn a_key_opens_ten_minutes_past_its_end_and_is_then_forgotten() {
        let mut ring = ring(DAY, 1_000_000);
        let first = ring.published(1_000_000)[0].clone();
        ring.turn(first.not_after).unwrap();
        assert_eq!(
            ring.published(first.not_after).len(),
            1,
            "no longer published"
        );
        ring.turn(first.not_after + 600).unwrap();
        assert_eq!(ring.keys.len(), 2);
        ring.turn(first.not_after + 601).unwrap();
        assert_eq!(ring.keys.len(), 1);
        assert!(!ring.keys.contains(&first));
    }

    #[test]
    fn ids_wrap_and_a_node_that_slept_gets_a_key() {
        let mut ring = ring(DAY, 0);
        ring.keys[0].key_id = 255;
        ring.turn(DAY).unwrap();
        assert_eq!(ring.keys[0].key_id, 0);
        ring.turn(100 * DAY).unwrap();
        assert_eq!(ring.published(100 * DAY).len(), 1);
    }

    #[test]
    fn dialects_have_keys_of_their_own_that_turn_alike() {
        let day = Duration::from_secs(DAY);
        let kems = [Kem::X25519, Kem::XWing];
        let mut ring = KeyRing::new(day, &kems, &Dialect::ALL, 1_000_000).unwrap();
        let suites = |keys: &[ClaimedKey]| keys.iter().map(|key| key.suite).collect::<Vec<_>>();
        let first = ring.published(1_000_000);
        let (own, ehbp, seed) = (Suite::X25519, Suite::EhbpX25519, Suite::SeedX25519);
        let pq = Suite::XWing;
        assert_eq!(suites(&first), [pq, own, ehbp, seed]);

        let due = first[0].not_after - DAY / 4;
        ring.turn(due).unwrap();
        ring.turn(due).unwrap();
        let both = ring.published(due);
        assert_eq!(suites(&both), [pq, pq, own, own, ehbp, ehbp, seed, seed]);
        let ids: std::collections::HashSet<u8> = both.iter().map(|key| key.key_id).collect();
        assert_eq!(ids.len(), 8, "every id once");
        assert_eq!(
            ring.newest_of(Dialect::Ehbp, due).as_ref(),
            both[4].public_key.x25519()
        );
        let older = [1, 3, 5, 7].map(|at: usize| both[at].clone());
        assert_eq!(older, first[..]);
        let end = ring.opens_until(first[2].key_id).unwrap();
        assert_eq!(end, first[2].not_after + 600);
        ring.turn(end + 1).unwrap();
        assert_eq!(ring.opens_until(first[2].key_id), None);
    }

    #[test]
    fn the_list_has_the_newest_first_and_x_wing_before_x25519_of_the_same_age() {
        let day = Duration::from_secs(DAY);
        let kems = [Kem::X25519, Kem::XWing];
        let mut ring = KeyRing::new(day, &kems, &Dialect::ALL, 1_000_000).unwrap();
        ring.turn(1_000_000 + DAY).unwrap();
        let list = ring.configs(1_000_000);
        let mut rest = &list[..];
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let (config, after) =
                rest[2..].split_at(usize::from(rest[0]) << 8 | usize::from(rest[1]));
            seen.push((config[0], config.len()));
            rest = after;
        }
        let [new_pq, old_pq, new, old] =
            [0, 1, 2, 3].map(|at| ring.published(1_000_000)[at].key_id);
        assert_eq!(seen, [(new_pq, 1225), (new, 45), (old_pq, 1225), (old, 45)]);
    }

    /// Not only are they no longer opened with: they are nowhere.
    #[test]
    fn secrets_whose_time_is_over_are_gone() {
        if tried_alone(module_path!(), "secrets_whose_time_is_over_are_gone") {
            return;
        }
        let kems = [Kem::X25519, Kem::XWing];
        let dialects = [Dialect::Ehbp, Dialect::Seed];
        let life = Duration::from_secs(DAY);
        let mut ring = KeyRing::new(life, &kems, &dialects, 1_000_000).unwrap();
        let (mut needles, never) = ring.opening.needles();
        needles.extend(ring.ehbp.needles());
        needles.extend(ring.seed.needles());
        assert_eq!((needles.len(), never.len()), (7, 2));
        let count = |needles: &[Needle]| needles.iter().map(Needle::count).collect::<Vec<_>>();
        let end = opens_until(&ring.keys[0]);
        for now in [end - 600 - DAY / 4, end] {
            ring.turn(now).unwrap();
            assert!(count(&needles).iter().all(|count| *count > 0), "at {now}");
        }
        ring.turn(end + 1).unwrap();
        for needle in needles.iter().chain(&never) {
            assert_eq!(needle.count(), 0, "{}", needle.name);
        }
        assert_eq!(ring.opening.needles().0.len(), 5, "their successors live");
    }
}
