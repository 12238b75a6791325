//! Who asks a node, where others ask through the same gateway.

use std::{fmt, str::FromStr};

/// A gateway's pseudonym of an API key (docs/wire.md, "Request").
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller([u8; 16]);

/// A text that is no pseudonym.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a caller is 32 lower-case hex digits")]
pub(crate) struct InvalidCaller;

impl Caller {
    /// Its bytes.
    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for Caller {
    type Err = InvalidCaller;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut caller = [0; 16];
        match hex::decode_to_slice(text, &mut caller) {
            Ok(()) if lower => Ok(Self(caller)),
            _ => Err(InvalidCaller),
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_32_lower_case_hex_digits() {
        let good = "0123456789abcdef0123456789abcdef";
        assert!(good.parse::<Caller>().is_ok());
        for text in [
            "",
            "0123456789abcdef",
            "0123456789ABCDEF0123456789abcdef",
            "g123456789abcdef0123456789abcdef",
            "0123456789abcdef0123456789abcdef0",
        ] {
            assert_eq!(text.parse::<Caller>(), Err(InvalidCaller), "{text}");
        }
    }
}
