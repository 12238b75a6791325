//! Secrets of the two further dialects (docs/wire.md, "Two further dialects"), each of a type of its
//! own: what one opens with is no argument of the other.

use std::{fmt, marker::PhantomData, sync::Arc};

use super::{
    error::RandomError,
    kem::PrivateKey,
    keys::{fresh_secret, x25519_secret},
};

/// The X25519 secret of a node for dialect `D`. Wiped on drop, never copied, never shown.
#[must_use]
pub struct DialectSecret<D> {
    key: PrivateKey,
    dialect: PhantomData<fn() -> D>,
}

impl<D> DialectSecret<D> {
    /// A fresh secret.
    ///
    /// # Errors
    /// [`RandomError`] if the system gives no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        fresh_secret().map(|secret| Self::new(x25519_secret(secret)))
    }

    /// The public key, to be published and attested.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        *self.key.public().as_bytes()
    }

    pub(super) const fn private_key(&self) -> &PrivateKey {
        &self.key
    }

    const fn new(key: PrivateKey) -> Self {
        Self {
            key,
            dialect: PhantomData,
        }
    }

    /// A secret from a test vector.
    #[cfg(any(test, fuzzing))]
    pub(super) fn fixed(bytes: &[u8; 32]) -> Option<Self> {
        hpke::Deserializable::from_bytes(bytes).ok().map(Self::new)
    }
}

impl<D> fmt::Debug for DialectSecret<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DialectSecret(..)")
    }
}

/// The keys that a node opens dialect `D` with, newest first.
///
/// A clone shares the secrets.
pub struct DialectKeys<D> {
    secrets: Vec<(u8, Arc<DialectSecret<D>>)>,
}

impl<D> DialectKeys<D> {
    /// No keys yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            secrets: Vec::new(),
        }
    }

    /// Opens with `secret` from now on, before all others.
    pub fn insert(&mut self, key_id: u8, secret: DialectSecret<D>) {
        self.remove(key_id);
        self.secrets.insert(0, (key_id, Arc::new(secret)));
    }

    /// Stops opening with the secret of that id.
    pub fn remove(&mut self, key_id: u8) {
        self.secrets.retain(|(id, _)| *id != key_id);
    }

    /// What no memory may hold once these are dropped.
    #[cfg(test)]
    pub(crate) fn needles(&self) -> Vec<crate::leftovers::Needle> {
        let secrets = self.iter().map(|(_, secret)| secret.key.secret());
        secrets
            .map(|secret| crate::leftovers::Needle::new("a dialect's", secret))
            .collect()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (u8, &DialectSecret<D>)> {
        self.secrets
            .iter()
            .map(|(key_id, secret)| (*key_id, secret.as_ref()))
    }
}

impl<D> Default for DialectKeys<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D> Clone for DialectKeys<D> {
    fn clone(&self) -> Self {
        Self {
            secrets: self.secrets.clone(),
        }
    }
}

impl<D> fmt::Debug for DialectKeys<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.secrets.iter().map(|(key_id, _)| key_id);
        f.debug_set().entries(ids).finish()
    }
}
