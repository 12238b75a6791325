//! The ciphers of one exchange: HPKE contexts for the request, a derived AEAD for the reply.
//!
//! Sealing and opening are types apart, and each counts its own chunks.

use std::fmt;

use aead::AeadInOut as _;
use bytes::{Bytes, BytesMut};
use hpke::{
    Deserializable, HpkeError, OpModeR, OpModeS, Serializable as _,
    aead::{AeadCtxR, AeadCtxS, AeadTag},
    inout::InOutBuf,
    kdf::HkdfSha256,
    setup_receiver, setup_sender_with_rng,
};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::{
    aead::{Aes128Gcm, Aes256Gcm, AesGcm, Bits128, Bits256, Length},
    enc::Enc,
    error::{OpenError, SealError},
    kem::{PrivateKey, X25519HkdfSha256},
    keys::{NodeSecret, Secret},
    labels::{self, CHUNK_AAD, FINAL_CHUNK_AAD, RESPONSE_EXPORT_LABEL},
    nonce::CounterNonce,
    plaintext, stack,
    suite::{Aead, Kem, MAX_KEY_LEN, Suite, TAG_LEN, X25519_ENC_LEN},
    x_wing::XWing,
};

type Sending<L, K> = Box<AeadCtxS<AesGcm<L>, HkdfSha256, K>>;
type Receiving<L, K> = Box<AeadCtxR<AesGcm<L>, HkdfSha256, K>>;

/// Where a chunk stands in its message; the last one authenticates that it is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Middle,
    Final,
}

impl Place {
    const fn aad(self) -> &'static [u8] {
        match self {
            Self::Middle => CHUNK_AAD,
            Self::Final => FINAL_CHUNK_AAD,
        }
    }
}

/// Encrypts chunks of one direction in order.
pub(super) trait SealChunk {
    /// Encrypts `chunk` where it lies, and returns its tag.
    fn seal_in_place(&mut self, chunk: &mut [u8], place: Place)
    -> Result<[u8; TAG_LEN], SealError>;
}

/// Decrypts chunks of one direction in order.
pub(super) trait OpenChunk {
    /// Decrypts `chunk` where it lies, if `tag` proves it.
    fn open_in_place(
        &mut self,
        chunk: &mut [u8],
        tag: &[u8; TAG_LEN],
        place: Place,
    ) -> Result<(), OpenError>;

    /// Opens a whole ciphertext. On failure its bytes are dropped unseen.
    fn open(&mut self, mut sealed: BytesMut, place: Place) -> Result<Bytes, OpenError> {
        let (chunk, tag) = sealed
            .split_last_chunk_mut::<TAG_LEN>()
            .ok_or(OpenError::Truncated)?;
        self.open_in_place(chunk, tag, place)?;
        let len = chunk.len();
        sealed.truncate(len);
        Ok(plaintext::share(sealed))
    }
}

/// What both sides export from the request's context to derive the reply's keys from.
pub(super) struct ReplySecret {
    aead: Aead,
    /// Where it stays: what moves leaves a copy.
    secret: Box<Zeroizing<[u8; MAX_KEY_LEN]>>,
    enc: Enc,
}

impl ReplySecret {
    /// `secret = Context.Export(label, max(Nn, Nk))`.
    #[inline(never)]
    fn export(
        aead: Aead,
        enc: Enc,
        label: &[u8],
        export: impl FnOnce(&[u8], &mut [u8]) -> Result<(), HpkeError>,
    ) -> Option<Self> {
        let mut secret = Box::new(Zeroizing::new([0; MAX_KEY_LEN]));
        export(label, secret.get_mut(..aead.key_len())?).ok()?;
        Some(Self { aead, secret, enc })
    }

    /// Bytes of random nonce that a reply begins with, `max(Nn, Nk)`.
    pub(super) const fn nonce_len(&self) -> usize {
        self.aead.key_len()
    }

    fn cipher(&self, response_nonce: &[u8]) -> Option<ReplyCipher> {
        let secret = self.secret.get(..self.aead.key_len())?;
        let cipher = labels::reply_cipher(self.aead, secret, self.enc.as_bytes(), response_nonce);
        stack::wipe::<{ stack::EXCHANGE_WORDS }>();
        cipher
    }

    pub(super) fn sealing(&self, response_nonce: &[u8]) -> Result<ReplySealing, SealError> {
        self.cipher(response_nonce)
            .map(ReplySealing)
            .ok_or(SealError::Length)
    }

    pub(super) fn opening(&self, response_nonce: &[u8]) -> Result<ReplyOpening, OpenError> {
        self.cipher(response_nonce)
            .map(ReplyOpening)
            .ok_or(OpenError::Decrypt)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn fixed(aead: Aead, secret: [u8; MAX_KEY_LEN], enc: [u8; X25519_ENC_LEN]) -> Self {
        Self {
            aead,
            secret: Box::new(Zeroizing::new(secret)),
            enc: Enc::X25519(enc),
        }
    }

    #[cfg(test)]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.secret[..self.aead.key_len()]
    }
}

impl fmt::Debug for ReplySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplySecret(..)")
    }
}

/// The sender's HPKE context (RFC 9180 section 5.2).
pub(super) enum RequestSealing {
    Aes128Gcm(Sending<Bits128, X25519HkdfSha256>),
    Aes256Gcm(Sending<Bits256, X25519HkdfSha256>),
    XWing(Sending<Bits256, XWing>),
}

impl RequestSealing {
    /// `SetupBaseS(pkR, info)`: the encapsulated key, the context and the reply's secret.
    ///
    /// A key of another KEM than the suite's is not usable.
    pub(super) fn setup(
        suite: Suite,
        public_key: &[u8],
        info: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Enc, Self, ReplySecret), SealError> {
        let kem = suite.kem();
        let (enc, this) = match suite {
            Suite::X25519(Aead::Aes128Gcm) => {
                let (enc, context) = setup_sender(kem, public_key, info, rng)?;
                (enc, Self::Aes128Gcm(context))
            }
            Suite::X25519(Aead::Aes256Gcm) => {
                let (enc, context) = setup_sender(kem, public_key, info, rng)?;
                (enc, Self::Aes256Gcm(context))
            }
            Suite::XWing => {
                let (enc, context) = setup_sender(kem, public_key, info, rng)?;
                (enc, Self::XWing(context))
            }
        };
        let export = |label: &[u8], out: &mut [u8]| match &this {
            Self::Aes128Gcm(context) => context.export(label, out),
            Self::Aes256Gcm(context) => context.export(label, out),
            Self::XWing(context) => context.export(label, out),
        };
        let secret = ReplySecret::export(suite.aead(), enc.clone(), RESPONSE_EXPORT_LABEL, export);
        stack::wipe::<{ stack::EXCHANGE_WORDS }>();
        Ok((enc, this, secret.ok_or(SealError::Length)?))
    }
}

#[inline(never)]
fn setup_sender<L: Length, K: hpke::Kem>(
    kem: Kem,
    public_key: &[u8],
    info: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<(Enc, Sending<L, K>), SealError> {
    let unusable = |_| SealError::UnusableKey;
    let key = K::PublicKey::from_bytes(public_key).map_err(unusable)?;
    let (enc, context) =
        setup_sender_with_rng::<AesGcm<L>, HkdfSha256, K>(&OpModeS::Base, &key, info, rng)
            .map_err(unusable)?;
    let enc = Enc::read(kem, &enc.to_bytes()).ok_or(SealError::Length)?;
    Ok((enc, Box::new(context)))
}

impl SealChunk for RequestSealing {
    fn seal_in_place(
        &mut self,
        chunk: &mut [u8],
        place: Place,
    ) -> Result<[u8; TAG_LEN], SealError> {
        match self {
            Self::Aes128Gcm(context) => seal_with(context, chunk, place),
            Self::Aes256Gcm(context) => seal_with(context, chunk, place),
            Self::XWing(context) => seal_with(context, chunk, place),
        }
    }
}

fn seal_with<L: Length, K: hpke::Kem>(
    context: &mut AeadCtxS<AesGcm<L>, HkdfSha256, K>,
    chunk: &mut [u8],
    place: Place,
) -> Result<[u8; TAG_LEN], SealError> {
    let tag = context.seal_inout_detached(InOutBuf::from(chunk), place.aad());
    let tag = tag.map_err(|_| SealError::Exhausted)?;
    Ok(tag.to_bytes().into())
}

/// The receiver's HPKE context (RFC 9180 section 5.2).
pub(super) enum RequestOpening {
    Aes128Gcm(Receiving<Bits128, X25519HkdfSha256>),
    Aes256Gcm(Receiving<Bits256, X25519HkdfSha256>),
    XWing(Receiving<Bits256, XWing>),
}

impl RequestOpening {
    /// `SetupBaseR(enc, skR, info)`, where all three are of one KEM.
    pub(super) fn setup(
        suite: Suite,
        secret: &NodeSecret,
        enc: &Enc,
        info: &[u8],
    ) -> Result<Self, OpenError> {
        match (suite, secret, enc) {
            (Suite::X25519(aead), NodeSecret(Secret::X25519(secret)), Enc::X25519(enc)) => {
                Self::x25519(aead, secret, enc, info)
            }
            (Suite::XWing, NodeSecret(Secret::XWing(secret)), Enc::XWing(enc)) => {
                setup_receiver_of(secret, enc.as_slice(), info).map(Self::XWing)
            }
            _ => Err(OpenError::UnsupportedSuite),
        }
    }

    /// The same with X25519 alone; fails on an all-zero shared secret.
    pub(super) fn x25519(
        aead: Aead,
        secret: &PrivateKey,
        enc: &[u8; X25519_ENC_LEN],
        info: &[u8],
    ) -> Result<Self, OpenError> {
        match aead {
            Aead::Aes128Gcm => setup_receiver_of(secret, enc, info).map(Self::Aes128Gcm),
            Aead::Aes256Gcm => setup_receiver_of(secret, enc, info).map(Self::Aes256Gcm),
        }
    }

    /// What the reply is sealed with, once `enc` is no longer needed.
    pub(super) fn reply_secret(&self, enc: Enc, label: &[u8]) -> Option<ReplySecret> {
        let export = |label: &[u8], out: &mut [u8]| match self {
            Self::Aes128Gcm(context) => context.export(label, out),
            Self::Aes256Gcm(context) => context.export(label, out),
            Self::XWing(context) => context.export(label, out),
        };
        let aead = match self {
            Self::Aes128Gcm(_) => Aead::Aes128Gcm,
            Self::Aes256Gcm(_) | Self::XWing(_) => Aead::Aes256Gcm,
        };
        let secret = ReplySecret::export(aead, enc, label, export);
        stack::wipe::<{ stack::EXCHANGE_WORDS }>();
        secret
    }
}

#[inline(never)]
fn setup_receiver_of<L: Length, K: hpke::Kem>(
    secret: &K::PrivateKey,
    enc: &[u8],
    info: &[u8],
) -> Result<Receiving<L, K>, OpenError> {
    let refused = |_| OpenError::FirstChunk;
    let enc = K::EncappedKey::from_bytes(enc).map_err(refused)?;
    let context = setup_receiver(&OpModeR::Base, secret, &enc, info).map_err(refused)?;
    Ok(Box::new(context))
}

impl OpenChunk for RequestOpening {
    fn open_in_place(
        &mut self,
        chunk: &mut [u8],
        tag: &[u8; TAG_LEN],
        place: Place,
    ) -> Result<(), OpenError> {
        match self {
            Self::Aes128Gcm(context) => open_with(context, chunk, tag, place),
            Self::Aes256Gcm(context) => open_with(context, chunk, tag, place),
            Self::XWing(context) => open_with(context, chunk, tag, place),
        }
    }
}

fn open_with<L: Length, K: hpke::Kem>(
    context: &mut AeadCtxR<AesGcm<L>, HkdfSha256, K>,
    chunk: &mut [u8],
    tag: &[u8; TAG_LEN],
    place: Place,
) -> Result<(), OpenError> {
    AeadTag::from_bytes(tag)
        .and_then(|tag| context.open_inout_detached(InOutBuf::from(chunk), place.aad(), &tag))
        .map_err(|_| OpenError::Decrypt)
}

/// The AEAD and nonce of a reply; made only by [`labels::reply_cipher`].
pub(super) enum ReplyCipher {
    Aes128Gcm(Box<Aes128Gcm>, CounterNonce),
    Aes256Gcm(Box<Aes256Gcm>, CounterNonce),
}

/// The node's side of a reply.
pub(super) struct ReplySealing(ReplyCipher);

impl SealChunk for ReplySealing {
    fn seal_in_place(
        &mut self,
        chunk: &mut [u8],
        place: Place,
    ) -> Result<[u8; TAG_LEN], SealError> {
        let chunk = InOutBuf::from(chunk);
        let tag = match &mut self.0 {
            ReplyCipher::Aes128Gcm(aead, nonce) => {
                let nonce = nonce.advance().ok_or(SealError::Exhausted)?;
                aead.encrypt_inout_detached(&nonce.into(), place.aad(), chunk)
            }
            ReplyCipher::Aes256Gcm(aead, nonce) => {
                let nonce = nonce.advance().ok_or(SealError::Exhausted)?;
                aead.encrypt_inout_detached(&nonce.into(), place.aad(), chunk)
            }
        };
        tag.map(Into::into).map_err(|_| SealError::Exhausted)
    }
}

/// The sealer's side of a reply.
pub(super) struct ReplyOpening(ReplyCipher);

impl OpenChunk for ReplyOpening {
    fn open_in_place(
        &mut self,
        chunk: &mut [u8],
        tag: &[u8; TAG_LEN],
        place: Place,
    ) -> Result<(), OpenError> {
        let chunk = InOutBuf::from(chunk);
        let tag = &(*tag).into();
        let opened = match &mut self.0 {
            ReplyCipher::Aes128Gcm(aead, nonce) => {
                let nonce = nonce.advance().ok_or(OpenError::Exhausted)?;
                aead.decrypt_inout_detached(&nonce.into(), place.aad(), chunk, tag)
            }
            ReplyCipher::Aes256Gcm(aead, nonce) => {
                let nonce = nonce.advance().ok_or(OpenError::Exhausted)?;
                aead.decrypt_inout_detached(&nonce.into(), place.aad(), chunk, tag)
            }
        };
        opened.map_err(|_| OpenError::Decrypt)
    }
}
