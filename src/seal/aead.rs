//! AES-GCM (RFC 9180 section 7.3) on aws-lc, behind the traits that the `hpke` crate takes.
//!
//! The same library ends TLS and checks evidence; on long messages it takes about a quarter of the
//! time of the portable implementation.

use std::{marker::PhantomData, sync::Arc};

use aead::{
    AeadCore, AeadInOut, Error, Key, KeyInit, KeySizeUser, Nonce, Tag, TagPosition,
    array::{
        ArraySize,
        sizes::{U12, U16, U32},
    },
    inout::InOutBuf,
};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, UnboundKey};

/// What tells the two key lengths apart.
pub(super) trait Length {
    /// `Nk`.
    type KeySize: ArraySize;
    /// The AEAD's number in the registry of HPKE.
    const ID: u16;
    /// The algorithm of the library.
    fn algorithm() -> &'static Algorithm;
}

/// AES-128-GCM.
pub(super) enum Bits128 {}

impl Length for Bits128 {
    type KeySize = U16;
    const ID: u16 = 0x0001;

    fn algorithm() -> &'static Algorithm {
        &AES_128_GCM
    }
}

/// AES-256-GCM.
pub(super) enum Bits256 {}

impl Length for Bits256 {
    type KeySize = U32;
    const ID: u16 = 0x0002;

    fn algorithm() -> &'static Algorithm {
        &AES_256_GCM
    }
}

/// AES-GCM under one key, which the library wipes. A clone shares it.
///
/// Nonces are the caller's to count: HPKE's context does so for requests, `CounterNonce` for
/// replies, and nothing else holds one of these.
pub(super) struct AesGcm<L> {
    key: Arc<LessSafeKey>,
    length: PhantomData<fn() -> L>,
}

pub(super) type Aes128Gcm = AesGcm<Bits128>;
pub(super) type Aes256Gcm = AesGcm<Bits256>;

impl<L: Length> hpke::aead::Aead for AesGcm<L> {
    type AeadImpl = Self;
    const AEAD_ID: u16 = L::ID;
}

impl<L> Clone for AesGcm<L> {
    fn clone(&self) -> Self {
        Self {
            key: Arc::clone(&self.key),
            length: PhantomData,
        }
    }
}

impl<L: Length> KeySizeUser for AesGcm<L> {
    type KeySize = L::KeySize;
}

impl<L: Length> KeyInit for AesGcm<L> {
    fn new(key: &Key<Self>) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "the type says the length, which is all that can be wrong"
        )]
        let key = UnboundKey::new(L::algorithm(), key).expect("a key of the algorithm's length");
        Self {
            key: Arc::new(LessSafeKey::new(key)),
            length: PhantomData,
        }
    }
}

impl<L: Length> AeadCore for AesGcm<L> {
    type NonceSize = U12;
    type TagSize = U16;
    const TAG_POSITION: TagPosition = TagPosition::Postfix;
}

impl<L: Length> AeadInOut for AesGcm<L> {
    fn encrypt_inout_detached(
        &self,
        nonce: &Nonce<Self>,
        aad: &[u8],
        buffer: InOutBuf<'_, '_, u8>,
    ) -> Result<Tag<Self>, Error> {
        let tag = self
            .key
            .seal_in_place_separate_tag(
                aws_lc_rs::aead::Nonce::assume_unique_for_key((*nonce).into()),
                Aad::from(aad),
                buffer.into_out_with_copied_in(),
            )
            .map_err(|_| Error)?;
        Tag::<Self>::try_from(tag.as_ref()).map_err(|_| Error)
    }

    fn decrypt_inout_detached(
        &self,
        nonce: &Nonce<Self>,
        aad: &[u8],
        buffer: InOutBuf<'_, '_, u8>,
        tag: &Tag<Self>,
    ) -> Result<(), Error> {
        self.key
            .open_in_place_separate_tag(
                aws_lc_rs::aead::Nonce::assume_unique_for_key((*nonce).into()),
                Aad::from(aad),
                tag,
                buffer.into_out_with_copied_in(),
            )
            .map(drop)
            .map_err(|_| Error)
    }
}
