//! The node's sealing keys: made in memory, published before they are needed, forgotten after
//! they end.

use std::time::Duration;

use attestation::{
    MAX_KEY_LIFE,
    statement::{ClaimedKey, Suite},
};

use crate::seal::{NodeSecret, OpeningKeys, RandomError, encode_key_configs};

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

/// The keys that open, newest first.
#[derive(Debug)]
pub(super) struct KeyRing {
    life_s: u64,
    opening: OpeningKeys,
    keys: Vec<ClaimedKey>,
}

impl KeyRing {
    /// A ring with one fresh key under a random id.
    ///
    /// # Errors
    /// [`RandomError`] if the system gives no randomness.
    pub(super) fn new(life: Duration, now: u64) -> Result<Self, RandomError> {
        let mut ring = Self {
            life_s: life.as_secs(),
            opening: OpeningKeys::new(),
            keys: Vec::new(),
        };
        ring.add(rand::random(), now)?;
        Ok(ring)
    }

    /// Adds the next key when it is due and forgets keys that no longer open.
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
        }
        let due = self.keys.first().is_none_or(|newest| {
            newest
                .not_after
                .saturating_sub(self.life_s / REMAINING_PART)
                <= now
        });
        let next_id = self
            .keys
            .first()
            .map_or_else(rand::random, |key| key.key_id.wrapping_add(1));
        // A ring holds few keys: an id comes round again long after its last use.
        let due = due && self.keys.iter().all(|key| key.key_id != next_id);
        if due { self.add(next_id, now) } else { Ok(()) }
    }

    fn add(&mut self, key_id: u8, now: u64) -> Result<(), RandomError> {
        let secret = NodeSecret::generate()?;
        let not_before = now.saturating_sub(NOT_BEFORE_SLACK_S);
        let latest = not_before.saturating_add(MAX_KEY_LIFE.as_secs());
        let key = ClaimedKey {
            key_id,
            suite: Suite::X25519,
            public_key: secret.public_key(),
            not_before,
            not_after: now.saturating_add(self.life_s).min(latest),
        };
        self.opening.insert(key_id, secret);
        self.keys.insert(0, key);
        Ok(())
    }

    /// What requests are opened with.
    pub(super) fn opening(&self) -> &OpeningKeys {
        &self.opening
    }

    /// The keys that a sealer may still use at `now`, newest first.
    pub(super) fn published(&self, now: u64) -> Vec<ClaimedKey> {
        self.keys
            .iter()
            .filter(|key| now < key.not_after)
            .copied()
            .collect()
    }

    /// The published keys as `application/ohttp-keys`.
    pub(super) fn configs(&self, now: u64) -> Vec<u8> {
        let keys: Vec<_> = self
            .published(now)
            .iter()
            .map(|key| (key.key_id, key.public_key))
            .collect();
        encode_key_configs(&keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn the_next_key_is_published_before_the_old_one_ends() {
        let mut ring = KeyRing::new(Duration::from_secs(DAY), 1_000_000).unwrap();
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
        let ring = KeyRing::new(MAX_KEY_LIFE, 1_000_000).unwrap();
        let key = ring.published(1_000_000)[0];
        assert_eq!(key.not_after - key.not_before, MAX_KEY_LIFE.as_secs());
    }

    #[test]
    fn a_key_opens_ten_minutes_past_its_end_and_is_then_forgotten() {
        let mut ring = KeyRing::new(Duration::from_secs(DAY), 1_000_000).unwrap();
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
        let mut ring = KeyRing::new(Duration::from_secs(DAY), 0).unwrap();
        ring.keys[0].key_id = 255;
        ring.turn(DAY).unwrap();
        assert_eq!(ring.keys[0].key_id, 0);
        ring.turn(100 * DAY).unwrap();
        assert_eq!(ring.published(100 * DAY).len(), 1);
    }
}
