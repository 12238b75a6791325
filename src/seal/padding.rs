//! How long a message becomes so that its length tells little (docs/wire.md, "Hiding lengths").

pub use attestation::{Padding, UnknownPadding};

/// Plaintext of every chunk of a padded event stream is a multiple of this many bytes.
pub(super) const STREAM_UNIT: usize = 512;

/// Below this, whole messages take the next power of two; above it Padmé.
const LARGEST_POWER: usize = 32 * 1024;
/// The smallest padded message.
const SMALLEST_POWER: usize = 1024;
/// Most chunks between two numbers of the row that a paced stream's total is one of.
const LARGEST_STEP: usize = 1024;

/// The lengths that a padding gives.
pub(super) trait Lengths {
    /// The length of a whole message of `len` bytes once padded; `None` on overflow.
    fn whole(self, len: usize) -> Option<usize>;
}

impl Lengths for Padding {
    fn whole(self, len: usize) -> Option<usize> {
        match self {
            Self::Off => Some(len),
            Self::Bucket | Self::Paced => bucket(len),
        }
    }
}

/// `E = ⌊log2 L⌋, S = ⌊log2 E⌋ + 1`, and the next multiple of `2^(E-S)` (Padmé).
fn bucket(len: usize) -> Option<usize> {
    if len <= LARGEST_POWER {
        return len.max(SMALLEST_POWER).checked_next_power_of_two();
    }
    let e = len.ilog2();
    let s = e.ilog2().checked_add(1)?;
    let unit = 1_usize.checked_shl(e.checked_sub(s)?)?;
    len.checked_next_multiple_of(unit)
}

/// The least number of the row that is at least `chunks`: powers of two with `steps` steps from each
/// to the next, none of them of more than 1,024 chunks.
pub(super) fn total(chunks: usize, steps: usize) -> usize {
    let chunks = chunks.max(1);
    let power = 1_usize.checked_shl(chunks.ilog2()).unwrap_or(chunks);
    let step = power.div_ceil(steps.max(1)).min(LARGEST_STEP);
    let over = chunks.saturating_sub(power).next_multiple_of(step);
    power.saturating_add(over).min(power.saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_messages_take_buckets() {
        let cases = [
            (1, 1024),
            (1024, 1024),
            (1025, 2048),
            (16_384, 16_384),
            (16_385, 32_768),
            (32_768, 32_768),
            (32_769, 34_816), // E = 15, S = 4: multiples of 2048
            (65_535, 65_536),
            (65_537, 67_584),       // E = 16, S = 5: multiples of 2048
            (1_048_577, 1_081_344), // E = 20, S = 5: multiples of 32,768
        ];
        for (len, padded) in cases {
            assert_eq!(Padding::Bucket.whole(len), Some(padded), "{len}");
            assert_eq!(Padding::Paced.whole(len), Some(padded), "{len}");
            assert_eq!(Padding::Off.whole(len), Some(len));
        }
        for len in 32_769..200_000 {
            let padded = bucket(len).unwrap();
            assert!(padded >= len && (padded - len) * 1000 <= len * 63, "{len}");
        }
        assert_eq!(Padding::Bucket.whole(usize::MAX), None);
    }

    #[test]
    fn a_paced_stream_has_one_of_few_numbers_of_chunks() {
        let rows: [(usize, &[usize]); 3] = [
            (1, &[1, 2, 4, 8, 16, 32, 64]),
            (2, &[1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]),
            (4, &[1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]),
        ];
        for (steps, row) in rows {
            for chunks in 1..=row[row.len() - 1] {
                let expected = row.iter().find(|total| **total >= chunks).unwrap();
                assert_eq!(total(chunks, steps), *expected, "{chunks} of {steps}");
            }
        }
        assert_eq!(total(0, 1), 1);
        assert_eq!(total(1025, 1), 2048);
        assert_eq!(total(2049, 1), 3072, "a step is never over 1,024 chunks");
        assert_eq!(total(100_000, 1), 65_536 + 34 * 1024);
        assert_eq!(total(usize::MAX, 1), usize::MAX);
    }
}
