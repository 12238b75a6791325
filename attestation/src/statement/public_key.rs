//! The public keys of a statement, and what makes one that nothing may be sealed to.

use std::sync::Arc;

use super::{StatementError, Suite, base64};

/// Length of an X-Wing public key: ML-KEM-768's, then X25519's.
pub const X_WING_KEY_LEN: usize = ML_KEM_KEY_LEN + X25519_KEY_LEN;
/// Length of an ML-KEM-768 encapsulation key (FIPS 203 section 8).
const ML_KEM_KEY_LEN: usize = 384 * 3 + 32;
const X25519_KEY_LEN: usize = 32;
/// The modulus of ML-KEM (FIPS 203 section 2.4).
const Q: u16 = 3329;
/// The bytes at the end of an ML-KEM key that are no coefficients: its seed.
const SEED_LEN: usize = 32;

/// A raw public key. A clone shares the longer kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PublicKey {
    /// A point of X25519.
    X25519([u8; X25519_KEY_LEN]),
    /// A key of X-Wing.
    XWing(Arc<[u8; X_WING_KEY_LEN]>),
}

impl PublicKey {
    /// Reads a key of `suite`.
    pub(super) fn read(key_id: u8, suite: Suite, text: &str) -> Result<Self, StatementError> {
        let key = match suite {
            Suite::X25519 | Suite::EhbpX25519 | Suite::SeedX25519 => {
                Self::X25519(base64("public_key", text)?)
            }
            Suite::XWing => Self::XWing(Arc::new(base64("public_key", text)?)),
        };
        let (ml_kem, x25519) = key.parts();
        if !is_reduced(ml_kem) {
            return Err(StatementError::MlKemKey(key_id));
        }
        if x25519.is_none_or(is_low_order) {
            return Err(StatementError::LowOrderKey(key_id));
        }
        Ok(key)
    }

    /// The key as it goes over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::X25519(key) => key,
            Self::XWing(key) => key.as_slice(),
        }
    }

    /// The key, if it is one of X25519 alone.
    pub fn x25519(&self) -> Option<&[u8; X25519_KEY_LEN]> {
        match self {
            Self::X25519(key) => Some(key),
            Self::XWing(_) => None,
        }
    }

    /// What is ML-KEM's in it, and the point of X25519.
    fn parts(&self) -> (&[u8], Option<&[u8; X25519_KEY_LEN]>) {
        match self.as_bytes().split_last_chunk() {
            Some((ml_kem, x25519)) => (ml_kem, Some(x25519)),
            None => (&[], None),
        }
    }
}

/// The modulus check of an encapsulation key: each of its 12-bit coefficients is below `q` (FIPS 203
/// section 7.2). A key without coefficients passes.
fn is_reduced(key: &[u8]) -> bool {
    let coefficients = key.len().saturating_sub(SEED_LEN);
    let (triples, _) = key.split_at(coefficients).0.as_chunks::<3>();
    triples.iter().all(|&[low, middle, high]| {
        let first = u16::from(low) | u16::from(middle & 0x0f) << 8;
        let second = u16::from(middle >> 4) | u16::from(high) << 4;
        first < Q && second < Q
    })
}

/// Whether multiplying the point by any X25519 scalar gives zero (RFC 7748 section 6.1).
fn is_low_order(key: &[u8; 32]) -> bool {
    let mut point = *key;
    // The top bit is no part of the coordinate (RFC 7748 section 5).
    point[31] &= 0x7f;
    LOW_ORDER_POINTS.contains(&point)
}

/// The u-coordinates below 2^255 of the points whose order divides 8, on the curve and its twist:
/// 0, 1, the two of order 8, p - 1, and p and p + 1, which reduce to 0 and 1.
const LOW_ORDER_POINTS: [[u8; 32]; 7] = [
    [0; 32],
    with_ends(1, 0, 0),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    with_ends(0xec, 0xff, 0x7f),
    with_ends(0xed, 0xff, 0x7f),
    with_ends(0xee, 0xff, 0x7f),
];

const fn with_ends(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut point = [middle; 32];
    point[0] = first;
    point[31] = last;
    point
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
    use aws_lc_rs::rand::SystemRandom;

    use super::*;

    /// An ML-KEM key whose coefficients are all `value`.
    fn ml_kem(value: u16) -> Vec<u8> {
        let [low, high] = value.to_le_bytes();
        let triple = [low, high | low << 4, low >> 4 | high << 4];
        let mut key = triple.repeat(384);
        key.extend([0xff; SEED_LEN]);
        key
    }

    #[test]
    fn coefficients_are_below_the_modulus() {
        assert_eq!(ml_kem(0).len(), ML_KEM_KEY_LEN);
        for (value, expected) in [(0, true), (3328, true), (3329, false), (4095, false)] {
            assert_eq!(is_reduced(&ml_kem(value)), expected, "{value}");
        }
        for at in [0, 1, 766, 767] {
            let mut key = ml_kem(3328);
            let byte = at / 2 * 3 + at % 2;
            // The lowest bit of this coefficient: 3329 after it is set.
            key[byte] |= 1 << (at % 2 * 4);
            assert!(!is_reduced(&key), "coefficient {at}");
        }
    }

    #[test]
    fn low_order_points_are_those_that_x25519_refuses() {
        for point in LOW_ORDER_POINTS {
            for top in [0, 0x80] {
                let mut key = point;
                key[31] |= top;
                assert!(is_low_order(&key));
                let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).unwrap();
                let agreed = agree_ephemeral(
                    private,
                    UnparsedPublicKey::new(&X25519, key),
                    (),
                    |_| Ok(()),
                );
                assert!(agreed.is_err(), "{key:02x?}");
            }
        }
    }
}
