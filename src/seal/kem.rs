//! DHKEM(X25519, HKDF-SHA256) (RFC 9180 section 4.1) for the `hpke` crate, on aws-lc.
//!
//! The crate's own is correct and takes twice as long, and the exchange is most of what sealing a
//! small request costs. RFC 9180's vectors hold it to the standard, byte for byte.

use std::sync::Arc;

use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};
use hkdf::{Hkdf, HkdfExtract};
use hpke::{
    Deserializable, HpkeError, Kem, Serializable,
    hybrid_array::{Array, sizes::U32},
    kem::SharedSecret,
};
use rand::CryptoRng;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use super::{stack, suite::Kem as Known};

/// Length of a secret, a public key, an exchanged value and a shared secret.
pub(super) const LEN: usize = 32;
/// A secret, or an exchanged value, which never moves: where it is, it is wiped.
pub(super) type SecretBytes = Box<Zeroizing<[u8; LEN]>>;
/// `L` of every derivation here, as two bytes.
const DERIVED_LEN: [u8; 2] = [0, 32];

const VERSION_LABEL: &[u8] = b"HPKE-v1";
const EXTRACT_LABEL: &[u8] = b"eae_prk";
const SHARED_SECRET_LABEL: &[u8] = b"shared_secret";
const DERIVE_LABEL: &[u8] = b"dkp_prk";
const SECRET_KEY_LABEL: &[u8] = b"sk";

/// `suite_id = "KEM" || I2OSP(kem_id, 2)`.
const fn suite_id() -> [u8; 5] {
    let [high, low] = Known::X25519.id().to_be_bytes();
    [b'K', b'E', b'M', high, low]
}

/// `LabeledExtract("", label, ikm)` (RFC 9180 section 4).
fn labeled_extract(label: &[u8], ikm: &[u8]) -> Hkdf<Sha256> {
    let mut extract = HkdfExtract::<Sha256>::new(None);
    for part in [VERSION_LABEL, &suite_id(), label, ikm] {
        extract.input_ikm(part);
    }
    extract.finalize().1
}

/// `LabeledExpand(prk, label, info, 32)` (RFC 9180 section 4).
fn labeled_expand(prk: &Hkdf<Sha256>, label: &[u8], info: &[u8], out: &mut [u8; LEN]) {
    let info: [&[u8]; 5] = [&DERIVED_LEN, VERSION_LABEL, &suite_id(), label, info];
    #[expect(
        clippy::expect_used,
        reason = "32 bytes are one block, and the limit is 255"
    )]
    prk.expand_multi_info(&info, out).expect("one block");
}

/// An X25519 public key, and an encapsulated one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicKey([u8; LEN]);

impl PublicKey {
    pub(super) const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

impl Serializable for PublicKey {
    type OutputSize = U32;

    fn write_exact(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }
}

impl Deserializable for PublicKey {
    fn from_bytes(encoded: &[u8]) -> Result<Self, HpkeError> {
        Ok(Self(exact(encoded)?))
    }
}

/// An X25519 secret with what belongs to it. A clone shares both, and the last one wipes them.
#[derive(Clone)]
pub(super) struct PrivateKey(Arc<Pair>);

struct Pair {
    secret: SecretBytes,
    key: agreement::PrivateKey,
    public: PublicKey,
}

impl PrivateKey {
    #[expect(
        clippy::expect_used,
        reason = "any 32 bytes are an X25519 secret, and a public key has 32"
    )]
    pub(super) fn new(secret: SecretBytes) -> Self {
        let key = agreement::PrivateKey::from_private_key(&X25519, secret.as_slice());
        let key = key.expect("a secret of 32 bytes");
        let public = key.compute_public_key().expect("a key has a public one");
        let public = PublicKey(exact(public.as_ref()).expect("32 bytes"));
        Self(Arc::new(Pair {
            secret,
            key,
            public,
        }))
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.0.public
    }

    /// `DH(skX, pkY)`; an all-zero value is an error (RFC 9180 section 7.1.4).
    pub(super) fn exchange(&self, public: &PublicKey) -> Option<SecretBytes> {
        let peer = UnparsedPublicKey::new(&X25519, &public.0);
        let exchanged = agreement::agree(&self.0.key, peer, (), |exchanged| {
            secret_of(exchanged).map_err(|_| ())
        });
        // aws-lc refuses zeros itself; the protocol does not rest on that.
        exchanged
            .ok()
            .filter(|exchanged| !bool::from(exchanged.ct_eq(&[0; LEN])))
    }

    #[cfg(test)]
    pub(super) fn secret(&self) -> &[u8; LEN] {
        &self.0.secret
    }
}

impl ConstantTimeEq for PrivateKey {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.secret.ct_eq(other.0.secret.as_slice())
    }
}

impl Serializable for PrivateKey {
    type OutputSize = U32;

    /// Clamped, as the standard asks of what is written (RFC 9180 section 7.1.2).
    fn write_exact(&self, out: &mut [u8]) {
        let mut clamped = self.0.secret.clone();
        if let [first, .., last] = clamped.as_mut_slice() {
            *first &= 0xf8;
            *last = (*last & 0x7f) | 0x40;
        }
        out.copy_from_slice(clamped.as_slice());
    }
}

impl Deserializable for PrivateKey {
    fn from_bytes(encoded: &[u8]) -> Result<Self, HpkeError> {
        secret_of(encoded).map(Self::new)
    }
}

/// A secret where it stays.
pub(super) fn secret_of(bytes: &[u8]) -> Result<SecretBytes, HpkeError> {
    let mut secret = SecretBytes::default();
    if bytes.len() != LEN {
        return Err(HpkeError::IncorrectInputLength(LEN, bytes.len()));
    }
    secret.copy_from_slice(bytes);
    Ok(secret)
}

fn exact(bytes: &[u8]) -> Result<[u8; LEN], HpkeError> {
    bytes
        .try_into()
        .map_err(|_| HpkeError::IncorrectInputLength(LEN, bytes.len()))
}

/// The KEM; only its base mode.
pub(super) struct X25519HkdfSha256;

impl X25519HkdfSha256 {
    #[inline(never)]
    fn encapsulate(
        recipient: &PublicKey,
        rng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, PublicKey), HpkeError> {
        let mut ikm = SecretBytes::default();
        rng.fill_bytes(ikm.as_mut_slice());
        let (secret, enc) = Self::derive_keypair(ikm.as_slice());
        let exchanged = secret.exchange(recipient).ok_or(HpkeError::EncapError)?;
        Ok((Self::shared_secret(&exchanged, &enc, recipient), enc))
    }

    #[inline(never)]
    fn decapsulate(secret: &PrivateKey, enc: &PublicKey) -> Result<SharedSecret<Self>, HpkeError> {
        let exchanged = secret.exchange(enc).ok_or(HpkeError::DecapError)?;
        Ok(Self::shared_secret(&exchanged, enc, secret.public()))
    }

    /// `ExtractAndExpand(dh, enc || pkRm)`.
    fn shared_secret(
        exchanged: &[u8; LEN],
        enc: &PublicKey,
        recipient: &PublicKey,
    ) -> SharedSecret<Self> {
        let prk = labeled_extract(EXTRACT_LABEL, exchanged);
        let mut context = [0; 2 * LEN];
        for (to, from) in context.iter_mut().zip(enc.0.iter().chain(&recipient.0)) {
            *to = *from;
        }
        let mut secret = Zeroizing::new([0; LEN]);
        labeled_expand(&prk, SHARED_SECRET_LABEL, &context, &mut secret);
        SharedSecret(Array(*secret))
    }
}

impl Kem for X25519HkdfSha256 {
    type PublicKey = PublicKey;
    type PrivateKey = PrivateKey;
    type EncappedKey = PublicKey;
    type NSecret = U32;

    const KEM_ID: u16 = Known::X25519.id();

    fn sk_to_pk(secret: &PrivateKey) -> PublicKey {
        secret.0.public.clone()
    }

    /// `DeriveKeyPair(ikm)` (RFC 9180 section 7.1.3).
    fn derive_keypair(ikm: &[u8]) -> (PrivateKey, PublicKey) {
        let prk = labeled_extract(DERIVE_LABEL, ikm);
        let mut secret = SecretBytes::default();
        labeled_expand(&prk, SECRET_KEY_LABEL, &[], &mut secret);
        let secret = PrivateKey::new(secret);
        let public = secret.public().clone();
        (secret, public)
    }

    fn encap_with_rng(
        recipient: &PublicKey,
        sender: Option<(&PrivateKey, &PublicKey)>,
        rng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, PublicKey), HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::EncapError);
        }
        let encapsulated = Self::encapsulate(recipient, rng);
        stack::wipe::<{ stack::EXCHANGE_WORDS }>();
        encapsulated
    }

    fn decap(
        secret: &PrivateKey,
        sender: Option<&PublicKey>,
        enc: &PublicKey,
    ) -> Result<SharedSecret<Self>, HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::DecapError);
        }
        let decapsulated = Self::decapsulate(secret, enc);
        stack::wipe::<{ stack::EXCHANGE_WORDS }>();
        decapsulated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The modes that authenticate a sender are no part of the protocol.
    #[test]
    fn no_sender_is_authenticated() {
        let (secret, public) = X25519HkdfSha256::derive_keypair(&[7; LEN]);
        let sender = (&secret, &public);
        let mut rng = rand::rng();
        let sealed = X25519HkdfSha256::encap_with_rng(&public, Some(sender), &mut rng);
        assert_eq!(sealed.err(), Some(HpkeError::EncapError));
        let (_, enc) = X25519HkdfSha256::encap_with_rng(&public, None, &mut rng).unwrap();
        let opened = X25519HkdfSha256::decap(&secret, Some(&public), &enc);
        assert_eq!(opened.err(), Some(HpkeError::DecapError));
        assert!(X25519HkdfSha256::decap(&secret, None, &enc).is_ok());
    }
}
