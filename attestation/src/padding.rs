//! How lengths are hidden, by name: what a policy can demand of every exchange.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// How lengths and times are hidden (`docs/wire.md`, "Hiding lengths"); each hides more than the one
/// before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Padding {
    /// Not at all.
    Off,
    /// Whole messages grow to a bucket, chunks of event streams to a multiple of 512 bytes.
    #[default]
    Bucket,
    /// The same for whole messages; an event stream is chunks of 512 bytes at a steady pace.
    Paced,
}

impl Padding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Off, Self::Bucket, Self::Paced];

    /// The name on the wire and in configurations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Bucket => "bucket",
            Self::Paced => "paced",
        }
    }
}

impl fmt::Display for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A padding that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("padding is `off`, `bucket` or `paced`")]
pub struct UnknownPadding;

impl FromStr for Padding {
    type Err = UnknownPadding;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|padding| padding.as_str() == text)
            .ok_or(UnknownPadding)
    }
}

impl<'de> Deserialize<'de> for Padding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl Serialize for Padding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_and_in_the_order_of_what_they_hide() {
        for padding in Padding::ALL {
            assert_eq!(padding.as_str().parse(), Ok(padding));
        }
        for other in ["", "Bucket", "PACED", "bucket ", "none"] {
            assert_eq!(other.parse::<Padding>(), Err(UnknownPadding), "{other:?}");
        }
        assert!(Padding::ALL.is_sorted());
    }
}
