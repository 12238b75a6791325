//! Opening a confidential request.

use std::fmt;

use aead::AeadInOut as _;
use blake2::{Blake2b, Digest as _, digest::consts::U32};
use bytes::{Bytes, BytesMut};
use hpke::{Deserializable as _, inout::InOutBuf};
use subtle::ConstantTimeEq as _;

use super::{SeedEnvelope, SeedError, SeedKeys, SeedReplySealer};
use crate::seal::{
    aead::Aes256Gcm, kem::PublicKey, labels, nonce::NONCE_LEN, plaintext, suite::TAG_LEN,
};

/// A request that was authenticated and is what its client hashed. That its content fits
/// `model_name` and `stream`, which travel in clear, is for the node to check.
pub struct OpenedSeedRequest {
    /// What a replay is known by.
    pub claim: [u8; 32],
    /// The key that opened it.
    pub key_id: u8,
    /// The model, as it stands outside.
    pub model_name: String,
    /// Whether a stream is asked for, as it stands outside.
    pub stream: bool,
    /// The content; its memory is wiped when the last view of it is dropped.
    pub content: Bytes,
}

impl fmt::Debug for OpenedSeedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedSeedRequest")
            .field("key_id", &self.key_id)
            .field("content_len", &self.content.len())
            .finish_non_exhaustive()
    }
}

impl SeedEnvelope {
    /// Opens the request with the key that it names.
    ///
    /// # Errors
    /// [`SeedError`] if the node has no such key, or the ciphertext is not authentic, or its
    /// plaintext not what was hashed.
    pub fn open(self, keys: &SeedKeys) -> Result<(OpenedSeedRequest, SeedReplySealer), SeedError> {
        let mut named = keys
            .iter()
            .filter(|(_, secret)| bool::from(secret.public_key().ct_eq(&self.node_key)));
        let (key_id, secret) = named.next().ok_or(SeedError::UnknownKey)?;
        let client_key =
            PublicKey::from_bytes(&self.client_key).map_err(|_| SeedError::UnusableKey)?;
        let exchanged = secret.private_key().exchange(&client_key);
        let exchanged = exchanged.ok_or(SeedError::UnusableKey)?;
        let cipher = labels::seed_cipher(&self.salt, exchanged.as_slice());
        let cipher = cipher.ok_or(SeedError::Decrypt)?;
        let claim = labels::seed_claim(exchanged.as_slice()).ok_or(SeedError::Decrypt)?;
        let content = decrypt(&cipher, self.nonce, self.ciphertext)?;
        let hash: [u8; 32] = Blake2b::<U32>::digest(&content).into();
        if !bool::from(hash.ct_eq(&self.body_hash)) {
            return Err(SeedError::BodyHash);
        }
        let request = OpenedSeedRequest {
            claim,
            key_id,
            model_name: self.model_name,
            stream: self.stream,
            content,
        };
        Ok((request, SeedReplySealer::new(cipher)))
    }
}

fn decrypt(
    cipher: &Aes256Gcm,
    nonce: [u8; NONCE_LEN],
    mut sealed: BytesMut,
) -> Result<Bytes, SeedError> {
    let (content, tag) = sealed
        .split_last_chunk_mut::<TAG_LEN>()
        .ok_or(SeedError::Ciphertext)?;
    let tag = (*tag).into();
    cipher
        .decrypt_inout_detached(&nonce.into(), b"", InOutBuf::from(&mut *content), &tag)
        .map_err(|_| SeedError::Decrypt)?;
    let len = content.len();
    sealed.truncate(len);
    Ok(plaintext::share(sealed))
}
