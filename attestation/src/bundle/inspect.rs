//! What a vendor's file is, and when it ends, for those who make bundles.
//!
//! A file is looked at by itself. AMD's lists and the certificates of chips are verified up to the
//! built-in roots; of OCSP responses and Intel's collateral, whose signers stand in other files, form
//! and dates are read. Every signature is verified again whenever a piece is used.

use std::time::SystemTime;

use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode as _, DecodePem as _};

use crate::bundle::{ItemKind, MAX_FILE};
use crate::certificate::Certificate;
use crate::check::Checks;
use crate::json::{self, JsonError};
use crate::ocsp;
use crate::sev_snp::revocation::signed_by_amd;
use crate::sev_snp::{amd_roots, verify_chain};
use crate::time::from_rfc3339;

const PEM_END: &str = "-----END CERTIFICATE-----";

/// What a file is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inspected {
    /// Its kind.
    pub kind: ItemKind,
    /// Words for it.
    pub what: String,
    /// When the first of its dates ends.
    pub valid_until: SystemTime,
}

/// Why a file has no place in a bundle.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Longer than [`MAX_FILE`].
    #[error("file of {len} bytes exceeds the limit of {MAX_FILE}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// None of the kinds that bundles hold.
    #[error(
        "no revocation list, no certificate of a chip's key, no collateral of Intel's, and no OCSP \
         response: {0}"
    )]
    Unknown(ocsp::OcspError),
    /// A certificate that is not that of a chip's key under AMD's roots.
    #[error("a certificate, but not of an AMD chip's key: {0}")]
    Certificate(String),
    /// A revocation list that AMD's appraisal has no use for: Intel's are part of its collateral.
    #[error("a revocation list that none of AMD's roots signed")]
    List,
    /// Not the JSON that Intel's collateral is.
    #[error("Intel's collateral: {0}")]
    Json(#[from] JsonError),
    /// A part of Intel's collateral that cannot be read.
    #[error("Intel's collateral: `{0}` cannot be read")]
    Part(&'static str),
}

/// Looks at a file's bytes: DER, or the JSON of Intel's collateral.
///
/// # Errors
/// [`InspectError`] if it is no piece of a bundle.
pub fn inspect(bytes: &[u8], now: SystemTime) -> Result<Inspected, InspectError> {
    if bytes.len() > MAX_FILE {
        return Err(InspectError::TooLong { len: bytes.len() });
    }
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        return tdx(bytes);
    }
    if let Ok(certificate) = Certificate::parse(bytes) {
        return amd_certificate(bytes, &certificate, now);
    }
    if <CertificateList>::from_der(bytes).is_ok() {
        let (root, valid_until) = signed_by_amd(bytes).ok_or(InspectError::List)?;
        return Ok(Inspected {
            kind: ItemKind::AmdCrl,
            what: format!("revocation list of {root}"),
            valid_until,
        });
    }
    Ok(Inspected {
        kind: ItemKind::Ocsp,
        what: "OCSP response".to_owned(),
        valid_until: ocsp::end(bytes).map_err(InspectError::Unknown)?,
    })
}

fn amd_certificate(
    der: &[u8],
    certificate: &Certificate,
    now: SystemTime,
) -> Result<Inspected, InspectError> {
    let mut checks = Checks::default();
    let chain = verify_chain(&mut checks, &[der.to_vec()], &amd_roots(), now);
    match (chain, checks.refusal()) {
        (Some(chain), None) => Ok(Inspected {
            kind: ItemKind::AmdCertificate,
            what: format!("certificate of {}", certificate.common_name()),
            valid_until: chain.not_after,
        }),
        (_, refusal) => Err(InspectError::Certificate(
            refusal.map_or_else(String::new, |refusal| refusal.to_string()),
        )),
    }
}

/// Intel's collateral: its dates are those of TCB info, QE identity, lists and issuers.
fn tdx(bytes: &[u8]) -> Result<Inspected, InspectError> {
    let mut members = json::object(bytes)?;
    let mut ends = Vec::new();
    for name in ["tcb_info", "qe_identity"] {
        let part = members.string(name)?;
        let next = json::object(part.as_bytes())?.string("nextUpdate")?;
        ends.push(from_rfc3339(&next).ok_or(InspectError::Part(name))?);
    }
    for name in ["pck_crl", "root_ca_crl"] {
        let der = hex::decode(members.string(name)?).map_err(|_| InspectError::Part(name))?;
        let list = <CertificateList>::from_der(&der).map_err(|_| InspectError::Part(name))?;
        let end = list.tbs_cert_list.next_update;
        ends.push(end.ok_or(InspectError::Part(name))?.to_system_time());
    }
    for name in [
        "pck_crl_issuer_chain",
        "tcb_info_issuer_chain",
        "qe_identity_issuer_chain",
    ] {
        let chain = members.string(name)?;
        ends.push(chain_end(&chain).ok_or(InspectError::Part(name))?);
    }
    for name in ["tcb_info_signature", "qe_identity_signature"] {
        hex::decode(members.string(name)?).map_err(|_| InspectError::Part(name))?;
    }
    Ok(Inspected {
        kind: ItemKind::TdxCollateral,
        what: "Intel's collateral".to_owned(),
        valid_until: ends
            .into_iter()
            .min()
            .ok_or(InspectError::Part("tcb_info"))?,
    })
}

/// When the first certificate of a chain in PEM ends; `None` if there is none, or one is none.
fn chain_end(pem: &str) -> Option<SystemTime> {
    let blocks = pem
        .split_inclusive(PEM_END)
        .filter(|it| it.contains(PEM_END));
    let ends = blocks.map(|block| {
        let certificate = x509_cert::Certificate::from_pem(block.trim_start().as_bytes()).ok()?;
        let validity = certificate.tbs_certificate().validity();
        Some(validity.not_after.to_system_time())
    });
    ends.collect::<Option<Vec<_>>>()?.into_iter().min()
}
