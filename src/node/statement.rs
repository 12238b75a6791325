//! What the node says of itself, and which of its statements still count.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
};

use attestation::{
    StatementDigest,
    statement::{ClaimedKey, Draft, EngineLocation, Software, StatementError},
};
use aws_lc_rs::{
    error::Unspecified,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use sha2::{Digest as _, Sha256};

use super::keys::{KeyRing, opens_until};
use crate::{config::node::NodeConfig, seal::RandomError};

/// Most statements that are remembered (docs/wire.md, "Request").
const MAX_REMEMBERED: usize = 64;

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
pub(super) struct StatementText {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: StatementDigest,
}

/// The node's keys and statements.
#[derive(Debug)]
pub(super) struct Identity {
    fixed: Fixed,
    ring: RwLock<KeyRing>,
    given: RwLock<Given>,
}

/// What never changes while the process runs.
#[derive(Debug)]
struct Fixed {
    node_id: String,
    engine: EngineLocation,
    config_sha256: [u8; 32],
    /// Only its public half is used yet.
    receipt_key: Ed25519KeyPair,
}

/// The statements given out, each with the last second in which one of its keys opens.
#[derive(Debug)]
struct Given {
    current: Arc<StatementText>,
    /// What the current one says of keys, models and TLS.
    keys: Vec<ClaimedKey>,
    models: Vec<String>,
    tls_spki_sha256: Option<[u8; 32]>,
    remembered: VecDeque<(StatementDigest, u64)>,
}

impl Identity {
    /// Makes the keys of a node and its first statement; `tls_spki_sha256` is the key that connections
    /// end at, if they are TLS.
    ///
    /// # Errors
    /// [`IdentityError`] if the system gives no randomness.
    pub(super) fn generate(
        config: &NodeConfig,
        models: Vec<String>,
        tls_spki_sha256: Option<[u8; 32]>,
        now: u64,
    ) -> Result<Self, IdentityError> {
        let fixed = Fixed {
            node_id: config.node_id.as_str().to_owned(),
            engine: if config.engines_are_local() {
                EngineLocation::Local
            } else {
                EngineLocation::Remote
            },
            config_sha256: config_digest(config),
            receipt_key: Ed25519KeyPair::generate()?,
        };
        let ring = KeyRing::of(config, now)?;
        let keys = ring.published(now);
        let (text, until) = fixed.state(&keys, &models, tls_spki_sha256)?;
        let remembered = VecDeque::from([(text.digest, until)]);
        let given = Given {
            current: Arc::new(text),
            keys,
            models,
            tls_spki_sha256,
            remembered,
        };
        Ok(Self {
            fixed,
            ring: RwLock::new(ring),
            given: RwLock::new(given),
        })
    }

    /// The statement to give out.
    pub(super) fn current(&self) -> Arc<StatementText> {
        Arc::clone(
            &self
                .given
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .current,
        )
    }

    /// The keys that the current statement names.
    pub(super) fn keys(&self) -> Vec<ClaimedKey> {
        let given = self.given.read().unwrap_or_else(PoisonError::into_inner);
        given.keys.clone()
    }

    /// Whether a request sealed under this statement is taken at `now`.
    pub(super) fn counts(&self, digest: &StatementDigest, now: u64) -> bool {
        let given = self.given.read().unwrap_or_else(PoisonError::into_inner);
        given
            .remembered
            .iter()
            .any(|(known, until)| known == digest && now <= *until)
    }

    /// Opens something with the keys that open.
    pub(super) fn open_with<T>(&self, open: impl FnOnce(&KeyRing) -> T) -> T {
        open(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The published keys as `application/ohttp-keys`.
    pub(super) fn key_configs(&self, now: u64) -> Vec<u8> {
        self.ring
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .configs(now)
    }

    /// Turns the keys when they are due, and makes the next statement when keys or models changed.
    ///
    /// # Errors
    /// [`IdentityError`]; the statement of before stays.
    pub(super) fn renew(&self, models: &[String], now: u64) -> Result<(), IdentityError> {
        self.restate(models, None, now)
    }

    /// Makes the next statement, which says that connections end at another key.
    ///
    /// # Errors
    /// [`IdentityError`]; the statement of before stays.
    pub(super) fn end_tls_at(
        &self,
        spki_sha256: [u8; 32],
        models: &[String],
        now: u64,
    ) -> Result<(), IdentityError> {
        self.restate(models, Some(spki_sha256), now)
    }

    fn restate(
        &self,
        models: &[String],
        tls: Option<[u8; 32]>,
        now: u64,
    ) -> Result<(), IdentityError> {
        let keys = {
            let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
            ring.turn(now)?;
            ring.published(now)
        };
        let mut given = self.given.write().unwrap_or_else(PoisonError::into_inner);
        let tls = tls.or(given.tls_spki_sha256);
        if given.keys == keys && given.models == models && given.tls_spki_sha256 == tls {
            return Ok(());
        }
        let (text, until) = self.fixed.state(&keys, models, tls)?;
        given
            .remembered
            .retain(|(digest, until)| now <= *until && *digest != text.digest);
        if given.remembered.len() >= MAX_REMEMBERED {
            given.remembered.pop_front();
        }
        given.remembered.push_back((text.digest, until));
        given.current = Arc::new(text);
        given.keys = keys;
        given.tls_spki_sha256 = tls;
        models.clone_into(&mut given.models);
        Ok(())
    }
}

impl Fixed {
    fn state(
        &self,
        keys: &[ClaimedKey],
        models: &[String],
        tls_spki_sha256: Option<[u8; 32]>,
    ) -> Result<(StatementText, u64), IdentityError> {
        let receipt_key = self.receipt_key.public_key().as_ref();
        let draft = Draft {
            node_id: self.node_id.clone(),
            keys: keys.to_vec(),
            receipt_key: receipt_key
                .try_into()
                .map_err(|_| IdentityError::ReceiptKey)?,
            tls_spki_sha256,
            models: models.to_vec(),
            engine: self.engine,
            config_sha256: self.config_sha256,
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

/// SHA-256 of the effective configuration without secrets.
fn config_digest(config: &NodeConfig) -> [u8; 32] {
    Sha256::digest(serde_json::to_vec(config).unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use attestation::Statement;

    use super::*;

    const NOW: u64 = 1_000_000_000;
    const DAY: u64 = 24 * 60 * 60;

    fn identity(models: &[&str]) -> Identity {
        let text = "node_id = \"node-1\"\n[evidence]\nsource = \"software-root\"\ndir = \"x\"\n\
                    [[engine]]\nurl = \"builtin:echo\"\n";
        let config = crate::config::parse(Path::new("node.toml"), text, std::iter::empty());
        Identity::generate(&config.unwrap().value, names(models), None, NOW).unwrap()
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
