//! What computations with secrets leave on the stack, in frames that are gone.

use zeroize::Zeroize as _;

/// Words that cover what making a key of ML-KEM-768 leaves.
pub(super) const KEY_WORDS: usize = 16 * 1024;
/// Words that cover what an exchange leaves.
pub(super) const EXCHANGE_WORDS: usize = 1024;

/// Overwrites the `WORDS * 8` bytes of stack below the frame of its caller, where the frames of all
/// that the caller called were. What was inlined into the caller is not reached.
#[inline(never)]
pub(super) fn wipe<const WORDS: usize>() {
    let mut area = [0_u64; WORDS];
    area.zeroize();
}
