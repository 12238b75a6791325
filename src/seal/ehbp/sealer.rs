//! Sealing a reply's body, frame by frame.

use std::{fmt, mem};

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::seal::{
    SealError,
    context::{Place, ReplySealing, ReplySecret, SealChunk as _},
    keys::fresh_rng,
    suite::{MAX_KEY_LEN, TAG_LEN},
};

/// Longest plaintext of one frame of ours; readers take far longer ones.
const MAX_FRAME: usize = 64 * 1024;
/// What a frame adds to its plaintext: length and tag.
const FRAME_OVERHEAD: usize = 4 + TAG_LEN;

/// Seals the one reply to a request. Handed out by opening that request.
#[must_use]
pub struct EhbpReplySealer {
    secret: ReplySecret,
}

impl EhbpReplySealer {
    pub(super) const fn new(secret: ReplySecret) -> Self {
        Self { secret }
    }

    /// Draws the reply's nonce; what it derives seals the frames.
    ///
    /// # Errors
    /// [`SealError::Random`] if the system gives no randomness.
    pub fn begin(self) -> Result<EhbpFrames, SealError> {
        let mut nonce = [0; MAX_KEY_LEN];
        rand::Rng::fill_bytes(&mut fresh_rng()?, &mut nonce);
        self.begin_with(nonce)
    }

    pub(super) fn begin_with(self, nonce: [u8; MAX_KEY_LEN]) -> Result<EhbpFrames, SealError> {
        Ok(EhbpFrames {
            sealing: self.secret.sealing(&nonce)?,
            nonce,
            failed: false,
        })
    }
}

impl fmt::Debug for EhbpReplySealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EhbpReplySealer(..)")
    }
}

/// Seals the frames of a reply in order. After an error it refuses everything.
#[must_use]
pub struct EhbpFrames {
    sealing: ReplySealing,
    nonce: [u8; MAX_KEY_LEN],
    failed: bool,
}

impl EhbpFrames {
    /// The value of the header that the reply needs. It is no secret.
    #[must_use]
    pub fn response_nonce(&self) -> String {
        hex::encode(self.nonce)
    }

    /// Seals content into as many frames as it needs; none for no content.
    ///
    /// # Errors
    /// [`SealError::Exhausted`] when the frames cannot be counted any further,
    /// [`SealError::Failed`] after an error.
    pub fn seal(&mut self, content: &[u8]) -> Result<Bytes, SealError> {
        if mem::replace(&mut self.failed, true) {
            return Err(SealError::Failed);
        }
        let frames = content.len().div_ceil(MAX_FRAME);
        let overhead = frames.saturating_mul(FRAME_OVERHEAD);
        let mut out = BytesMut::with_capacity(content.len().saturating_add(overhead));
        for piece in content.chunks(MAX_FRAME) {
            let len = piece.len().checked_add(TAG_LEN);
            let len = len.and_then(|len| u32::try_from(len).ok());
            out.put_u32(len.ok_or(SealError::Length)?);
            let mut frame = out.split_off(out.len());
            frame.extend_from_slice(piece);
            let tag = self.sealing.seal_in_place(&mut frame, Place::Middle)?;
            frame.extend_from_slice(&tag);
            out.unsplit(frame);
        }
        self.failed = false;
        Ok(out.freeze())
    }
}

impl fmt::Debug for EhbpFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EhbpFrames(..)")
    }
}
