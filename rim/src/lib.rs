//! Verifies NVIDIA's reference integrity manifests (RIM): XML, id and time in, golden measurements
//! out.
//!
//! A manifest is a SWID tag with an enveloped XML signature. It is read when a bundle is made, so
//! that no XML stands near a request. What is read is a small part of XML: no document type, no
//! reference, no comment, no processing instruction, one signature over the whole document with the
//! one set of algorithms that NVIDIA uses, and certificates up to one root, which is compiled in.
//! Every value comes from the very tree whose canonical form was digested.
//!
//! The crate does no IO, reads no clock and logs nothing.

#![warn(clippy::arithmetic_side_effects, clippy::as_conversions)]

mod canonical;
mod document;
mod measurements;
mod signature;

use std::time::SystemTime;

use attestation::chain::{ChainError, ChainKey};
use attestation::nvidia::GoldenMeasurements;

pub use document::DocumentError;
pub use measurements::TagError;
pub use signature::SignatureError;

/// Longest manifest, in bytes; NVIDIA's have about 21,000.
pub const MAX_RIM: usize = 128 * 1024;

/// NVIDIA's root for manifests, `NVIDIA CoRIM signing Root CA`, 2023-03-16 to 2053-03-08.
pub const ROOT: &[u8] = include_bytes!("nvidia-corim-root.der");

/// SHA-256 of [`ROOT`], which alone chains are held against.
pub const ROOT_SHA256: [u8; 32] = [
    0x12, 0x97, 0x7b, 0x51, 0x15, 0xac, 0xb0, 0x38, 0x11, 0x79, 0x27, 0x9f, 0xff, 0xeb, 0x5a, 0x8c,
    0x4d, 0x26, 0x49, 0x71, 0xeb, 0xb3, 0x22, 0x98, 0x02, 0x3a, 0x46, 0x5f, 0xa4, 0x1d, 0xf5, 0xd1,
];

/// A manifest that NVIDIA signed.
#[must_use]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rim {
    /// What must be measured.
    pub golden: GoldenMeasurements,
    /// The product that it is for, as it says: `GH100`.
    pub product: String,
    /// The certificates behind its signature, leaf first, root last, DER. Whether NVIDIA revoked one
    /// of them is not known here.
    pub certificates: Vec<Vec<u8>>,
    /// When the first of them ends.
    pub not_after: SystemTime,
}

/// Why a manifest is not believed.
#[derive(Debug, thiserror::Error)]
pub enum RimError {
    /// Longer than [`MAX_RIM`].
    #[error("manifest of {len} bytes exceeds the limit of {MAX_RIM}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not XML, or XML of a kind that is not read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// No signature of the kind that manifests have, or it does not verify.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The certificates do not lead from the signing key to NVIDIA's root, or not now.
    #[error("certificates: {0}")]
    Chain(#[from] ChainError),
    /// Signed, and yet not what it should be.
    #[error(transparent)]
    Tag(#[from] TagError),
}

/// Verifies the manifest `id` at `now`.
///
/// The id, such as `NV_GPU_DRIVER_GH100_550.90.07`, is not in the manifest as a whole: what of it
/// is there (version, product of a driver) must agree. The board in a VBIOS manifest's id is the
/// word of whoever named it.
///
/// # Errors
/// [`RimError`] says which rule is broken.
pub fn verify(xml: &[u8], id: &str, now: SystemTime) -> Result<Rim, RimError> {
    if xml.len() > MAX_RIM {
        return Err(RimError::TooLong { len: xml.len() });
    }
    let text = document::text(xml)?;
    let document = document::parse(text)?;
    let signed = signature::Signed::find(&document)?;
    signed.check_digest(&document)?;
    let key = ChainKey::verify(signed.chain(), &ROOT_SHA256, now)?;
    signed.check_signature(&key)?;
    let (golden, product) = measurements::read(&document, id)?;
    Ok(Rim {
        golden,
        product,
        certificates: signed.chain().to_vec(),
        not_after: key.not_after(),
    })
}

/// The certificates in a manifest, leaf first, for questions about them; nothing is verified.
///
/// # Errors
/// [`RimError`] if it is no signed manifest.
pub fn certificates(xml: &[u8]) -> Result<Vec<Vec<u8>>, RimError> {
    if xml.len() > MAX_RIM {
        return Err(RimError::TooLong { len: xml.len() });
    }
    let document = document::parse(document::text(xml)?)?;
    let signed = signature::Signed::find(&document)?;
    Ok(signed.chain().to_vec())
}
