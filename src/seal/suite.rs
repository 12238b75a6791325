//! The algorithms of a message, and the header that names them.

use serde::{Deserialize, Serialize};

/// Key id, KEM, KDF and AEAD before every encapsulated key.
pub(super) const HEADER_LEN: usize = 7;
/// Length of an encapsulated X25519 key, `Nenc`.
pub(super) const X25519_ENC_LEN: usize = 32;
/// Length of an encapsulated X-Wing key: a ciphertext of ML-KEM-768, then an X25519 key.
pub(super) const X_WING_ENC_LEN: usize = 1088 + 32;
/// Length of the longest AEAD key, `Nk` of AES-256-GCM.
pub(super) const MAX_KEY_LEN: usize = 32;
/// Length of an AES-GCM tag, `Nt`.
pub(super) const TAG_LEN: usize = 16;

/// HKDF-SHA256 (RFC 9180 section 7.2).
pub(super) const KDF_HKDF_SHA256: u16 = 0x0001;

/// How the two sides of an exchange come to a secret that they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum Kem {
    /// DHKEM(X25519, HKDF-SHA256) (RFC 9180 section 7.1).
    #[serde(rename = "x25519")]
    X25519,
    /// X-Wing: X25519 together with ML-KEM-768, so that both have to be broken
    /// (draft-connolly-cfrg-xwing-kem; the number is draft-ietf-hpke-pq's).
    #[serde(rename = "x-wing")]
    XWing,
}

impl Kem {
    pub(super) const fn id(self) -> u16 {
        match self {
            Self::X25519 => 0x0020,
            Self::XWing => 0x647a,
        }
    }

    /// Its name in configurations and statements.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X25519 => "x25519",
            Self::XWing => "x-wing",
        }
    }

    /// Bytes of an encapsulated key, `Nenc`.
    pub(super) const fn enc_len(self) -> usize {
        match self {
            Self::X25519 => X25519_ENC_LEN,
            Self::XWing => X_WING_ENC_LEN,
        }
    }

    /// In the order in which a key configuration lists them.
    pub(super) const fn aeads(self) -> &'static [Aead] {
        match self {
            Self::X25519 => &[Aead::Aes256Gcm, Aead::Aes128Gcm],
            Self::XWing => &[Aead::Aes256Gcm],
        }
    }
}

/// The AEADs that a node accepts (RFC 9180 section 7.3). A sealer always takes AES-256-GCM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aead {
    Aes128Gcm,
    Aes256Gcm,
}

impl Aead {
    pub(super) const fn id(self) -> u16 {
        match self {
            Self::Aes128Gcm => 0x0001,
            Self::Aes256Gcm => 0x0002,
        }
    }

    /// `Nk`, which is also `max(Nn, Nk)`: the length of a response's secret and of its nonce.
    pub(super) const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm => 32,
        }
    }
}

/// What a message is sealed with, beside HKDF-SHA256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suite {
    X25519(Aead),
    /// With AES-256-GCM.
    XWing,
}

impl Suite {
    const ALL: [Self; 3] = [
        Self::X25519(Aead::Aes256Gcm),
        Self::X25519(Aead::Aes128Gcm),
        Self::XWing,
    ];

    pub(super) const fn kem(self) -> Kem {
        match self {
            Self::X25519(_) => Kem::X25519,
            Self::XWing => Kem::XWing,
        }
    }

    pub(super) const fn aead(self) -> Aead {
        match self {
            Self::X25519(aead) => aead,
            Self::XWing => Aead::Aes256Gcm,
        }
    }

    /// KEM, KDF and AEAD.
    const fn ids(self) -> [u16; 3] {
        [self.kem().id(), KDF_HKDF_SHA256, self.aead().id()]
    }
}

/// The key id and the KEM that an encapsulated request names; `None` if no node opens it.
///
/// A node opens nothing with a key of another KEM than its request names.
#[must_use]
pub fn named_key(request: &[u8]) -> Option<(u8, Kem)> {
    let (key_id, suite) = Header::decode(request.first_chunk()?);
    suite.map(|suite| (key_id, suite.kem()))
}

/// The first bytes of an encapsulated request.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) key_id: u8,
    pub(super) suite: Suite,
}

impl Header {
    pub(super) const fn encode(self) -> [u8; HEADER_LEN] {
        let [kem, kdf, aead] = self.suite.ids();
        let [kem, kem_low] = kem.to_be_bytes();
        let [kdf, kdf_low] = kdf.to_be_bytes();
        let [aead, aead_low] = aead.to_be_bytes();
        [self.key_id, kem, kem_low, kdf, kdf_low, aead, aead_low]
    }

    /// Reads the key id first, so that an unknown key is told before an unknown suite.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> (u8, Option<Suite>) {
        let [key_id, kem, kem_low, kdf, kdf_low, aead, aead_low] = *bytes;
        let pairs = [[kem, kem_low], [kdf, kdf_low], [aead, aead_low]];
        let ids = pairs.map(u16::from_be_bytes);
        let mut suites = Suite::ALL.into_iter();
        (key_id, suites.find(|suite| suite.ids() == ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_suites_are_known_and_no_other() {
        let known = [
            ([0x0020, 1, 2], Suite::X25519(Aead::Aes256Gcm)),
            ([0x0020, 1, 1], Suite::X25519(Aead::Aes128Gcm)),
            ([0x647a, 1, 2], Suite::XWing),
        ];
        let interesting = [0, 1, 2, 3, 0x0010, 0x0020, 0x0021, 0x0041, 0x647a, 0x7a64];
        for kem in interesting {
            for kdf in interesting {
                for aead in interesting {
                    let mut bytes = [9; HEADER_LEN];
                    for (to, id) in bytes[1..].chunks_mut(2).zip([kem, kdf, aead]) {
                        to.copy_from_slice(&u16::to_be_bytes(id));
                    }
                    let found = known.iter().find(|(ids, _)| *ids == [kem, kdf, aead]);
                    let suite = found.map(|(_, suite)| *suite);
                    assert_eq!(Header::decode(&bytes), (9, suite), "{bytes:02x?}");
                    if let Some(suite) = suite {
                        assert_eq!(Header { key_id: 9, suite }.encode(), bytes);
                    }
                }
            }
        }
    }
}
