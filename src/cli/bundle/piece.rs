//! Vendors' files, in whatever form they lie there, and what becomes of each in a bundle.

use std::{path::Path, time::SystemTime};

use attestation::bundle::{InspectError, ItemKind, MAX_FILE, inspect};
use attestation::nvidia::GoldenError;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rim::RimError;
use sha2::{Digest as _, Sha256};

/// Why a file is no piece of a bundle.
#[derive(Debug, thiserror::Error)]
pub(super) enum PieceError {
    #[error("NVIDIA's manifest: {0}")]
    Rim(#[from] RimError),
    #[error(
        "NVIDIA's manifest, but under no id: name the file by it, such as NV_GPU_DRIVER_GH100_550.90.07.xml"
    )]
    NoId,
    #[error("golden measurements: {0}")]
    Golden(#[from] GoldenError),
    #[error(transparent)]
    Other(#[from] InspectError),
    #[error("no file to put in a bundle: its `rim` is not base64")]
    Base64,
    #[error("ended at {0}")]
    Ended(String),
}

/// A file of the bundle to be.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) path: String,
    pub(super) kind: ItemKind,
    pub(super) what: String,
    pub(super) content: Vec<u8>,
    pub(super) valid_until: SystemTime,
    /// Of a manifest of NVIDIA's the certificates behind its signature, leaf first, root last.
    pub(super) signers: Vec<Vec<u8>>,
}

/// An answer of NVIDIA's service.
#[derive(serde::Deserialize)]
struct RimAnswer {
    id: String,
    rim: String,
}

/// What a file gives, verified at `now` as far as it can be by itself. `None` for the authorities
/// of AMD's chains, which are built in.
pub(super) fn pieces(
    path: &Path,
    bytes: Vec<u8>,
    now: SystemTime,
) -> Result<Option<Vec<Piece>>, PieceError> {
    let pieces = match Form::of(bytes) {
        Form::Authorities => return Ok(None),
        Form::RimAnswer(answer) => {
            let xml = BASE64_STANDARD.decode(answer.rim);
            manifest(&answer.id, xml.map_err(|_| PieceError::Base64)?, now)?
        }
        Form::Xml(xml) => {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let id = stem.filter(|stem| stem.starts_with("NV_"));
            manifest(id.ok_or(PieceError::NoId)?, xml, now)?
        }
        Form::Other(bytes) => vec![other(bytes, now)?],
    };
    match pieces.iter().find(|piece| piece.valid_until <= now) {
        Some(piece) => Err(PieceError::Ended(attestation::time::to_rfc3339(
            piece.valid_until,
        ))),
        None => Ok(Some(pieces)),
    }
}

/// What stands in a file, by how it begins.
enum Form {
    RimAnswer(RimAnswer),
    Xml(Vec<u8>),
    /// PEM of several certificates.
    Authorities,
    /// DER, or JSON.
    Other(Vec<u8>),
}

impl Form {
    fn of(bytes: Vec<u8>) -> Self {
        const PEM: &str = "-----BEGIN ";
        let text = std::str::from_utf8(&bytes)
            .map(str::trim)
            .unwrap_or_default();
        if text.starts_with('<') {
            return Self::Xml(bytes);
        }
        if text.starts_with('{') {
            return match serde_json::from_str(text) {
                Ok(answer) => Self::RimAnswer(answer),
                Err(_) => Self::Other(bytes),
            };
        }
        if text.matches(PEM).count() > 1 {
            return Self::Authorities;
        }
        let body: String = text
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .collect();
        let body: String = body.split_ascii_whitespace().collect();
        match BASE64_STANDARD.decode(body) {
            Ok(der) if !der.is_empty() => Self::Other(der),
            _ => Self::Other(bytes),
        }
    }
}

/// The XML of a manifest of NVIDIA's, also out of its service's answer; nothing is verified.
pub(super) fn manifest_xml(bytes: Vec<u8>) -> Option<Vec<u8>> {
    match Form::of(bytes) {
        Form::Xml(xml) => Some(xml),
        Form::RimAnswer(answer) => BASE64_STANDARD.decode(answer.rim).ok(),
        Form::Authorities | Form::Other(_) => None,
    }
}

/// The golden measurements, and the XML that they were taken from.
fn manifest(id: &str, xml: Vec<u8>, now: SystemTime) -> Result<Vec<Piece>, PieceError> {
    let rim = rim::verify(&xml, id, now)?;
    let count = rim.golden.measurements.len();
    let golden = Piece {
        path: format!("nvidia/{id}.json"),
        kind: ItemKind::GpuGoldenMeasurements,
        what: format!("{count} measurements of {id}, signed by NVIDIA"),
        content: rim.golden.to_json()?,
        valid_until: rim.not_after,
        signers: Vec::new(),
    };
    let xml = Piece {
        path: format!("nvidia/{id}.xml"),
        kind: ItemKind::GpuRim,
        what: format!("NVIDIA's manifest {id}"),
        content: xml,
        valid_until: rim.not_after,
        signers: rim.certificates,
    };
    Ok(vec![golden, xml])
}

fn other(content: Vec<u8>, now: SystemTime) -> Result<Piece, PieceError> {
    let found = inspect(&content, now)?;
    let (folder, extension) = match found.kind {
        ItemKind::AmdCrl => ("amd", "crl"),
        ItemKind::AmdCertificate => ("amd", "der"),
        ItemKind::TdxCollateral => ("intel", "json"),
        _ => ("ocsp", "der"),
    };
    let digest = hex::encode(Sha256::digest(&content));
    let name = digest.get(..16).unwrap_or_default();
    Ok(Piece {
        path: format!("{folder}/{name}.{extension}"),
        kind: found.kind,
        what: found.what,
        content,
        valid_until: found.valid_until,
        signers: Vec::new(),
    })
}

/// Longest file that is read: one of a bundle in base64, with line ends.
pub(super) const MAX_INPUT: usize = MAX_FILE * 3 / 2;
