//! What vendors sign beside the evidence: revocation lists, TCB levels, certificate statuses.
//!
//! Each piece carries its own signature and dates, which are checked whenever it is used, so it does
//! not matter who delivered it: the node with its evidence, or the verifier's own bundle. None of it
//! is ever a source of roots.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

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
