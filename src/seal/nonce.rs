//! The nonce of each chunk of a reply.

use std::fmt;

use zeroize::Zeroizing;

/// Length of an AES-GCM nonce, `Nn`.
pub(super) const NONCE_LEN: usize = 12;

/// A nonce that counts itself and cannot come twice: it is not `Clone`, and ends instead of wrapping.
pub(super) struct CounterNonce {
    base: Zeroizing<[u8; NONCE_LEN]>,
    /// The counter of the next chunk; `None` once the last was used.
    next: Option<u64>,
}

impl CounterNonce {
    pub(super) fn new(base: Zeroizing<[u8; NONCE_LEN]>) -> Self {
        Self {
            base,
            next: Some(0),
        }
    }

    /// `base XOR counter`, the counter as a big-endian integer of `Nn` bytes; `None` when used up.
    pub(super) fn advance(&mut self) -> Option<[u8; NONCE_LEN]> {
        let counter = self.next?;
        self.next = counter.checked_add(1);
        let mut nonce = *self.base;
        for (byte, mask) in nonce
            .iter_mut()
            .rev()
            .zip(counter.to_be_bytes().iter().rev())
        {
            *byte ^= mask;
        }
        Some(nonce)
    }
}

impl fmt::Debug for CounterNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CounterNonce(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_the_last_bytes_and_ends() {
        let mut nonce = CounterNonce::new(Zeroizing::new([0xff; NONCE_LEN]));
        assert_eq!(nonce.advance().unwrap(), [0xff; NONCE_LEN]);
        assert_eq!(nonce.advance().unwrap()[11], 0xfe);
        nonce.next = Some(0x0102);
        assert_eq!(nonce.advance().unwrap()[10..], [0xfe, 0xfd]);
        nonce.next = Some(u64::MAX);
        assert_eq!(nonce.advance().unwrap()[..5], [0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(nonce.advance(), None);
        assert_eq!(nonce.advance(), None, "and stays ended");
    }
}
