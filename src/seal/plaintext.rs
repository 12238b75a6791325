//! Opened bytes, wiped when the last view of them goes.

use bytes::{Bytes, BytesMut};
use zeroize::Zeroize as _;

/// Owns opened bytes; every [`Bytes`] cut from it is a view, and the last one wipes the memory.
struct Plaintext(BytesMut);

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        self.0.as_mut().zeroize();
    }
}

/// Shares `opened` without a copy.
pub(super) fn share(opened: BytesMut) -> Bytes {
    if opened.is_empty() {
        return Bytes::new();
    }
    Bytes::from_owner(Plaintext(opened))
}

/// Pieces of content that belong together, joined only when there is more than one.
#[derive(Default)]
pub(super) struct Joined {
    first: Bytes,
    /// Empty until a second piece came.
    rest: BytesMut,
}

impl Joined {
    pub(super) fn len(&self) -> usize {
        if self.rest.is_empty() {
            self.first.len()
        } else {
            self.rest.len()
        }
    }

    /// Adds a piece; `expected` more bytes, this piece included, are known to come.
    pub(super) fn push(&mut self, piece: Bytes, expected: usize) {
        if self.len() == 0 && expected <= piece.len() {
            self.first = piece;
            return;
        }
        if self.rest.is_empty() {
            self.rest
                .reserve(self.first.len().saturating_add(expected.max(piece.len())));
            self.rest.extend_from_slice(&self.first);
            self.first = Bytes::new();
        }
        self.rest.extend_from_slice(&piece);
    }

    pub(super) fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            self.first
        } else {
            share(self.rest)
        }
    }
}
