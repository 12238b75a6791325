//! A complete reply on its way to the caller.

use bytes::Bytes;

use super::{ask::Held, record::Record};
use crate::{openai::Usage, seal::SealError};

/// The content of a node's complete reply, with what it holds until its last byte is written.
#[derive(Debug)]
pub(super) struct WholeReply {
    parts: std::vec::IntoIter<Bytes>,
    left: usize,
    record: Record,
    _held: Held,
}

impl WholeReply {
    pub(super) fn new(mut parts: Vec<Bytes>, mut record: Record, held: Held) -> Self {
        parts.retain(|part| !part.is_empty());
        let left = parts.iter().map(Bytes::len).sum();
        if left == 0 {
            record.complete();
        }
        Self {
            parts: parts.into_iter(),
            left,
            record,
            _held: held,
        }
    }

    /// The same as one piece that `seal` makes of content and usage.
    ///
    /// # Errors
    /// [`SealError`]; nothing of it may go out then.
    pub(super) fn sealed(
        self,
        seal: impl FnOnce(&[u8], Option<&Usage>) -> Result<Bytes, SealError>,
    ) -> Result<Self, SealError> {
        let sealed = seal(&self.content(), self.usage())?;
        Ok(Self::new(vec![sealed], self.record, self._held))
    }

    /// What is not yet taken, in one piece.
    pub(super) fn content(&self) -> Bytes {
        match self.parts.as_slice() {
            [only] => only.clone(),
            many => many.concat().into(),
        }
    }

    /// The node's own count of the tokens.
    pub(super) fn usage(&self) -> Option<&Usage> {
        self.record.usage()
    }

    /// All of it went to the caller in another form, with so many bytes.
    pub(super) fn went(&mut self, bytes: usize) {
        self.left = 0;
        self.record.bytes_out = self.record.bytes_out.saturating_add(bytes);
        self.record.complete();
    }

    pub(super) fn next(&mut self) -> Option<Bytes> {
        let part = self.parts.next()?;
        self.left = self.left.saturating_sub(part.len());
        self.record.bytes_out = self.record.bytes_out.saturating_add(part.len());
        if self.left == 0 {
            self.record.complete();
        }
        Some(part)
    }

    /// Bytes that are not yet taken.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn is_ended(&self) -> bool {
        self.left == 0
    }
}
