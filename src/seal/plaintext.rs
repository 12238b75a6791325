//! Opened bytes, wiped when the last view of them goes.

use bytes::{Bytes, BytesMut};
use zeroize::Zeroize as _;

/// Owns opened bytes; every [`Bytes`] cut from it is a view, and the last one wipes the memory.
#[derive(Default)]
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
    /// Empty until a second piece came, or is known to come.
    rest: Plaintext,
    /// All that the first piece's sender announced.
    announced: usize,
}

impl Joined {
    pub(super) fn len(&self) -> usize {
        if self.rest.0.is_empty() {
            self.first.len()
        } else {
            self.rest.0.len()
        }
    }

    /// Adds a piece; `expected` more bytes, this piece included, are announced to come.
    ///
    /// What is announced is not believed: memory grows with what came, to twice as much.
    pub(super) fn push(&mut self, piece: Bytes, expected: usize) {
        if self.len() == 0 {
            self.announced = expected;
            if expected <= piece.len() {
                self.first = piece;
                return;
            }
        }
        let now = self.len().saturating_add(piece.len());
        if self.rest.0.capacity() < now {
            self.grow(now);
        }
        self.rest.0.extend_from_slice(&piece);
    }

    /// Moves what came to where `now` bytes have room; where it was is wiped.
    fn grow(&mut self, now: usize) {
        let twice = now.saturating_mul(2);
        let most = Some(self.announced).filter(|announced| *announced >= now);
        let mut grown = BytesMut::with_capacity(most.map_or(twice, |most| most.min(twice)));
        grown.extend_from_slice(&self.first);
        grown.extend_from_slice(&self.rest.0);
        self.first = Bytes::new();
        self.rest = Plaintext(grown);
    }

    pub(super) fn into_bytes(self) -> Bytes {
        if self.rest.0.is_empty() {
            self.first
        } else {
            Bytes::from_owner(self.rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(pieces: &[(usize, usize)]) -> Joined {
        let mut joined = Joined::default();
        for (len, expected) in pieces {
            joined.push(vec![7; *len].into(), *expected);
        }
        joined
    }

    #[test]
    fn memory_grows_with_what_came_and_not_with_what_is_announced() {
        const MIB: usize = 1 << 20;
        // Pieces as they come, with what is announced of each; the bytes, and the most memory.
        type Case = (&'static [(usize, usize)], usize, usize);
        let cases: [Case; 5] = [
            (&[(10, 16 * MIB)], 10, 20),
            (&[(10, 16 * MIB), (30, 16 * MIB - 10)], 40, 80),
            (&[(60, 100), (40, 40)], 100, 100),
            (&[(60, 60), (40, 40), (1, 1)], 101, 200),
            (&[(60, 60)], 60, 0),
        ];
        for (pieces, len, most) in cases {
            let joined = joined(pieces);
            assert_eq!(joined.len(), len, "{pieces:?}");
            let capacity = joined.rest.0.capacity();
            assert!(capacity <= most, "{pieces:?}: {capacity}");
            assert_eq!(joined.into_bytes(), vec![7; len], "{pieces:?}");
        }
    }
}
