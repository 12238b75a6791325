//! The algorithms of a message, and the header that names them.

/// Key id, KEM, KDF and AEAD before every encapsulated key.
pub(super) const HEADER_LEN: usize = 7;
/// Length of an encapsulated X25519 key, `Nenc`.
pub(super) const ENC_LEN: usize = 32;
/// Length of the longest AEAD key, `Nk` of AES-256-GCM.
pub(super) const MAX_KEY_LEN: usize = 32;
/// Length of an AES-GCM tag, `Nt`.
pub(super) const TAG_LEN: usize = 16;

/// DHKEM(X25519, HKDF-SHA256) (RFC 9180 section 7.1).
pub(super) const KEM_X25519: u16 = 0x0020;
/// HKDF-SHA256 (RFC 9180 section 7.2).
pub(super) const KDF_HKDF_SHA256: u16 = 0x0001;

/// The AEADs that a node accepts (RFC 9180 section 7.3). A sealer always takes AES-256-GCM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aead {
    Aes128Gcm,
    Aes256Gcm,
}

impl Aead {
    /// In the order in which a key configuration lists them.
    pub(super) const LISTED: [Self; 2] = [Self::Aes256Gcm, Self::Aes128Gcm];

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

    fn from_id(id: u16) -> Option<Self> {
        Self::LISTED.into_iter().find(|aead| aead.id() == id)
    }
}

/// The first bytes of an encapsulated request.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) key_id: u8,
    pub(super) aead: Aead,
}

impl Header {
    pub(super) const fn encode(self) -> [u8; HEADER_LEN] {
        let [kem, kem_low] = KEM_X25519.to_be_bytes();
        let [kdf, kdf_low] = KDF_HKDF_SHA256.to_be_bytes();
        let [aead, aead_low] = self.aead.id().to_be_bytes();
        [self.key_id, kem, kem_low, kdf, kdf_low, aead, aead_low]
    }

    /// Reads the key id first, so that an unknown key is told before an unknown suite.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> (u8, Option<Self>) {
        let [key_id, kem, kem_low, kdf, kdf_low, aead, aead_low] = *bytes;
        let x25519 = u16::from_be_bytes([kem, kem_low]) == KEM_X25519;
        let sha256 = u16::from_be_bytes([kdf, kdf_low]) == KDF_HKDF_SHA256;
        let aead = Aead::from_id(u16::from_be_bytes([aead, aead_low]));
        (
            key_id,
            aead.filter(|_| x25519 && sha256)
                .map(|aead| Self { key_id, aead }),
        )
    }
}
