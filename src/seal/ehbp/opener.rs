//! Opening a request's body, frame by frame as it comes.

use std::{fmt, str::FromStr};

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::{AEAD, EhbpError, EhbpKeys, EhbpReplySealer, frames::Frames};
use crate::seal::{
    RequestLimits,
    context::{OpenChunk as _, Place, RequestOpening},
    enc::Enc,
    labels::{EHBP_REQUEST_INFO, EHBP_RESPONSE_EXPORT_LABEL},
    plaintext::Joined,
    request_opener::MAX_OVERHEAD,
    suite::X25519_ENC_LEN,
};

/// What a sender encapsulated: an ephemeral X25519 public key, `enc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncapsulatedKey([u8; X25519_ENC_LEN]);

/// Text that is no encapsulated key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an encapsulated key is 64 lower-case hex digits")]
pub struct InvalidEncapsulatedKey;

impl EncapsulatedKey {
    #[cfg(any(test, fuzzing))]
    pub(in crate::seal) const fn from_bytes(bytes: [u8; X25519_ENC_LEN]) -> Self {
        Self(bytes)
    }

    #[cfg(test)]
    pub(in crate::seal) const fn to_bytes(self) -> [u8; X25519_ENC_LEN] {
        self.0
    }
}

impl FromStr for EncapsulatedKey {
    type Err = InvalidEncapsulatedKey;

    fn from_str(text: &str) -> Result<Self, InvalidEncapsulatedKey> {
        let mut key = [0; X25519_ENC_LEN];
        hex::decode_to_slice(text, &mut key).map_err(|_| InvalidEncapsulatedKey)?;
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        lower.then_some(Self(key)).ok_or(InvalidEncapsulatedKey)
    }
}

/// A body whose every frame was authenticated. That no frame is missing at its end is not shown.
pub struct OpenedBody {
    /// SHA-256 of the encapsulated key: what a replay is known by.
    pub enc_digest: [u8; 32],
    /// The key that opened it.
    pub key_id: u8,
    /// The content; its memory is wiped when the last view of it is dropped.
    pub content: Bytes,
}

impl fmt::Debug for OpenedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedBody")
            .field("key_id", &self.key_id)
            .field("content_len", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// Collects one request's body.
#[must_use]
pub struct EhbpOpener {
    enc: EncapsulatedKey,
    frames: Frames,
    stage: Stage,
    content: Joined,
    max: usize,
    /// Content that may still come.
    content_left: usize,
    /// Bytes of the body that may still come: frames of one byte, or of none, have an end too.
    body_left: usize,
}

enum Stage {
    First,
    Opening { context: RequestOpening, key_id: u8 },
    Failed,
}

impl EhbpOpener {
    /// An opener for the body of the request that `enc` came with.
    pub fn new(enc: EncapsulatedKey, limits: RequestLimits) -> Self {
        let max = limits.content_bytes;
        Self {
            enc,
            frames: Frames::default(),
            stage: Stage::First,
            content: Joined::default(),
            max,
            content_left: max,
            body_left: max.saturating_add(MAX_OVERHEAD).saturating_mul(2),
        }
    }

    /// Takes in bytes of the HTTP body and opens every frame that is whole.
    ///
    /// # Errors
    /// [`EhbpError`] for the first thing that is wrong, and [`EhbpError::Failed`] ever after.
    pub fn push(&mut self, keys: &EhbpKeys, bytes: Bytes) -> Result<(), EhbpError> {
        let pushed = self.push_inner(keys, bytes);
        if pushed.is_err() {
            self.stage = Stage::Failed;
        }
        pushed
    }

    /// Ends the request at the end of the HTTP body.
    ///
    /// # Errors
    /// [`EhbpError`] if that is inside a frame, or no frame came.
    pub fn finish(self) -> Result<(OpenedBody, EhbpReplySealer), EhbpError> {
        let (context, key_id) = match self.stage {
            Stage::Opening { context, key_id } => (context, key_id),
            Stage::First if self.frames.is_between() => return Err(EhbpError::Empty),
            Stage::First => return Err(EhbpError::Truncated),
            Stage::Failed => return Err(EhbpError::Failed),
        };
        if !self.frames.is_between() {
            return Err(EhbpError::Truncated);
        }
        let EncapsulatedKey(enc) = self.enc;
        let secret = context
            .reply_secret(Enc::X25519(enc), EHBP_RESPONSE_EXPORT_LABEL)
            .ok_or(EhbpError::Exhausted)?;
        let body = OpenedBody {
            enc_digest: Sha256::digest(enc).into(),
            key_id,
            content: self.content.into_bytes(),
        };
        Ok((body, EhbpReplySealer::new(secret)))
    }

    fn push_inner(&mut self, keys: &EhbpKeys, bytes: Bytes) -> Result<(), EhbpError> {
        if matches!(self.stage, Stage::Failed) {
            return Err(EhbpError::Failed);
        }
        let too_large = EhbpError::TooLarge { max: self.max };
        self.body_left = self.body_left.checked_sub(bytes.len()).ok_or(too_large)?;
        self.frames.push(bytes);
        while let Some(sealed) = self.frames.next_frame(self.content_left, self.max)? {
            let plaintext = self.open(keys, sealed)?;
            self.content_left = self
                .content_left
                .checked_sub(plaintext.len())
                .ok_or(too_large)?;
            let expected = plaintext.len();
            self.content.push(plaintext, expected);
        }
        Ok(())
    }

    fn open(&mut self, keys: &EhbpKeys, sealed: BytesMut) -> Result<Bytes, EhbpError> {
        if let Stage::Opening { context, .. } = &mut self.stage {
            return context
                .open(sealed, Place::Middle)
                .map_err(|_| EhbpError::Decrypt);
        }
        let (context, key_id, plaintext) = open_first(keys, self.enc, &sealed)?;
        self.stage = Stage::Opening { context, key_id };
        Ok(plaintext)
    }
}

/// Opens the first frame with the first key that can: a request does not name its key.
fn open_first(
    keys: &EhbpKeys,
    EncapsulatedKey(enc): EncapsulatedKey,
    sealed: &BytesMut,
) -> Result<(RequestOpening, u8, Bytes), EhbpError> {
    for (key_id, secret) in keys.iter() {
        let context = RequestOpening::x25519(AEAD, secret.private_key(), &enc, EHBP_REQUEST_INFO);
        let mut context = context.map_err(|_| EhbpError::UnusableKey)?;
        // A cipher that fails leaves nothing of what it was given.
        if let Ok(plaintext) = context.open(sealed.clone(), Place::Middle) {
            return Ok((context, key_id, plaintext));
        }
    }
    Err(EhbpError::NoKey)
}

impl fmt::Debug for EhbpOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EhbpOpener(..)")
    }
}
