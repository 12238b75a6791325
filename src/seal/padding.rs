//! How long a message becomes so that its length tells little (docs/wire.md, "Hiding lengths").

use std::{fmt, str::FromStr};

/// Plaintext of every chunk of a padded event stream is a multiple of this many bytes.
pub(super) const STREAM_UNIT: usize = 512;

/// Below this, whole messages take the next power of two; above it Padmé.
const LARGEST_POWER: usize = 32 * 1024;
/// The smallest padded message.
const SMALLEST_POWER: usize = 1024;

/// How lengths are hidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Not at all.
    Off,
    /// Whole messages grow to a bucket, chunks of event streams to a multiple of 512 bytes.
    #[default]
    Bucket,
}

impl Padding {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Bucket => "bucket",
        }
    }

    /// The length of a whole message of `len` bytes once padded; `None` on overflow.
    pub(super) fn whole(self, len: usize) -> Option<usize> {
        match self {
            Self::Off => Some(len),
            Self::Bucket => bucket(len),
        }
    }

    /// The length of a stream's chunk of `len` bytes once padded; `None` on overflow.
    pub(super) fn chunk(self, len: usize) -> Option<usize> {
        match self {
            Self::Off => Some(len),
            Self::Bucket => len.checked_next_multiple_of(STREAM_UNIT),
        }
    }
}

impl fmt::Display for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A padding that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("padding is `off` or `bucket`")]
pub struct UnknownPadding;

impl FromStr for Padding {
    type Err = UnknownPadding;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [Self::Off, Self::Bucket]
            .into_iter()
            .find(|padding| padding.as_str() == s)
            .ok_or(UnknownPadding)
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
            assert_eq!(Padding::Off.whole(len), Some(len));
        }
        for len in 32_769..200_000 {
            let padded = bucket(len).unwrap();
            assert!(padded >= len && (padded - len) * 1000 <= len * 63, "{len}");
        }
        assert_eq!(Padding::Bucket.whole(usize::MAX), None);
    }

    #[test]
    fn names_are_exact() {
        assert_eq!("bucket".parse(), Ok(Padding::Bucket));
        assert_eq!("off".parse(), Ok(Padding::Off));
        for other in ["", "Bucket", "paced", "bucket "] {
            assert_eq!(other.parse::<Padding>(), Err(UnknownPadding), "{other:?}");
        }
    }
}
