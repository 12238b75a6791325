//! A node's keys, and the list of them that it publishes.

use std::{collections::BTreeMap, fmt, sync::Arc};

use attestation::{PublicKey, statement::X_WING_KEY_LEN};
use hpke::{Kem as _, Serializable as _, kem::XWing};
use rand::{
    SeedableRng as _,
    rngs::{StdRng, SysRng},
};

use super::{
    context,
    error::RandomError,
    kem::{PrivateKey, X25519HkdfSha256},
    suite::{KDF_HKDF_SHA256, Kem},
};

/// A generator seeded by the system for one use. A long-lived one could repeat itself after the
/// machine was restored from a snapshot, and with it an ephemeral key.
pub(super) fn fresh_rng() -> Result<StdRng, RandomError> {
    StdRng::try_from_rng(&mut SysRng).map_err(|_| RandomError)
}

/// The secret of a node. Wiped on drop, never copied, never shown.
#[must_use]
pub struct NodeSecret(pub(super) Secret);

/// Both kinds are wiped by the types that hold them.
pub(super) enum Secret {
    X25519(PrivateKey),
    XWing(Box<<XWing as hpke::Kem>::PrivateKey>),
}

impl NodeSecret {
    /// A fresh secret.
    ///
    /// # Errors
    /// [`RandomError`] if the system gives no randomness.
    pub fn generate(kem: Kem) -> Result<Self, RandomError> {
        let rng = &mut fresh_rng()?;
        Ok(Self(match kem {
            Kem::X25519 => Secret::X25519(context::generate::<X25519HkdfSha256>(rng)),
            Kem::XWing => Secret::XWing(Box::new(context::generate::<XWing>(rng))),
        }))
    }

    /// How its holder comes to a secret that is shared.
    #[must_use]
    pub const fn kem(&self) -> Kem {
        match self.0 {
            Secret::X25519(_) => Kem::X25519,
            Secret::XWing(_) => Kem::XWing,
        }
    }

    /// The public key, to be published and attested.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        match &self.0 {
            Secret::X25519(secret) => PublicKey::X25519(context::public_key(secret)),
            Secret::XWing(secret) => {
                let mut key = [0; X_WING_KEY_LEN];
                XWing::sk_to_pk(secret).write_exact(&mut key);
                PublicKey::XWing(Arc::new(key))
            }
        }
    }

    /// A secret from a test vector.
    #[cfg(any(test, fuzzing))]
    pub(super) fn fixed(kem: Kem, bytes: &[u8; 32]) -> Option<Self> {
        use hpke::Deserializable as _;
        Some(Self(match kem {
            Kem::X25519 => Secret::X25519(PrivateKey::from_bytes(bytes).ok()?),
            Kem::XWing => Secret::XWing(Box::new(
                <XWing as hpke::Kem>::PrivateKey::from_bytes(bytes).ok()?,
            )),
        }))
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

/// Encodes keys with their ids as `application/ohttp-keys` (RFC 9458 section 3), in the order given:
/// each configuration with its length before it, AES-256-GCM before AES-128-GCM.
#[must_use]
pub fn encode_key_configs<'a>(keys: impl IntoIterator<Item = (u8, &'a PublicKey)>) -> Vec<u8> {
    let mut list = Vec::new();
    for (key_id, public_key) in keys {
        let config = encode_key_config(key_id, public_key);
        // A key configuration is 45 or 1,225 bytes.
        let len = u16::try_from(config.len()).unwrap_or(u16::MAX);
        list.extend_from_slice(&len.to_be_bytes());
        list.extend_from_slice(&config);
    }
    list
}

fn encode_key_config(key_id: u8, public_key: &PublicKey) -> Vec<u8> {
    let kem = match public_key {
        PublicKey::X25519(_) => Kem::X25519,
        PublicKey::XWing(_) => Kem::XWing,
    };
    let suites: Vec<u8> = kem
        .aeads()
        .iter()
        .flat_map(|aead| [KDF_HKDF_SHA256, aead.id()])
        .flat_map(u16::to_be_bytes)
        .collect();
    let suites_len = u16::try_from(suites.len()).unwrap_or(u16::MAX);
    let mut config = vec![key_id];
    config.extend_from_slice(&kem.id().to_be_bytes());
    config.extend_from_slice(public_key.as_bytes());
    config.extend_from_slice(&suites_len.to_be_bytes());
    config.extend_from_slice(&suites);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_what_other_implementations_read() {
        let [x_wing, x25519] = [Kem::XWing, Kem::X25519].map(|kem| {
            let secret = NodeSecret::generate(kem).unwrap();
            assert_eq!(secret.kem(), kem);
            secret.public_key()
        });
        let list = encode_key_configs([(7, &x_wing), (6, &x25519)]);
        assert_eq!(list.len(), 1227 + 47);
        let (first, second) = list.split_at(1227);
        assert_eq!(first[..5], [0x04, 0xc9, 7, 0x64, 0x7a]);
        assert_eq!(first[5..1221], *x_wing.as_bytes());
        assert_eq!(first[1221..], [0, 4, 0, 1, 0, 2]);
        assert_eq!(second[..5], [0, 45, 6, 0, 32]);
        assert_eq!(second[5..37], *x25519.as_bytes());
        assert_eq!(second[37..], [0, 8, 0, 1, 0, 2, 0, 1, 0, 1]);
        assert_eq!(ohttp::KeyConfig::decode_list(&list).unwrap().len(), 2);
        assert_eq!(encode_key_configs([]), b"");
    }

    #[test]
    fn secrets_are_opaque_and_fresh() {
        for kem in [Kem::X25519, Kem::XWing] {
            let mut keys = OpeningKeys::new();
            let (one, two) = (
                NodeSecret::generate(kem).unwrap(),
                NodeSecret::generate(kem).unwrap(),
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
}
