//! Digests, and the 32-byte values that travel as lower-case hex.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Algorithm, Context, SHA256, SHA512};

/// SHA-256 of the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    hash(&SHA256, parts)
}

/// SHA-512 of the concatenation of `parts`.
pub(crate) fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    hash(&SHA512, parts)
}

fn hash<const N: usize>(algorithm: &'static Algorithm, parts: &[&[u8]]) -> [u8; N] {
    let mut context = Context::new(algorithm);
    for part in parts {
        context.update(part);
    }
    let mut digest = [0; N];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// Decodes exactly `N` bytes of lower-case hex.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], InvalidHex> {
    let error = InvalidHex { bytes: N };
    let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut bytes = [0; N];
    if !lower || hex::decode_to_slice(text, &mut bytes).is_err() {
        return Err(error);
    }
    Ok(bytes)
}

/// Decodes lower-case hex of 48 bytes or 32: a digest of SHA-384 or SHA-256.
pub(crate) fn from_hex_any(text: &str) -> Result<Vec<u8>, InvalidHex> {
    match from_hex::<32>(text) {
        Ok(bytes) => Ok(bytes.to_vec()),
        Err(_) => from_hex::<48>(text).map(|bytes| bytes.to_vec()),
    }
}

/// The text is no lower-case hex of the length asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not {bytes} bytes of lower-case hex")]
pub struct InvalidHex {
    /// The length asked for.
    pub bytes: usize,
}

macro_rules! hex32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, PartialEq)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
        }

        impl FromStr for $name {
            type Err = InvalidHex;

            fn from_str(text: &str) -> Result<Self, InvalidHex> {
                from_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

hex32! {
    /// 32 random bytes that the verifier chose, so that evidence can be no older than the question.
    Nonce
}

hex32! {
    /// SHA-256 of a node's statement, byte for byte as it was sent.
    StatementDigest
}

impl StatementDigest {
    /// The digest of a statement's bytes.
    pub fn of(statement: &[u8]) -> Self {
        Self(sha256(&[statement]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_lower_case_and_of_the_exact_length() {
        let nonce = Nonce::from([0xab; 32]);
        assert_eq!(nonce.to_string().parse(), Ok(nonce));
        let cases = [
            ("upper case", "AB".repeat(32)),
            ("short", "ab".repeat(31)),
            ("long", "ab".repeat(33)),
            ("odd", "a".repeat(63)),
            ("no hex", "gg".repeat(32)),
            ("prefix", format!("0x{}", "ab".repeat(31))),
            ("empty", String::new()),
        ];
        for (name, text) in cases {
            assert_eq!(
                text.parse::<Nonce>(),
                Err(InvalidHex { bytes: 32 }),
                "{name}"
            );
        }
    }
}
