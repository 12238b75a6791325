//! The encapsulated key before a request's chunks, whatever its KEM.

use super::suite::{Kem, X_WING_ENC_LEN, X25519_ENC_LEN};

/// An encapsulated key, `enc`. It is no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Enc {
    X25519([u8; X25519_ENC_LEN]),
    XWing(Box<[u8; X_WING_ENC_LEN]>),
}

impl Enc {
    /// `None` if it is not as long as the KEM's are.
    pub(super) fn read(kem: Kem, bytes: &[u8]) -> Option<Self> {
        Some(match kem {
            Kem::X25519 => Self::X25519(bytes.try_into().ok()?),
            Kem::XWing => Self::XWing(Box::new(bytes.try_into().ok()?)),
        })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::X25519(enc) => enc,
            Self::XWing(enc) => enc.as_slice(),
        }
    }
}
