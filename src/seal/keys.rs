//! A node's keys, and the list of them that it publishes.

use std::{collections::BTreeMap, convert::Infallible, fmt, sync::Arc};

use attestation::{PublicKey, statement::X_WING_KEY_LEN};
use hpke::{Kem as _, Serializable as _};
use rand::{
    SeedableRng as _,
    rand_core::{TryCryptoRng, TryRng},
    rngs::{StdRng, SysRng},
};

#[cfg(test)]
use crate::leftovers::Needle;

use super::{
    error::RandomError,
    kem::{PrivateKey as X25519Secret, SecretBytes},
    stack,
    suite::{KDF_HKDF_SHA256, Kem},
    x_wing::{PrivateKey as XWingSecret, XWing},
};

/// A generator seeded by the system for one use. A long-lived one could repeat itself after the
/// machine was restored from a snapshot, and with it an ephemeral key.
pub(super) fn fresh_rng() -> Result<FreshRng, RandomError> {
    let rng = FreshRng::new();
    stack::wipe::<{ stack::EXCHANGE_WORDS }>();
    rng
}

/// A generator that leaves nothing of what it gave.
pub(super) struct FreshRng(Box<StdRng>);

impl FreshRng {
    #[inline(never)]
    fn new() -> Result<Self, RandomError> {
        let rng = StdRng::try_from_rng(&mut SysRng);
        rng.map(|rng| Self(Box::new(rng))).map_err(|_| RandomError)
    }
}

impl Drop for FreshRng {
    fn drop(&mut self) {
        *self.0 = StdRng::from_seed([0; 32]);
        // Nobody reads it any more, which is no reason not to write it.
        std::hint::black_box(&mut self.0);
    }
}

impl TryRng for FreshRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(out)
    }
}

impl TryCryptoRng for FreshRng {}

/// A secret of any of our KEMs, from the system's own randomness: no generator has it in its state.
pub(super) fn fresh_secret() -> Result<SecretBytes, RandomError> {
    let mut secret = SecretBytes::default();
    let filled = SysRng.try_fill_bytes(secret.as_mut_slice());
    filled.map_err(|_| RandomError).map(|()| secret)
}

/// Makes a key of what is secret, and wipes what that left on the stack.
pub(super) fn x25519_secret(secret: SecretBytes) -> X25519Secret {
    let key = X25519Secret::new(secret);
    stack::wipe::<{ stack::EXCHANGE_WORDS }>();
    key
}

/// The secret of a node. Wiped on drop, never copied, never shown.
#[must_use]
pub struct NodeSecret(pub(super) Secret);

/// Both kinds are wiped by the types that hold them.
pub(super) enum Secret {
    X25519(X25519Secret),
    XWing(XWingSecret),
}

impl NodeSecret {
    /// A fresh secret.
    ///
    /// # Errors
    /// [`RandomError`] if the system gives no randomness.
    pub fn generate(kem: Kem) -> Result<Self, RandomError> {
        Ok(Self::of(kem, fresh_secret()?))
    }

    fn of(kem: Kem, secret: SecretBytes) -> Self {
        Self(match kem {
            Kem::X25519 => Secret::X25519(x25519_secret(secret)),
            Kem::XWing => Secret::XWing(XWingSecret::new(secret)),
        })
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
            Secret::X25519(secret) => PublicKey::X25519(*secret.public().as_bytes()),
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
        super::kem::secret_of(bytes)
            .ok()
            .map(|it| Self::of(kem, it))
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

    /// What no memory may hold once these are dropped, and what none may hold ever.
    #[cfg(test)]
    pub(crate) fn needles(&self) -> (Vec<Needle>, Vec<Needle>) {
        let (mut held, mut never) = (Vec::new(), Vec::new());
        for secret in self.secrets.values() {
            match &secret.0 {
                Secret::X25519(secret) => held.push(Needle::new("x25519", secret.secret())),
                Secret::XWing(secret) => {
                    let needles = secret.needles();
                    held.extend(needles.0);
                    never.extend(needles.1);
                }
            }
        }
        (held, never)
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
