//! What a vendor's file is, and when it ends, for those who make bundles.
//!
//! A file is looked at by itself: form and dates, and the chain of a chip's certificate, whose
//! authorities are built in. Every signature is verified again whenever a piece is used.

use std::time::SystemTime;

use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::{AnyRef, GeneralizedTime};
use x509_cert::der::{
    Decode as _, DecodePem as _, Reader as _, SliceReader, Tag, TagNumber, Tagged as _,
};

use crate::bundle::{ItemKind, MAX_FILE};
use crate::certificate::Certificate;
use crate::check::Checks;
use crate::json::{self, JsonError};
use crate::sev_snp::roots::AMD_ROOTS;
use crate::sev_snp::{TrustedRoot, verify_chain};
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
        "not a revocation list, an OCSP response, the certificate of a chip's key, or Intel's collateral"
    )]
    Unknown,
    /// A certificate that is not that of a chip's key under AMD's roots.
    #[error("a certificate, but not of an AMD chip's key: {0}")]
    Certificate(String),
    /// A revocation list that AMD's appraisal has no use for: Intel's are part of its collateral.
    #[error("a revocation list of {0}, not of AMD's")]
    List(String),
    /// Not the JSON that Intel's collateral is.
    #[error("Intel's collateral: {0}")]
    Json(#[from] JsonError),
    /// A part of Intel's collateral that cannot be read.
    #[error("Intel's collateral: `{0}` cannot be read")]
    Part(&'static str),
    /// A piece without an end cannot be known to be current.
    #[error("{0} without a date at which it ends")]
    NoEnd(&'static str),
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
    if let Ok(list) = CertificateList::from_der(bytes) {
        if !is_amds(&list) {
            return Err(InspectError::List(list.tbs_cert_list.issuer.to_string()));
        }
        return Ok(Inspected {
            kind: ItemKind::AmdCrl,
            what: format!("revocation list of {}", list.tbs_cert_list.issuer),
            valid_until: list_end(&list)?,
        });
    }
    let updates = ocsp_updates(bytes).ok_or(InspectError::Unknown)?;
    let ends: Option<Vec<_>> = updates.into_iter().collect();
    let end = ends.and_then(|ends| ends.into_iter().min());
    Ok(Inspected {
        kind: ItemKind::Ocsp,
        what: "OCSP response".to_owned(),
        valid_until: end.ok_or(InspectError::NoEnd("an OCSP response"))?,
    })
}

fn amd_certificate(
    der: &[u8],
    certificate: &Certificate,
    now: SystemTime,
) -> Result<Inspected, InspectError> {
    let mut checks = Checks::default();
    let chain = verify_chain(&mut checks, &[der.to_vec()], &TrustedRoot::amd(), now);
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

/// Whether the issuer has the name of one of AMD's roots.
fn is_amds(list: &CertificateList) -> bool {
    AMD_ROOTS.iter().any(|root| {
        let root = x509_cert::Certificate::from_der(root.ark);
        root.is_ok_and(|it| *it.tbs_certificate().subject() == list.tbs_cert_list.issuer)
    })
}

fn list_end(list: &CertificateList) -> Result<SystemTime, InspectError> {
    let end = list.tbs_cert_list.next_update;
    let end = end.ok_or(InspectError::NoEnd("a revocation list"))?;
    Ok(end.to_system_time())
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
        let list = CertificateList::from_der(&der).map_err(|_| InspectError::Part(name))?;
        ends.push(list_end(&list)?);
    }
    for name in [
        "pck_crl_issuer_chain",
        "tcb_info_issuer_chain",
        "qe_identity_issuer_chain",
    ] {
        let chain = members.string(name)?;
        for pem in chain
            .split_inclusive(PEM_END)
            .filter(|it| it.contains(PEM_END))
        {
            let certificate = x509_cert::Certificate::from_pem(pem.trim_start().as_bytes());
            let certificate = certificate.map_err(|_| InspectError::Part(name))?;
            let validity = certificate.tbs_certificate().validity();
            ends.push(validity.not_after.to_system_time());
        }
    }
    for name in ["tcb_info_signature", "qe_identity_signature"] {
        hex::decode(members.string(name)?).map_err(|_| InspectError::Part(name))?;
    }
    let end = ends.into_iter().min();
    Ok(Inspected {
        kind: ItemKind::TdxCollateral,
        what: "Intel's collateral".to_owned(),
        valid_until: end.ok_or(InspectError::NoEnd("collateral"))?,
    })
}

/// The `nextUpdate` of each answer of an OCSP response (RFC 6960 section 4.2.1); `None` if it is
/// none, or holds no answer.
fn ocsp_updates(der: &[u8]) -> Option<Vec<Option<SystemTime>>> {
    let explicit = |number| Tag::ContextSpecific {
        constructed: true,
        number: TagNumber(number),
    };
    let response = children(AnyRef::from_der(der).ok()?)?;
    let bytes = response.get(1).filter(|it| it.tag() == explicit(0))?;
    let bytes = children(*children(*bytes)?.first()?)?;
    let basic = AnyRef::from_der(bytes.get(1)?.value()).ok()?;
    let data = children(*children(basic)?.first()?)?;
    // Version and responder come before the time, extensions after the answers.
    let answers = data.iter().find(|it| it.tag() == Tag::Sequence)?;
    let updates = children(*answers)?.into_iter().map(|answer| {
        let parts = children(answer)?;
        // After the certificate's id, its status and `thisUpdate`.
        let next = parts.get(3).filter(|it| it.tag() == explicit(0));
        Some(next.and_then(|it| GeneralizedTime::from_der(it.value()).ok()))
    });
    let updates: Vec<_> = updates.collect::<Option<_>>()?;
    let ends = updates
        .into_iter()
        .map(|it| it.map(|time| time.to_system_time()));
    Some(ends.collect()).filter(|ends: &Vec<_>| !ends.is_empty())
}

/// What stands in a constructed value.
fn children(parent: AnyRef<'_>) -> Option<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(parent.value()).ok()?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(AnyRef::decode(&mut reader).ok()?);
    }
    Some(found)
}
