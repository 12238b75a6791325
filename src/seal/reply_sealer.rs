//! Sealing a reply, whole, in one buffer.

use std::{fmt, num::NonZeroUsize};

use bytes::Bytes;
use rand::CryptoRng;

use super::{
    bhttp::{self, MAX_TRAILER_BYTES, Put, count, put_content, put_fields, put_zero},
    chunks::ChunkWriter,
    context::{ReplySealing, ReplySecret},
    error::SealError,
    keys::fresh_rng,
    paced::PacedSealer,
    padding::{Lengths as _, Padding},
    stream::StreamSealer,
    suite::MAX_KEY_LEN,
};

/// Seals the one reply to a request. Handed out by opening that request.
#[must_use]
pub struct ReplySealer {
    secret: ReplySecret,
}

impl ReplySealer {
    pub(in crate::seal) fn new(secret: ReplySecret) -> Self {
        Self { secret }
    }

    /// Seals a reply that is known whole.
    ///
    /// # Errors
    /// [`SealError`] if a field is not well-formed, or the system gives no randomness.
    pub fn seal_whole(
        self,
        status: u16,
        fields: &[(&str, &str)],
        content: &[u8],
        trailers: &[(&str, &str)],
        padding: Padding,
    ) -> Result<Bytes, SealError> {
        let (nonce, mut sealing) = self.begin(&mut fresh_rng()?)?;
        let write = |out: &mut dyn Put| {
            bhttp::put_response_head(out, status, fields)?;
            put_content(out, content)?;
            put_tail(out, trailers)
        };
        let len = padding.whole(count(write)?).ok_or(SealError::Length)?;
        let mut out = ChunkWriter::new(&[nonce.as_bytes()], &mut sealing, len)?;
        write(&mut out)?;
        out.finish()
    }

    /// Seals a reply whose content comes piece by piece.
    ///
    /// # Errors
    /// [`SealError`] if a field is not well-formed, if padding is asked for what is no event stream,
    /// if it is to be paced, or if the system gives no randomness.
    pub fn into_stream(
        self,
        status: u16,
        fields: &[(&str, &str)],
        padding: Padding,
    ) -> Result<StreamSealer, SealError> {
        let (nonce, sealing) = self.begin(&mut fresh_rng()?)?;
        StreamSealer::new(nonce, sealing, status, fields, padding)
    }

    /// Seals a reply that goes out at ticks, of which the number is a power of two or, with more
    /// than one step, between two of them.
    ///
    /// # Errors
    /// [`SealError`] if the system gives no randomness.
    pub fn into_paced(self, steps: NonZeroUsize) -> Result<PacedSealer, SealError> {
        let (nonce, sealing) = self.begin(&mut fresh_rng()?)?;
        Ok(PacedSealer::new(nonce, sealing, steps))
    }

    pub(in crate::seal) fn begin(
        self,
        rng: &mut impl CryptoRng,
    ) -> Result<(ResponseNonce, ReplySealing), SealError> {
        let mut nonce = ResponseNonce {
            bytes: [0; MAX_KEY_LEN],
            len: self.secret.nonce_len(),
        };
        rng.fill_bytes(&mut nonce.bytes);
        let sealing = self.secret.sealing(nonce.as_bytes())?;
        Ok((nonce, sealing))
    }
}

impl fmt::Debug for ReplySealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplySealer(..)")
    }
}

/// The random bytes that a reply begins with. They are no secret.
pub(in crate::seal) struct ResponseNonce {
    bytes: [u8; MAX_KEY_LEN],
    len: usize,
}

impl ResponseNonce {
    pub(in crate::seal) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// The end of the content, the trailers and their end.
pub(in crate::seal) fn put_tail(
    out: &mut dyn Put,
    trailers: &[(&str, &str)],
) -> Result<(), SealError> {
    put_zero(out)?;
    put_fields(out, trailers, MAX_TRAILER_BYTES)?;
    put_zero(out)
}
