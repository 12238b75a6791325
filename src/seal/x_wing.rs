//! X-Wing (draft-connolly-cfrg-xwing-kem) for the `hpke` crate, on aws-lc.
//!
//! A node's seed is expanded once, when its key is made; what is expanded is kept where it is wiped.
//! aws-lc encapsulates with randomness of its own and makes no key from a seed: that crate `ml-kem`
//! does. The draft's vectors and crate `x-wing` hold both to the standard, byte for byte.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    digest::{self, SHA3_256},
    kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768},
};
use hpke::{
    Deserializable, HpkeError, Kem, Serializable,
    hybrid_array::{
        Array,
        sizes::{U32, U1120, U1216},
    },
    kem::SharedSecret,
};
use rand::CryptoRng;
use shake::{ExtendableOutput as _, Shake256, Update as _, XofReader as _};
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize as _, Zeroizing};

#[cfg(test)]
use crate::leftovers::Needle;

use super::{
    kem::{LEN, PrivateKey as X25519Secret, PublicKey as X25519Key, SecretBytes, secret_of},
    stack,
    suite::{Kem as Known, X_WING_ENC_LEN},
};

/// Length of an encapsulation key of ML-KEM-768; an X25519 key follows.
const ML_KEM_KEY_LEN: usize = 1184;
const KEY_LEN: usize = ML_KEM_KEY_LEN + LEN;
/// Length of a ciphertext of ML-KEM-768; an X25519 key follows.
const ML_KEM_ENC_LEN: usize = X_WING_ENC_LEN - LEN;
/// What the combiner ends with.
const LABEL: &[u8; 6] = br"\.//^\";

/// A public key. It is validated when something is encapsulated to it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PublicKey(Box<[u8; KEY_LEN]>);

impl PublicKey {
    fn halves(&self) -> (&[u8], &[u8]) {
        self.0.split_at(ML_KEM_KEY_LEN)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(..)")
    }
}

impl Serializable for PublicKey {
    type OutputSize = U1216;

    fn write_exact(&self, out: &mut [u8]) {
        out.copy_from_slice(self.0.as_slice());
    }
}

impl Deserializable for PublicKey {
    fn from_bytes(encoded: &[u8]) -> Result<Self, HpkeError> {
        boxed(encoded).map(Self)
    }
}

/// A ciphertext of ML-KEM-768, then an X25519 key.
#[derive(Clone)]
pub(super) struct EncappedKey(Box<[u8; X_WING_ENC_LEN]>);

impl Serializable for EncappedKey {
    type OutputSize = U1120;

    fn write_exact(&self, out: &mut [u8]) {
        out.copy_from_slice(self.0.as_slice());
    }
}

impl Deserializable for EncappedKey {
    fn from_bytes(encoded: &[u8]) -> Result<Self, HpkeError> {
        boxed(encoded).map(Self)
    }
}

fn boxed<const N: usize>(bytes: &[u8]) -> Result<Box<[u8; N]>, HpkeError> {
    let boxed = bytes.try_into().map(Box::new);
    boxed.map_err(|_| HpkeError::IncorrectInputLength(N, bytes.len()))
}

/// A seed with all that is expanded from it. A clone shares both, and the last one wipes them.
#[derive(Clone)]
pub(super) struct PrivateKey(Arc<Pair>);

struct Pair {
    seed: SecretBytes,
    ml_kem: DecapsulationKey,
    x25519: X25519Secret,
    public: PublicKey,
}

impl PrivateKey {
    pub(super) fn new(seed: SecretBytes) -> Self {
        let this = Self::expand(seed);
        stack::wipe::<{ stack::KEY_WORDS }>();
        this
    }

    /// `expandDecapsulationKey(sk)`.
    #[inline(never)]
    fn expand(seed: SecretBytes) -> Self {
        let mut shake = Shake256::default();
        shake.update(seed.as_slice());
        let mut expanded = shake.finalize_xof();
        let mut ml_kem_seed = Zeroizing::new([0; 64]);
        expanded.read(ml_kem_seed.as_mut());
        let mut x25519 = SecretBytes::default();
        expanded.read(x25519.as_mut_slice());
        let x25519 = X25519Secret::new(x25519);
        let (ml_kem, ml_kem_public) = ml_kem_keys(&ml_kem_seed);
        let mut public = Box::new([0; KEY_LEN]);
        let parts = ml_kem_public.iter().chain(x25519.public().as_bytes());
        for (to, from) in public.iter_mut().zip(parts) {
            *to = *from;
        }
        Self(Arc::new(Pair {
            seed,
            ml_kem,
            x25519,
            public: PublicKey(public),
        }))
    }

    /// What no memory may hold once this is dropped, and what none may hold once it was made.
    #[cfg(test)]
    pub(super) fn needles(&self) -> (Vec<Needle>, Vec<Needle>) {
        let needles = self.look();
        stack::wipe::<{ stack::KEY_WORDS }>();
        needles
    }

    #[cfg(test)]
    #[inline(never)]
    fn look(&self) -> (Vec<Needle>, Vec<Needle>) {
        let Pair {
            seed,
            ml_kem,
            x25519,
            ..
        } = &*self.0;
        let expanded = ml_kem.key_bytes().unwrap();
        let expanded = expanded.as_ref();
        let held = vec![
            Needle::new("a seed", seed.as_slice()),
            Needle::new("the x25519 half", x25519.secret()),
            Needle::new("the secret polynomials", &expanded[..32]),
            Needle::new("the secret of rejections", &expanded[2400 - 32..]),
        ];
        let mut shake = Shake256::default();
        shake.update(seed.as_slice());
        let mut ml_kem_seed = Zeroizing::new([0; 32]);
        shake.finalize_xof().read(ml_kem_seed.as_mut());
        // Two coefficients of 12 bits in three bytes, as the crate that makes the key holds them.
        let coefficients = expanded[..24].chunks(3).flat_map(|three| {
            let low = [three[0], three[1] & 0x0f];
            let high = [three[1] >> 4 | three[2] << 4, three[2] >> 4];
            [low, high].concat()
        });
        let coefficients = Zeroizing::new(coefficients.collect::<Vec<u8>>());
        let never = vec![
            Needle::new("the seed of the polynomials", ml_kem_seed.iter()),
            Needle::new("the coefficients", coefficients.iter()),
        ];
        (held, never)
    }
}

/// `ML-KEM-768.KeyGen_internal(d, z)`: the key as aws-lc takes it, and the public key.
fn ml_kem_keys(seed: &[u8; 64]) -> (DecapsulationKey, [u8; ML_KEM_KEY_LEN]) {
    use ml_kem::{FromSeed as _, KeyExport as _, MlKem768};
    let mut seed = (*seed).into();
    let (secret, public) = MlKem768::from_seed(&seed);
    seed.zeroize();
    #[expect(deprecated, reason = "aws-lc takes no seed")]
    let mut expanded = ml_kem::ExpandedKeyEncoding::to_expanded_bytes(&secret);
    #[expect(clippy::expect_used, reason = "the length is the algorithm's")]
    let key = DecapsulationKey::new(&ML_KEM_768, &expanded).expect("an expanded key");
    expanded.zeroize();
    (key, public.to_bytes().into())
}

impl ConstantTimeEq for PrivateKey {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.seed.ct_eq(other.0.seed.as_slice())
    }
}

impl Serializable for PrivateKey {
    type OutputSize = U32;

    fn write_exact(&self, out: &mut [u8]) {
        out.copy_from_slice(self.0.seed.as_slice());
    }
}

impl Deserializable for PrivateKey {
    fn from_bytes(encoded: &[u8]) -> Result<Self, HpkeError> {
        secret_of(encoded).map(Self::new)
    }
}

/// The KEM; only its base mode.
pub(super) struct XWing;

impl XWing {
    #[inline(never)]
    fn encapsulate(
        recipient: &PublicKey,
        rng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, EncappedKey), HpkeError> {
        let failed = |_| HpkeError::EncapError;
        let (ml_kem, x25519) = recipient.halves();
        let mut enc = Box::new([0; X_WING_ENC_LEN]);
        let (ml_kem_enc, x25519_enc) = enc.split_at_mut(ML_KEM_ENC_LEN);

        let ml_kem_secret = ml_kem_encapsulate(ml_kem, rng, ml_kem_enc)?;
        let mut ephemeral = SecretBytes::default();
        rng.fill_bytes(ephemeral.as_mut_slice());
        let ephemeral = X25519Secret::new(ephemeral);
        x25519_enc.copy_from_slice(ephemeral.public().as_bytes());
        let x25519_key = X25519Key::from_bytes(x25519).map_err(failed)?;
        // Where the half is of low order, it would add nothing.
        let exchanged = ephemeral.exchange(&x25519_key);
        let exchanged = exchanged.ok_or(HpkeError::EncapError)?;
        let secret = combine(
            ml_kem_secret.as_slice(),
            exchanged.as_slice(),
            x25519_enc,
            x25519,
        );
        Ok((secret, EncappedKey(enc)))
    }

    #[inline(never)]
    fn decapsulate(secret: &Pair, enc: &EncappedKey) -> Result<SharedSecret<Self>, HpkeError> {
        let failed = |_| HpkeError::DecapError;
        let (ml_kem_enc, x25519_enc) = enc.0.split_at(ML_KEM_ENC_LEN);
        let ml_kem_secret = secret.ml_kem.decapsulate(Ciphertext::from(ml_kem_enc));
        let ml_kem_secret = ml_kem_secret.map_err(|_| HpkeError::DecapError)?;
        let x25519_key = X25519Key::from_bytes(x25519_enc).map_err(failed)?;
        // The draft takes zeros as they are: what was sealed so rests on the other half.
        let exchanged = secret.x25519.exchange(&x25519_key).unwrap_or_default();
        let (_, x25519) = secret.public.halves();
        Ok(combine(
            ml_kem_secret.as_ref(),
            exchanged.as_slice(),
            x25519_enc,
            x25519,
        ))
    }
}

/// `ML-KEM-768.Encaps(pk)`: the secret; the ciphertext goes to `enc`. A key with a coefficient that
/// is not below 3,329 is refused (FIPS 203 section 7.2).
#[cfg_attr(
    not(any(test, fuzzing)),
    expect(unused_variables, reason = "aws-lc has its own randomness")
)]
fn ml_kem_encapsulate(
    key: &[u8],
    rng: &mut impl CryptoRng,
    enc: &mut [u8],
) -> Result<SecretBytes, HpkeError> {
    #[cfg(any(test, fuzzing))]
    if fixed::is_on() {
        return fixed::encapsulate(key, rng, enc);
    }
    let key = EncapsulationKey::new(&ML_KEM_768, key).map_err(|_| HpkeError::EncapError)?;
    let (ciphertext, secret) = key.encapsulate().map_err(|_| HpkeError::EncapError)?;
    enc.copy_from_slice(ciphertext.as_ref());
    secret_of(secret.as_ref())
}

/// `SHA3-256(ss_M || ss_X || ct_X || pk_X || label)`.
fn combine(ml_kem: &[u8], x25519: &[u8], enc: &[u8], public: &[u8]) -> SharedSecret<XWing> {
    let mut hash = digest::Context::new(&SHA3_256);
    for part in [ml_kem, x25519, enc, public, LABEL] {
        hash.update(part);
    }
    let mut secret = SharedSecret(Array::default());
    secret.0.copy_from_slice(hash.finish().as_ref());
    secret
}

impl Kem for XWing {
    type PublicKey = PublicKey;
    type PrivateKey = PrivateKey;
    type EncappedKey = EncappedKey;
    type NSecret = U32;

    const KEM_ID: u16 = Known::XWing.id();

    fn sk_to_pk(secret: &PrivateKey) -> PublicKey {
        secret.0.public.clone()
    }

    /// `SHAKE256.LabeledDerive(ikm, "DeriveKeyPair", "", 32)` is the seed (draft-ietf-hpke-pq).
    fn derive_keypair(ikm: &[u8]) -> (PrivateKey, PublicKey) {
        /// Lengths stand before what they count, in two bytes.
        const LABEL_LEN: [u8; 2] = [0, 13];
        const SEED_LEN: [u8; 2] = [0, 32];
        let [high, low] = Self::KEM_ID.to_be_bytes();
        let suite_id = [b'K', b'E', b'M', high, low];
        let mut shake = Shake256::default();
        let parts: [&[u8]; 6] = [
            ikm,
            b"HPKE-v1",
            &suite_id,
            &LABEL_LEN,
            b"DeriveKeyPair",
            &SEED_LEN,
        ];
        for part in parts {
            shake.update(part);
        }
        let mut seed = SecretBytes::default();
        shake.finalize_xof().read(seed.as_mut_slice());
        let secret = PrivateKey::new(seed);
        let public = secret.0.public.clone();
        (secret, public)
    }

    fn encap_with_rng(
        recipient: &PublicKey,
        sender: Option<(&PrivateKey, &PublicKey)>,
        rng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, EncappedKey), HpkeError> {
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
        enc: &EncappedKey,
    ) -> Result<SharedSecret<Self>, HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::DecapError);
        }
        let decapsulated = Self::decapsulate(&secret.0, enc);
        stack::wipe::<{ stack::EXCHANGE_WORDS }>();
        decapsulated
    }
}

/// ML-KEM with what a test or a fuzz target draws, since aws-lc takes no randomness of others.
#[cfg(any(test, fuzzing))]
pub(super) mod fixed {
    use std::cell::Cell;

    use ml_kem::ml_kem_768::EncapsulationKey;

    use super::*;

    thread_local! {
        static ON: Cell<bool> = const { Cell::new(cfg!(fuzzing)) };
    }

    pub(super) fn is_on() -> bool {
        ON.get()
    }

    /// Does `work`, in which all randomness comes from the generator.
    #[cfg(test)]
    pub(in crate::seal) fn with<T>(work: impl FnOnce() -> T) -> T {
        ON.set(true);
        let done = work();
        ON.set(false);
        done
    }

    pub(super) fn encapsulate(
        key: &[u8],
        rng: &mut impl CryptoRng,
        enc: &mut [u8],
    ) -> Result<SecretBytes, HpkeError> {
        let mut coins = [0; 32];
        rng.fill_bytes(&mut coins);
        let key = key.try_into().map_err(|_| HpkeError::EncapError)?;
        let key = EncapsulationKey::new(key).map_err(|_| HpkeError::EncapError)?;
        let (ciphertext, secret) = key.encapsulate_deterministic(&coins.into());
        enc.copy_from_slice(&ciphertext);
        secret_of(&secret)
    }
}
