//! Where one frame of a body ends and the next begins.
//!
//! Lengths are not authenticated: nothing is concluded from them but where to cut, and no memory is
//! taken for a frame before its bytes came.

use bytes::{Buf as _, Bytes, BytesMut};

use super::EhbpError;
use crate::seal::suite::TAG_LEN;

/// Bytes of a frame's length.
const PREFIX_LEN: usize = 4;

/// Cuts a body into sealed frames, however its bytes arrive.
#[derive(Default)]
pub(super) struct Frames {
    unread: BytesMut,
    /// Length of the frame that has begun.
    begun: Option<usize>,
}

impl Frames {
    /// Takes bytes in, without a copy where they are held by nobody else.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if !self.unread.is_empty() {
            self.unread.extend_from_slice(&bytes);
            return;
        }
        match bytes.try_into_mut() {
            Ok(bytes) => self.unread = bytes,
            Err(bytes) => self.unread.extend_from_slice(&bytes),
        }
    }

    /// The next whole frame, of which at most `longest` bytes are plaintext. Frames of no bytes are
    /// passed over.
    pub(super) fn next_frame(
        &mut self,
        longest: usize,
        max: usize,
    ) -> Result<Option<BytesMut>, EhbpError> {
        while self.begun.is_none() {
            let Some(prefix) = self.unread.first_chunk::<PREFIX_LEN>() else {
                return Ok(None);
            };
            let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
            if len.saturating_sub(TAG_LEN) > longest {
                return Err(EhbpError::TooLarge { max });
            }
            if (1..TAG_LEN).contains(&len) {
                return Err(EhbpError::FrameTooShort { len, min: TAG_LEN });
            }
            self.unread.advance(PREFIX_LEN);
            self.begun = Some(len).filter(|len| *len > 0);
        }
        let whole = self.begun.filter(|len| self.unread.len() >= *len);
        Ok(whole.map(|len| {
            self.begun = None;
            self.unread.split_to(len)
        }))
    }

    /// Whether the body may end here: between two frames.
    pub(super) fn is_between(&self) -> bool {
        self.begun.is_none() && self.unread.is_empty()
    }
}
