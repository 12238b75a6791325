//! A node's keys, and the list of them that it publishes.

use std::{collections::BTreeMap, fmt, sync::Arc};

use rand::{
    SeedableRng as _,
    rngs::{StdRng, SysRng},
};

use super::{
    context,
    error::RandomError,
    kem::PrivateKey,
    suite::{Aead, KDF_HKDF_SHA256, KEM_X25519},
};

/// A generator seeded by the system for one use. A long-lived one could repeat itself after the
/// machine was restored from a snapshot, and with it an ephemeral key.
pub(super) fn fresh_rng() -> Result<StdRng, RandomError> {
    StdRng::try_from_rng(&mut SysRng).map_err(|_| RandomError)
}

/// The X25519 secret of a node. Wiped on drop, never copied, never shown.
#[must_use]
pub struct NodeSecret(PrivateKey);

impl NodeSecret {
    /// A fresh secret.
    ///
    /// # Errors
    /// [`RandomError`] if the system gives no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self(context::generate(&mut fresh_rng()?)))
    }

    /// The public key, to be published and attested.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        context::public_key(&self.0)
    }

    pub(super) const fn private_key(&self) -> &PrivateKey {
        &self.0
    }

    /// A secret from a published test vector.
    #[cfg(any(test, fuzzing))]
    pub(super) fn fixed(bytes: &[u8; 32]) -> Option<Self> {
        hpke::Deserializable::from_bytes(bytes).ok().map(Self)
    }
}

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSecret(..)")
    }
}

/// The keys that a node opens requests with, by the id that it gave each.
///
/// A clone shares the secrets, so that a rotation can swap one whole set for the next.
#[derive(Clone, Debug, Default)]
pub struct OpeningKeys {
    secrets: BTreeMap<u8, Arc<NodeSecret>>,
}

impl OpeningKeys {
    /// No keys yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens with `secret` what names `key_id` from now on; an older key of that id is dropped.
    pub fn insert(&mut self, key_id: u8, secret: NodeSecret) {
        self.secrets.insert(key_id, Arc::new(secret));
    }

    /// Stops opening what names `key_id`.
    pub fn remove(&mut self, key_id: u8) {
        self.secrets.remove(&key_id);
    }

    pub(super) fn get(&self, key_id: u8) -> Option<&NodeSecret> {
        self.secrets.get(&key_id).map(AsRef::as_ref)
    }
}

/// Encodes `(key id, public key)` pairs as `application/ohttp-keys` (RFC 9458 section 3), in the
/// order given: each configuration with its length before it, AES-256-GCM before AES-128-GCM.
#[must_use]
pub fn encode_key_configs(keys: &[(u8, [u8; 32])]) -> Vec<u8> {
    /// Key id, KEM, public key, length of the suites, two suites.
    const CONFIG_LEN: u16 = 1 + 2 + 32 + 2 + SUITES_LEN;
    const SUITES_LEN: u16 = 8;
    let mut list = Vec::new();
    for (key_id, public_key) in keys {
        list.extend_from_slice(&CONFIG_LEN.to_be_bytes());
        list.push(*key_id);
        list.extend_from_slice(&KEM_X25519.to_be_bytes());
        list.extend_from_slice(public_key);
        list.extend_from_slice(&SUITES_LEN.to_be_bytes());
        for aead in Aead::LISTED {
            list.extend_from_slice(&KDF_HKDF_SHA256.to_be_bytes());
            list.extend_from_slice(&aead.id().to_be_bytes());
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_what_other_implementations_read() {
        let secret = NodeSecret::generate().unwrap();
        let list = encode_key_configs(&[(7, secret.public_key()), (6, [9; 32])]);
        assert_eq!(list.len(), 2 * 47);
        assert_eq!(list[..5], [0, 45, 7, 0, 32]);
        assert_eq!(list[5..37], secret.public_key());
        assert_eq!(list[37..47], [0, 8, 0, 1, 0, 2, 0, 1, 0, 1]);
        assert_eq!(ohttp::KeyConfig::decode_list(&list).unwrap().len(), 2);
        assert_eq!(encode_key_configs(&[]), b"");
    }

    #[test]
    fn secrets_are_opaque_and_fresh() {
        let mut keys = OpeningKeys::new();
        let (one, two) = (
            NodeSecret::generate().unwrap(),
            NodeSecret::generate().unwrap(),
        );
        assert_ne!(one.public_key(), two.public_key());
        keys.insert(1, one);
        keys.insert(2, two);
        assert_eq!(
            format!("{keys:?}"),
            "OpeningKeys { secrets: {1: NodeSecret(..), 2: NodeSecret(..)} }"
        );
        keys.remove(1);
        assert!(keys.get(1).is_none() && keys.get(2).is_some());
    }
}
