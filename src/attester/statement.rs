//! What a node or gateway says of itself, and which of its statements still count.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
};

use attestation::{
    Dialect, StatementDigest,
    statement::{ClaimedKey, Draft, EngineLocation, Software, StatementError},
};
use aws_lc_rs::error::Unspecified;

use super::keys::{KeyRing, opens_until};
use crate::{
    config::node::{KeysConfig, MAX_MODELS},
    seal::{RandomError, Receipt, ReceiptError, ReceiptKey},
};

/// Most statements that are remembered (docs/wire.md, "Request").
const MAX_REMEMBERED: usize = 64;
/// Most bytes of all models' names as JSON, so that a statement with two keys of each suite, which it
/// has while they turn, stays within its 64 KiB.
const MAX_NAMES_BYTES: usize = 48 * 1024;

/// What room a statement has left for models' names.
#[derive(Debug)]
pub(crate) struct NameRoom {
    names: usize,
    bytes: usize,
}

impl Default for NameRoom {
    fn default() -> Self {
        Self {
            names: MAX_MODELS,
            bytes: MAX_NAMES_BYTES,
        }
    }
}

impl NameRoom {
    /// Takes the room for one more name; false if there is none.
    pub(crate) fn take(&mut self, name: &str) -> bool {
        // Quotes and a comma, and what JSON escapes of a name: no more than these two.
        let escaped = name.bytes().filter(|byte| matches!(byte, b'"' | b'\\'));
        let bytes = name.len().saturating_add(escaped.count()).saturating_add(3);
        let left = (self.names.checked_sub(1), self.bytes.checked_sub(bytes));
        let (Some(names), Some(bytes)) = left else {
            return false;
        };
        *self = Self { names, bytes };
        true
    }
}

/// Why keys or a statement cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The receipt key cannot be made.
    #[error("the receipt key cannot be made")]
    ReceiptKey,
    /// The statement would not be read back by a verifier.
    #[error(transparent)]
    Statement(#[from] StatementError),
}

impl From<Unspecified> for IdentityError {
    fn from(_: Unspecified) -> Self {
        Self::ReceiptKey
    }
}

/// The bytes of one statement and their digest.
#[derive(Debug)]
pub(crate) struct StatementText {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: StatementDigest,
}

/// The keys and statements of one process.
#[derive(Debug)]
pub(crate) struct Identity {
    fixed: Fixed,
    ring: RwLock<KeyRing>,
    given: RwLock<Given>,
}

/// Who states, and with which keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) node_id: &'a str,
    pub(crate) keys: &'a KeysConfig,
    pub(crate) dialects: &'a [Dialect],
}

/// What a statement says beside who states and its keys; it may become another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) models: Vec<String>,
    /// The key that connections end at, if they are TLS and end here.
    pub(crate) tls_spki_sha256: Option<[u8; 32]>,
    pub(crate) engine: EngineLocation,
    pub(crate) config_sha256: [u8; 32],
}

/// What becomes of the statements of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Counts,
    Ends,
}

/// What never changes while the process runs.
#[derive(Debug)]
struct Fixed {
    node_id: String,
    receipt_key: ReceiptKey,
}

/// The statements given out, each with the last second in which one of its keys opens.
#[derive(Debug)]
struct Given {
    current: Arc<StatementText>,
    /// What the current one says.
    keys: Vec<ClaimedKey>,
    facts: Facts,
    remembered: VecDeque<(StatementDigest, u64)>,
}

impl Identity {
    /// Makes the keys and the first statement.
    ///
    /// # Errors
    /// [`IdentityError`] if the system gives no randomness.
    pub(crate) fn generate(
        named: Named<'_>,
        facts: Facts,
        now: u64,
    ) -> Result<Self, IdentityError> {
        let fixed = Fixed {
            node_id: named.node_id.to_owned(),
            receipt_key: ReceiptKey::generate()?,
        };
        let ring = KeyRing::of(named.keys, named.dialects, now)?;
        let keys = ring.published(now);
        let (text, until) = fixed.state(&keys, &facts)?;
        let remembered = VecDeque::from([(text.digest, until)]);
        let given = Given {
            current: Arc::new(text),
            keys,
            facts,
            remembered,
        };
        Ok(Self {
            fixed,
            ring: RwLock::new(ring),
            given: RwLock::new(given),
        })
    }

    /// The statement to give out.
    pub(crate) fn current(&self) -> Arc<StatementText> {
        Arc::clone(
            &self
                .given
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .current,
        )
    }

    /// The keys that the current statement names.
    pub(crate) fn keys(&self) -> Vec<ClaimedKey> {
        let given = self.given.read().unwrap_or_else(PoisonError::into_inner);
        given.keys.clone()
    }

    /// Whether a request sealed under this statement is taken at `now`.
    pub(crate) fn counts(&self, digest: &StatementDigest, now: u64) -> bool {
        let given = self.given.read().unwrap_or_else(PoisonError::into_inner);
        given
            .remembered
            .iter()
            .any(|(known, until)| known == digest && now <= *until)
    }

    /// Whether its keys and statement stay as they are, if nothing else changes.
    pub(crate) fn rests(&self, now: u64) -> bool {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let given = self.given.read().unwrap_or_else(PoisonError::into_inner);
        ring.rests(now) && given.keys.iter().all(|key| now < key.not_after)
    }

    /// Signs a receipt with the key that every statement names.
    ///
    /// # Errors
    /// [`ReceiptError`] if no reader would take it.
    pub(crate) fn sign_receipt(&self, receipt: &Receipt) -> Result<String, ReceiptError> {
        self.fixed.receipt_key.sign(receipt)
    }

    /// Opens something with the keys that open.
    pub(crate) fn open_with<T>(&self, open: impl FnOnce(&KeyRing) -> T) -> T {
        open(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The published keys as `application/ohttp-keys`.
    pub(crate) fn key_configs(&self, now: u64) -> Vec<u8> {
        self.ring
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .configs(now)
    }

    /// Turns the keys when they are due, and makes the next statement when keys or models changed.
    ///
    /// # Errors
    /// [`IdentityError`]; the statement of before stays.
    pub(crate) fn renew(&self, models: &[String], now: u64) -> Result<(), IdentityError> {
        self.restate(now, |facts| models.clone_into(&mut facts.models))
    }

    /// Makes the next statement, which says that connections end at another key.
    ///
    /// # Errors
    /// [`IdentityError`]; the statement of before stays.
    pub(crate) fn end_tls_at(
        &self,
        spki_sha256: [u8; 32],
        models: &[String],
        now: u64,
    ) -> Result<(), IdentityError> {
        self.restate(now, |facts| {
            models.clone_into(&mut facts.models);
            facts.tls_spki_sha256 = Some(spki_sha256);
        })
    }

    /// Turns the keys when they are due, and makes the next statement when they changed or `change`
    /// changes anything else.
    ///
    /// # Errors
    /// [`IdentityError`]; the statement of before stays, and no key is there that it does not name.
    pub(crate) fn restate(
        &self,
        now: u64,
        change: impl FnOnce(&mut Facts),
    ) -> Result<(), IdentityError> {
        self.make(now, change, Before::Counts)
    }

    /// The same where what was said before is not to be relied on any more: if `change` changes
    /// anything, no request is taken that was sealed under a statement of before.
    ///
    /// # Errors
    /// [`IdentityError`]; if anything changed, no statement counts then.
    pub(crate) fn supersede(
        &self,
        now: u64,
        change: impl FnOnce(&mut Facts),
    ) -> Result<(), IdentityError> {
        self.make(now, change, Before::Ends)
    }

    fn make(
        &self,
        now: u64,
        change: impl FnOnce(&mut Facts),
        before: Before,
    ) -> Result<(), IdentityError> {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let mut given = self.given.write().unwrap_or_else(PoisonError::into_inner);
        let mut facts = given.facts.clone();
        change(&mut facts);
        if before == Before::Ends && given.facts != facts {
            given.remembered.clear();
        }
        let ids = ring.ids();
        let made = self.turned(&mut ring, &given, &facts, now);
        let Some((keys, text, until)) = made.inspect_err(|_| ring.keep_only(&ids))? else {
            return Ok(());
        };
        given
            .remembered
            .retain(|(digest, until)| now <= *until && *digest != text.digest);
        if given.remembered.len() >= MAX_REMEMBERED {
            given.remembered.pop_front();
        }
        given.remembered.push_back((text.digest, until));
        given.current = Arc::new(text);
        given.keys = keys;
        given.facts = facts;
        Ok(())
    }

    /// Turns the keys, and makes the statement that they and `facts` need; `None` if it is the one
    /// that is given out.
    fn turned(
        &self,
        ring: &mut KeyRing,
        given: &Given,
        facts: &Facts,
        now: u64,
    ) -> Result<Option<(Vec<ClaimedKey>, StatementText, u64)>, IdentityError> {
        ring.turn(now)?;
        let keys = ring.published(now);
        if given.keys == keys && given.facts == *facts {
            return Ok(None);
        }
        let (text, until) = self.fixed.state(&keys, facts)?;
        Ok(Some((keys, text, until)))
    }
}

impl Fixed {
    fn state(
        &self,
        keys: &[ClaimedKey],
        facts: &Facts,
    ) -> Result<(StatementText, u64), IdentityError> {
        let draft = Draft {
            node_id: self.node_id.clone(),
            keys: keys.to_vec(),
            receipt_key: self
                .receipt_key
                .public_key()
                .ok_or(IdentityError::ReceiptKey)?,
            tls_spki_sha256: facts.tls_spki_sha256,
            models: facts.models.clone(),
            engine: facts.engine,
            config_sha256: facts.config_sha256,
            software: Software {
                name: env!("CARGO_PKG_NAME").to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                commit: option_env!("SEALGATE_COMMIT")
                    .unwrap_or_default()
                    .to_owned(),
            },
        };
        let bytes = draft.to_json()?;
        let digest = StatementDigest::of(&bytes);
        let until = keys.iter().map(opens_until).max().unwrap_or(0);
        Ok((StatementText { bytes, digest }, until))
    }
}

#[cfg(test)]
mod tests {
    use attestation::Statement;

    use super::*;

    const NOW: u64 = 1_000_000_000;
    const DAY: u64 = 24 * 60 * 60;

    fn identity(models: &[&str]) -> Identity {
        let named = Named {
            node_id: "node-1",
            keys: &KeysConfig::default(),
            dialects: &[],
        };
        let facts = Facts {
            models: names(models),
            tls_spki_sha256: None,
            engine: EngineLocation::Local,
            config_sha256: [3; 32],
        };
        Identity::generate(named, facts, NOW).unwrap()
    }

    fn names(models: &[&str]) -> Vec<String> {
        models.iter().map(|model| (*model).to_owned()).collect()
    }

    #[test]
    fn a_verifier_reads_the_statement_back() {
        let identity = identity(&["a", "b"]);
        let text = identity.current();
        let statement = Statement::parse(&text.bytes).unwrap();
        assert_eq!(statement.digest(), text.digest);
        assert_eq!(statement.node_id(), "node-1");
        assert_eq!(statement.models(), ["a", "b"]);
        assert_eq!(statement.engine(), EngineLocation::Local);
        assert_eq!(statement.software().name, "sealgate");
        let [x_wing, x25519] = statement.keys() else {
            panic!("two keys")
        };
        let configs = identity.key_configs(NOW);
        for (key, at, end) in [(x_wing, 2, 1221), (x25519, 1229, 1264)] {
            assert_eq!(key.not_after, NOW + DAY);
            assert_eq!(
                (configs[at], &configs[at + 3..end]),
                (key.key_id, key.public_key.as_bytes())
            );
        }
    }

    #[test]
    fn a_statement_counts_while_its_keys_open() {
        let identity = identity(&["a"]);
        let first = identity.current().digest;
        identity.renew(&names(&["a"]), NOW + 1).unwrap();
        assert_eq!(identity.current().digest, first, "nothing changed");
        identity.renew(&names(&["b"]), NOW + 1).unwrap();
        let second = identity.current().digest;
        assert_ne!(second, first);
        let end = NOW + DAY + 600;
        for (digest, now, expected) in [
            (first, NOW, true),
            (second, NOW, true),
            (first, end, true),
            (first, end + 1, false),
            (StatementDigest::of(b""), NOW, false),
        ] {
            assert_eq!(identity.counts(&digest, now), expected, "{digest} at {now}");
        }
    }

    #[test]
    fn another_tls_key_makes_a_new_statement_and_stays_in_it() {
        let identity = identity(&["a"]);
        let first = identity.current().digest;
        let pin = || {
            let text = identity.current();
            Statement::parse(&text.bytes)
                .unwrap()
                .tls_spki_sha256()
                .copied()
        };
        assert_eq!(pin(), None);
        identity.end_tls_at([7; 32], &names(&["a"]), NOW).unwrap();
        assert_eq!(pin(), Some([7; 32]));
        assert!(identity.counts(&first, NOW), "requests are on their way");
        identity.renew(&names(&["b"]), NOW).unwrap();
        assert_eq!(pin(), Some([7; 32]));
    }

    #[test]
    fn whatever_changes_is_said_and_what_does_not_is_not_said_again() {
        let identity = identity(&["a"]);
        let first = identity.current().digest;
        identity.restate(NOW, |_| {}).unwrap();
        assert_eq!(identity.current().digest, first);
        let changes: [fn(&mut Facts); 3] = [
            |facts| facts.engine = EngineLocation::Remote,
            |facts| facts.config_sha256 = [4; 32],
            |facts| facts.tls_spki_sha256 = Some([5; 32]),
        ];
        for change in changes {
            let before = identity.current().digest;
            identity.restate(NOW, change).unwrap();
            assert_ne!(identity.current().digest, before);
        }
        let text = identity.current();
        let statement = Statement::parse(&text.bytes).unwrap();
        assert_eq!(statement.engine(), EngineLocation::Remote);
        assert_eq!(statement.config_sha256(), &[4; 32]);
    }

    #[test]
    fn what_is_superseded_counts_no_more() {
        let identity = identity(&["a"]);
        let first = identity.current().digest;
        identity.supersede(NOW, |_| {}).unwrap();
        assert!(identity.counts(&first, NOW), "nothing changed");
        identity
            .supersede(NOW, |facts| facts.config_sha256 = [9; 32])
            .unwrap();
        assert!(!identity.counts(&first, NOW));
        assert!(identity.counts(&identity.current().digest, NOW));
        let too_many = (0..1000).map(|n| n.to_string()).collect();
        let refused = identity.supersede(NOW, |facts| facts.models = too_many);
        assert!(refused.is_err());
        assert!(!identity.counts(&identity.current().digest, NOW));
    }

    #[test]
    fn no_key_is_published_without_a_statement_that_names_it() {
        let identity = identity(&["a"]);
        let (first, configs) = (identity.current().digest, identity.key_configs(NOW));
        let due = NOW + DAY - DAY / 4;
        assert!(identity.rests(due - 1));
        assert!(!identity.rests(due));
        let too_many: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
        assert!(identity.renew(&too_many, due).is_err());
        assert_eq!(identity.key_configs(due), configs);
        assert_eq!(identity.open_with(KeyRing::ids).len(), 2);
        assert!(identity.counts(&first, due));
        identity.renew(&names(&["a"]), due).unwrap();
        assert_eq!(identity.key_configs(due).len(), 2 * configs.len());
        assert!(identity.rests(due));
    }

    #[test]
    fn names_that_there_is_room_for_make_a_statement_while_keys_turn() {
        for byte in ["m", "\"", "\\"] {
            let mut room = NameRoom::default();
            let all = (0..MAX_MODELS).map(|n| format!("{n:03}{}", byte.repeat(253)));
            let taken: Vec<_> = all.filter(|name| room.take(name)).collect();
            assert!(
                taken.len() > 90 && taken.len() < MAX_MODELS,
                "{}",
                taken.len()
            );
            let named = Named {
                node_id: &"n".repeat(64),
                keys: &KeysConfig::default(),
                dialects: &Dialect::ALL,
            };
            let facts = Facts {
                models: taken,
                tls_spki_sha256: Some([7; 32]),
                engine: EngineLocation::Attested,
                config_sha256: [3; 32],
            };
            let identity = Identity::generate(named, facts, NOW).unwrap();
            identity.restate(NOW + DAY - DAY / 4, |_| {}).unwrap();
            let text = identity.current();
            assert_eq!(Statement::parse(&text.bytes).unwrap().keys().len(), 8);
        }
        let mut room = NameRoom::default();
        let short = (0..1000).filter(|n| room.take(&n.to_string()));
        assert_eq!(short.count(), MAX_MODELS);
    }

    #[test]
    fn new_keys_make_new_statements_and_only_so_many_are_remembered() {
        let identity = identity(&["a"]);
        let first = identity.current().digest;
        identity.renew(&names(&["a"]), NOW + DAY - DAY / 4).unwrap();
        let text = identity.current();
        assert_eq!(Statement::parse(&text.bytes).unwrap().keys().len(), 4);
        for n in 0..MAX_REMEMBERED {
            identity.renew(&[n.to_string()], NOW + DAY).unwrap();
        }
        assert!(!identity.counts(&first, NOW + DAY));
        assert_eq!(
            identity.given.read().unwrap().remembered.len(),
            MAX_REMEMBERED
        );
    }
}
