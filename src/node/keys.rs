//! The node's sealing keys: made in memory, published before they are needed, forgotten after
//! they end.

use std::time::Duration;

use attestation::{
    Dialect, MAX_KEY_LIFE,
    statement::{ClaimedKey, Suite},
};

use crate::seal::{
    EhbpKeys, EhbpSecret, NodeSecret, OpeningKeys, RandomError, SeedKeys, SeedSecret,
    encode_key_configs,
};

/// A key is good from a little before it is made, so that a sealer whose clock is behind within
/// the tolerated difference uses it at once.
const NOT_BEFORE_SLACK_S: u64 = 120;
/// Seconds after its end in which a key still opens (docs/wire.md, "Keys").
const OPENS_AFTER_END_S: u64 = 600;
/// The next key is published when this part of the newest key's life is left.
const REMAINING_PART: u64 = 4;

/// The last second in which the node opens with a key.
pub(super) fn opens_until(key: &ClaimedKey) -> u64 {
    key.not_after.saturating_add(OPENS_AFTER_END_S)
}

/// What a key of the ring is for: this project's own sealing, or a dialect.
type Purpose = Option<Dialect>;

fn suite(purpose: Purpose) -> Suite {
    purpose.map_or(Suite::X25519, Dialect::suite)
}

/// The keys that open.
#[derive(Debug)]
pub(super) struct KeyRing {
    life_s: u64,
    dialects: Vec<Dialect>,
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
    pub(super) fn new(life: Duration, dialects: &[Dialect], now: u64) -> Result<Self, RandomError> {
        let mut ring = Self {
            life_s: life.as_secs(),
            dialects: dialects.to_vec(),
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
    pub(super) fn turn(&mut self, now: u64) -> Result<(), RandomError> {
        let (live, ended) = std::mem::take(&mut self.keys)
            .into_iter()
            .partition::<Vec<_>, _>(|key| now <= opens_until(key));
        self.keys = live;
        for key in ended {
            self.opening.remove(key.key_id);
            self.ehbp.remove(key.key_id);
            self.seed.remove(key.key_id);
        }
        for purpose in self.purposes() {
            if self.is_due(purpose, now) {
                self.add(purpose, now)?;
            }
        }
        Ok(())
    }

    fn purposes(&self) -> Vec<Purpose> {
        let dialects = self.dialects.iter().copied().map(Some);
        [None].into_iter().chain(dialects).collect()
    }

    fn is_due(&self, purpose: Purpose, now: u64) -> bool {
        self.of(purpose).next().is_none_or(|newest| {
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
            suite: suite(purpose),
            public_key,
            not_before,
            not_after: now.saturating_add(self.life_s).min(latest),
        };
        self.keys.insert(0, key);
        Ok(())
    }

    fn generate(&mut self, purpose: Purpose, key_id: u8) -> Result<[u8; 32], RandomError> {
        let public_key;
        match purpose {
            None => {
                let secret = NodeSecret::generate()?;
                public_key = secret.public_key();
                self.opening.insert(key_id, secret);
            }
            Some(Dialect::Ehbp) => {
                let secret = EhbpSecret::generate()?;
                public_key = secret.public_key();
                self.ehbp.insert(key_id, secret);
            }
            Some(Dialect::Seed) => {
                let secret = SeedSecret::generate()?;
                public_key = secret.public_key();
                self.seed.insert(key_id, secret);
            }
        }
        Ok(public_key)
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
    pub(super) fn opening(&self) -> &OpeningKeys {
        &self.opening
    }

    /// What requests in EHBP are opened with.
    pub(super) fn ehbp(&self) -> &EhbpKeys {
        &self.ehbp
    }

    /// What requests in the seed's format are opened with.
    pub(super) fn seed(&self) -> &SeedKeys {
        &self.seed
    }

    /// The last second in which the key of that id opens; `None` if there is none.
    pub(super) fn opens_until(&self, key_id: u8) -> Option<u64> {
        let mut keys = self.keys.iter();
        keys.find(|key| key.key_id == key_id).map(opens_until)
    }

    /// The keys that a sealer may still use at `now`, by suite and the newest first.
    pub(super) fn published(&self, now: u64) -> Vec<ClaimedKey> {
        let live = |key: &&ClaimedKey| now < key.not_after;
        self.purposes()
            .into_iter()
            .flat_map(|purpose| self.of(purpose).filter(live).copied())
            .collect()
    }

    /// The published keys of this project's own suite as `application/ohttp-keys`.
    pub(super) fn configs(&self, now: u64) -> Vec<u8> {
        let keys: Vec<_> = self
            .of(None)
            .filter(|key| now < key.not_after)
            .map(|key| (key.key_id, key.public_key))
            .collect();
        encode_key_configs(&keys)
    }

    /// The newest published key of a dialect.
    pub(super) fn newest_of(&self, dialect: Dialect, now: u64) -> Option<[u8; 32]> {
        let newest = self.of(Some(dialect)).find(|key| now < key.not_after);
        newest.map(|key| key.public_key)
    }

    /// The keys for one purpose, newest first.
    fn of(&self, purpose: Purpose) -> impl Iterator<Item = &ClaimedKey> {
        let suite = suite(purpose);
        self.keys.iter().filter(move |key| key.suite == suite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn the_next_key_is_published_before_the_old_one_ends() {
        let mut ring = KeyRing::new(Duration::from_secs(DAY), &[], 1_000_000).unwrap();
        let first = ring.published(1_000_000)[0];
        assert_eq!(
            (first.not_before, first.not_after),
            (999_880, 1_000_000 + DAY)
        );

        let due = first.not_after - DAY / 4;
        ring.turn(due - 1).unwrap();
        assert_eq!(ring.published(due), [first]);
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
        let ring = KeyRing::new(MAX_KEY_LIFE, &[], 1_000_000).unwrap();
        let key = ring.published(1_000_000)[0];
        assert_eq!(key.not_after - key.not_before, MAX_KEY_LIFE.as_secs());
    }

    #[test]
    fn a_key_opens_ten_minutes_past_its_end_and_is_then_forgotten() {
        let mut ring = KeyRing::new(Duration::from_secs(DAY), &[], 1_000_000).unwrap();
        let first = ring.published(1_000_000)[0];
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
        let mut ring = KeyRing::new(Duration::from_secs(DAY), &[], 0).unwrap();
        ring.keys[0].key_id = 255;
        ring.turn(DAY).unwrap();
        assert_eq!(ring.keys[0].key_id, 0);
        ring.turn(100 * DAY).unwrap();
        assert_eq!(ring.published(100 * DAY).len(), 1);
    }

    #[test]
    fn dialects_have_keys_of_their_own_that_turn_alike() {
        let day = Duration::from_secs(DAY);
        let mut ring = KeyRing::new(day, &Dialect::ALL, 1_000_000).unwrap();
        let suites = |keys: &[ClaimedKey]| keys.iter().map(|key| key.suite).collect::<Vec<_>>();
        let first = ring.published(1_000_000);
        let (own, ehbp, seed) = (Suite::X25519, Suite::EhbpX25519, Suite::SeedX25519);
        assert_eq!(suites(&first), [own, ehbp, seed]);

        let due = first[0].not_after - DAY / 4;
        ring.turn(due).unwrap();
        ring.turn(due).unwrap();
        let both = ring.published(due);
        assert_eq!(suites(&both), [own, own, ehbp, ehbp, seed, seed]);
        let ids: std::collections::HashSet<u8> = both.iter().map(|key| key.key_id).collect();
        assert_eq!(ids.len(), 6, "every id once");
        assert_eq!(ring.newest_of(Dialect::Ehbp, due), Some(both[2].public_key));
        assert_eq!([both[1], both[3], both[5]], first[..]);
        assert_eq!(ring.configs(due).len(), 2 * 47, "of its own suite alone");
        let end = ring.opens_until(first[2].key_id).unwrap();
        assert_eq!(end, first[2].not_after + 600);
        ring.turn(end + 1).unwrap();
        assert_eq!(ring.opens_until(first[2].key_id), None);
    }
}
