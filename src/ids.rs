//! Identifiers that cross module boundaries.

use std::{fmt, str::FromStr};

use rand::RngExt as _;

/// The one id of a request: 32 lower-case hex digits, `x-request-id` outside and
/// `sealgate-request-id` inside the seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// A fresh random id.
    #[must_use]
    pub fn generate() -> Self {
        Self(rand::rng().random())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request id is 32 lower-case hex digits")]
pub struct InvalidRequestId;

impl FromStr for RequestId {
    type Err = InvalidRequestId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let lower = s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut id = [0; 16];
        match hex::decode_to_slice(s, &mut id) {
            Ok(()) if lower => Ok(Self(id)),
            _ => Err(InvalidRequestId),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_other_texts_do_not() {
        let id = RequestId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "00",
            "0123456789ABCDEF0123456789abcdef",
            "g123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(text.parse::<RequestId>(), Err(InvalidRequestId), "{text}");
        }
    }
}
