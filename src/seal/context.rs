//! The ciphers of one exchange: HPKE contexts for the request, a derived AEAD for the reply.
//!
//! Sealing and opening are types apart, and each counts its own chunks.

use std::fmt;

use aead::AeadInOut as _;
use bytes::{Bytes, BytesMut};
use hpke::{
    Deserializable as _, HpkeError, Kem as _, OpModeR, OpModeS, Serializable as _,
    aead::{AeadCtxR, AeadCtxS, AeadTag},
    inout::InOutBuf,
    kdf::HkdfSha256,
    setup_receiver, setup_sender_with_rng,
};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::{
    aead::{Aes128Gcm, Aes256Gcm},
    error::{OpenError, SealError},
    kem::{PrivateKey, PublicKey, X25519HkdfSha256},
    labels::{self, CHUNK_AAD, FINAL_CHUNK_AAD, RESPONSE_EXPORT_LABEL},
    nonce::CounterNonce,
    plaintext,
    suite::{Aead, ENC_LEN, Header, MAX_KEY_LEN, TAG_LEN},
};

type Sending<A> = Box<AeadCtxS<A, HkdfSha256, X25519HkdfSha256>>;
type Receiving<A> = Box<AeadCtxR<A, HkdfSha256, X25519HkdfSha256>>;

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
    secret: Zeroizing<[u8; MAX_KEY_LEN]>,
    enc: [u8; ENC_LEN],
}

impl ReplySecret {
    /// `secret = Context.Export(label, max(Nn, Nk))`.
    fn export(
        aead: Aead,
        enc: [u8; ENC_LEN],
        label: &[u8],
        export: impl FnOnce(&[u8], &mut [u8]) -> Result<(), HpkeError>,
    ) -> Option<Self> {
        let mut secret = Zeroizing::new([0; MAX_KEY_LEN]);
        export(label, secret.get_mut(..aead.key_len())?).ok()?;
        Some(Self { aead, secret, enc })
    }

    /// Bytes of random nonce that a reply begins with, `max(Nn, Nk)`.
    pub(super) const fn nonce_len(&self) -> usize {
        self.aead.key_len()
    }

    fn cipher(&self, response_nonce: &[u8]) -> Option<ReplyCipher> {
        let secret = self.secret.get(..self.aead.key_len())?;
        labels::reply_cipher(self.aead, secret, &self.enc, response_nonce)
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
    pub(super) fn fixed(aead: Aead, secret: [u8; MAX_KEY_LEN], enc: [u8; ENC_LEN]) -> Self {
        Self {
            aead,
            secret: Zeroizing::new(secret),
            enc,
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
    Aes128Gcm(Sending<Aes128Gcm>),
    Aes256Gcm(Sending<Aes256Gcm>),
}

impl RequestSealing {
    /// `SetupBaseS(pkR, info)`: the encapsulated key, the context and the reply's secret.
    pub(super) fn setup(
        header: Header,
        public_key: &[u8; 32],
        info: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<([u8; ENC_LEN], Self, ReplySecret), SealError> {
        let unusable = |_| SealError::UnusableKey;
        let key = PublicKey::from_bytes(public_key).map_err(unusable)?;
        let mode = OpModeS::Base;
        let (enc, this) = match header.aead {
            Aead::Aes128Gcm => {
                let (enc, context) =
                    setup_sender_with_rng(&mode, &key, info, rng).map_err(unusable)?;
                (enc, Self::Aes128Gcm(Box::new(context)))
            }
            Aead::Aes256Gcm => {
                let (enc, context) =
                    setup_sender_with_rng(&mode, &key, info, rng).map_err(unusable)?;
                (enc, Self::Aes256Gcm(Box::new(context)))
            }
        };
        let enc: [u8; ENC_LEN] = enc.to_bytes().into();
        let export = |label: &[u8], out: &mut [u8]| match &this {
            Self::Aes128Gcm(context) => context.export(label, out),
            Self::Aes256Gcm(context) => context.export(label, out),
        };
        let secret = ReplySecret::export(header.aead, enc, RESPONSE_EXPORT_LABEL, export);
        Ok((enc, this, secret.ok_or(SealError::Length)?))
    }
}

impl SealChunk for RequestSealing {
    fn seal_in_place(
        &mut self,
        chunk: &mut [u8],
        place: Place,
    ) -> Result<[u8; TAG_LEN], SealError> {
        let chunk = InOutBuf::from(chunk);
        let exhausted = |_| SealError::Exhausted;
        Ok(match self {
            Self::Aes128Gcm(context) => {
                let tag = context
                    .seal_inout_detached(chunk, place.aad())
                    .map_err(exhausted)?;
                tag.to_bytes().into()
            }
            Self::Aes256Gcm(context) => {
                let tag = context
                    .seal_inout_detached(chunk, place.aad())
                    .map_err(exhausted)?;
                tag.to_bytes().into()
            }
        })
    }
}

/// The receiver's HPKE context (RFC 9180 section 5.2).
pub(super) enum RequestOpening {
    Aes128Gcm(Receiving<Aes128Gcm>),
    Aes256Gcm(Receiving<Aes256Gcm>),
}

impl RequestOpening {
    /// `SetupBaseR(enc, skR, info)`; fails on an all-zero shared secret.
    pub(super) fn setup(
        header: Header,
        secret: &PrivateKey,
        enc: &[u8; ENC_LEN],
        info: &[u8],
    ) -> Result<Self, OpenError> {
        let refused = |_| OpenError::FirstChunk;
        let enc = PublicKey::from_bytes(enc).map_err(refused)?;
        let mode = OpModeR::Base;
        Ok(match header.aead {
            Aead::Aes128Gcm => Self::Aes128Gcm(Box::new(
                setup_receiver(&mode, secret, &enc, info).map_err(refused)?,
            )),
            Aead::Aes256Gcm => Self::Aes256Gcm(Box::new(
                setup_receiver(&mode, secret, &enc, info).map_err(refused)?,
            )),
        })
    }

    pub(super) fn reply_secret(&self, enc: [u8; ENC_LEN], label: &[u8]) -> Option<ReplySecret> {
        match self {
            Self::Aes128Gcm(context) => {
                let export = |label: &[u8], out: &mut [u8]| context.export(label, out);
                ReplySecret::export(Aead::Aes128Gcm, enc, label, export)
            }
            Self::Aes256Gcm(context) => {
                let export = |label: &[u8], out: &mut [u8]| context.export(label, out);
                ReplySecret::export(Aead::Aes256Gcm, enc, label, export)
            }
        }
    }
}

impl OpenChunk for RequestOpening {
    fn open_in_place(
        &mut self,
        chunk: &mut [u8],
        tag: &[u8; TAG_LEN],
        place: Place,
    ) -> Result<(), OpenError> {
        let chunk = InOutBuf::from(chunk);
        let opened = match self {
            Self::Aes128Gcm(context) => AeadTag::from_bytes(tag)
                .and_then(|tag| context.open_inout_detached(chunk, place.aad(), &tag)),
            Self::Aes256Gcm(context) => AeadTag::from_bytes(tag)
                .and_then(|tag| context.open_inout_detached(chunk, place.aad(), &tag)),
        };
        opened.map_err(|_| OpenError::Decrypt)
    }
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

/// The public key of `secret`.
pub(super) fn public_key(secret: &PrivateKey) -> [u8; 32] {
    X25519HkdfSha256::sk_to_pk(secret).to_bytes().into()
}

/// A fresh key pair, `DeriveKeyPair(random)` (RFC 9180 section 7.1.3).
pub(super) fn generate(rng: &mut impl CryptoRng) -> PrivateKey {
    X25519HkdfSha256::gen_keypair_with_rng(rng).0
}
