//! What vendors sign beside the evidence: revocation lists, TCB levels, certificate statuses.
//!
//! Each piece carries its own signature and dates, which are checked whenever it is used, so it does
//! not matter who delivered it: the node with its evidence, or the verifier's own bundle. None of it
//! is ever a source of roots.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_cert::der::{Decode as _, Header, SliceReader, Tag};

use crate::answer::AnswerError;
use crate::json::{Json, Members};

/// Most pieces of one kind in one evidence item.
pub const MAX_PIECES: usize = 16;

/// Signed pieces, by kind. Nothing about them is verified until they are used.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Collateral {
    /// AMD's certificate revocation lists, DER.
    pub amd_crls: Vec<Vec<u8>>,
    /// Certificates of AMD chips' keys, DER, for reports that come without.
    pub amd_certificates: Vec<Vec<u8>>,
    /// Intel's collateral for a platform, each the JSON object of `docs/wire.md`, "Collateral".
    pub tdx: Vec<Vec<u8>>,
    /// OCSP responses (RFC 6960), DER.
    pub ocsp: Vec<Vec<u8>>,
}

/// The members of `collateral` in an answer.
const AMD_CRLS: &str = "amd_crls";
const AMD_CERTIFICATES: &str = "amd_certificates";
const TDX: &str = "tdx";
const OCSP: &str = "ocsp";

impl Collateral {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.kinds().iter().all(|(_, pieces)| pieces.is_empty())
    }

    /// Takes up a piece by what it looks like; gives it back if it looks like none.
    ///
    /// # Errors
    /// The bytes, where they are no kind of collateral.
    pub fn take(&mut self, bytes: Vec<u8>) -> Result<CollateralKind, Vec<u8>> {
        let Some(kind) = CollateralKind::of(&bytes) else {
            return Err(bytes);
        };
        match kind {
            CollateralKind::AmdCrl => self.amd_crls.push(bytes),
            CollateralKind::AmdCertificate => self.amd_certificates.push(bytes),
            CollateralKind::Tdx => self.tdx.push(bytes),
            CollateralKind::Ocsp => self.ocsp.push(bytes),
        }
        Ok(kind)
    }

    /// Reads the `collateral` of an answer; unknown members are left out.
    pub(crate) fn from_members(mut members: Members) -> Result<Self, AnswerError> {
        let mut pieces = |name: &'static str| match members.optional(name) {
            Some(json) => pieces(name, json),
            None => Ok(Vec::new()),
        };
        Ok(Self {
            amd_crls: pieces(AMD_CRLS)?,
            amd_certificates: pieces(AMD_CERTIFICATES)?,
            tdx: pieces(TDX)?,
            ocsp: pieces(OCSP)?,
        })
    }

    /// Each kind that is there, with its pieces in base64.
    pub(crate) fn to_members(&self) -> Vec<(&'static str, Vec<String>)> {
        let encode = |pieces: &Vec<Vec<u8>>| pieces.iter().map(|it| STANDARD.encode(it)).collect();
        let present = self.kinds().into_iter().filter(|(_, it)| !it.is_empty());
        present.map(|(name, it)| (name, encode(it))).collect()
    }

    fn kinds(&self) -> [(&'static str, &Vec<Vec<u8>>); 4] {
        [
            (AMD_CRLS, &self.amd_crls),
            (AMD_CERTIFICATES, &self.amd_certificates),
            (TDX, &self.tdx),
            (OCSP, &self.ocsp),
        ]
    }
}

/// A kind of collateral.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CollateralKind {
    /// A certificate revocation list of AMD, DER.
    AmdCrl,
    /// A certificate of an AMD chip's key, DER.
    AmdCertificate,
    /// Intel's collateral for a platform, JSON.
    Tdx,
    /// An OCSP response, DER.
    Ocsp,
}

impl CollateralKind {
    /// What the bytes of a file look like; nothing about them is verified.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let is_json = bytes.trim_ascii_start().first() == Some(&b'{');
        if is_json {
            return Some(Self::Tdx);
        }
        let mut reader = SliceReader::new(bytes).ok()?;
        let mut tag = || Header::decode(&mut reader).map(|header| header.tag()).ok();
        if tag()? != Tag::Sequence {
            return None;
        }
        match tag()? {
            // OCSPResponse begins with its status (RFC 6960 section 4.2.1).
            Tag::Enumerated => Some(Self::Ocsp),
            Tag::Sequence => match tag()? {
                // TBSCertificate begins with its version in [0] (RFC 5280 section 4.1).
                Tag::ContextSpecific { .. } => Some(Self::AmdCertificate),
                // TBSCertList begins with its version (RFC 5280 section 5.1).
                Tag::Integer => Some(Self::AmdCrl),
                _ => None,
            },
            _ => None,
        }
    }
}

fn pieces(name: &'static str, json: Json) -> Result<Vec<Vec<u8>>, AnswerError> {
    let items = json.into_array(name)?;
    if items.len() > MAX_PIECES {
        return Err(AnswerError::TooManyPieces(items.len()));
    }
    let decode = |item: Json| {
        let text = item.into_string(name)?;
        STANDARD.decode(text).map_err(|_| AnswerError::Base64(name))
    };
    items.into_iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sev_snp::roots::AMD_ROOTS;

    #[test]
    fn a_piece_is_told_by_its_first_bytes() {
        let crl = [0x30, 8, 0x30, 6, 2, 1, 1, 0x30, 1, 0];
        let ocsp = [0x30, 3, 0x0a, 1, 0];
        let cases: [(&str, &[u8], Option<CollateralKind>); 7] = [
            (
                "certificate",
                AMD_ROOTS[0].ask,
                Some(CollateralKind::AmdCertificate),
            ),
            ("CRL", &crl, Some(CollateralKind::AmdCrl)),
            (
                "OCSP response",
                &[&ocsp[..], &[0x30, 0]].concat(),
                Some(CollateralKind::Ocsp),
            ),
            ("JSON", b" \n{\"tcb_info\":1}", Some(CollateralKind::Tdx)),
            ("a list", b"[]", None),
            ("nothing", b"", None),
            ("a set", &[0x31, 8, 0x30, 6, 2, 1, 1, 0x30, 1, 0], None),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(CollateralKind::of(bytes), expected, "{name}");
            let mut collateral = Collateral::default();
            assert_eq!(collateral.take(bytes.to_vec()).ok(), expected, "{name}");
            let taken = collateral
                .kinds()
                .iter()
                .map(|(_, it)| it.len())
                .sum::<usize>();
            assert_eq!(taken, usize::from(expected.is_some()), "{name}");
            assert_eq!(collateral.is_empty(), expected.is_none(), "{name}");
        }
    }
}
