//! Encrypted HTTP bodies (EHBP), for clients that seal so already; the node's side alone.
//!
//! A request's body is collected in an [`EhbpOpener`], whose end hands out the one
//! [`EhbpReplySealer`]. The format has no authenticated end: a body that was cut between two frames
//! opens, and only what it says can tell that it is whole (docs/wire.md, "Two further dialects").

mod error;
mod frames;
mod opener;
mod sealer;
#[cfg(test)]
mod tests;

pub use error::EhbpError;
pub use opener::{EhbpOpener, EncapsulatedKey, InvalidEncapsulatedKey, OpenedBody};
pub use sealer::{EhbpFrames, EhbpReplySealer};

use super::{
    dialect::{DialectKeys, DialectSecret},
    suite::{Aead, KDF_HKDF_SHA256, Kem},
};

/// Tells this dialect's keys from others.
#[derive(Debug)]
pub enum Ehbp {}

/// A node's secret for this dialect.
pub type EhbpSecret = DialectSecret<Ehbp>;
/// A node's keys for this dialect.
pub type EhbpKeys = DialectKeys<Ehbp>;

/// The header of a request, with the encapsulated key in hex.
pub const ENCAPSULATED_KEY: &str = "ehbp-encapsulated-key";
/// The header of a reply, with its nonce in hex.
pub const RESPONSE_NONCE: &str = "ehbp-response-nonce";
/// The problem type that tells a client to fetch the keys again.
pub const KEY_CONFIG_PROBLEM: &str = "urn:ietf:params:ehbp:error:key-config";

/// The only key id that a key configuration has here; clients never send it.
const KEY_ID: u8 = 0;
/// The AEAD of the only suite, with DHKEM(X25519, HKDF-SHA256) and HKDF-SHA256.
const AEAD: Aead = Aead::Aes256Gcm;

/// Encodes a public key as the one key configuration that clients of this dialect read (RFC 9458
/// section 3, without a length before it).
#[must_use]
pub fn encode_ehbp_key_config(public_key: &[u8; 32]) -> Vec<u8> {
    /// Bytes of one KDF and one AEAD.
    const SUITES_LEN: u16 = 4;
    let mut config = vec![KEY_ID];
    config.extend_from_slice(&Kem::X25519.id().to_be_bytes());
    config.extend_from_slice(public_key);
    config.extend_from_slice(&SUITES_LEN.to_be_bytes());
    config.extend_from_slice(&KDF_HKDF_SHA256.to_be_bytes());
    config.extend_from_slice(&AEAD.id().to_be_bytes());
    config
}
