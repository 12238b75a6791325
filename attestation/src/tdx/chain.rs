//! The certificates in a quote: from a root that is trusted down to the platform's key (PCK).
//!
//! Here they are read, and a root is chosen. That each is allowed its place and none is revoked is
//! verified together with the collateral.

use std::time::SystemTime;

use x509_cert::der::pem::{self, LineEnding};

use crate::certificate::{Certificate, check_validity};
use crate::check::Checks;
use crate::claims::Root;
use crate::root::{self, TrustedRoot};
use crate::tdx::provider;
use crate::tdx::roots::{INTEL_SGX_ROOT_CA, INTEL_SGX_ROOT_CA_SHA256};

const LABEL: &str = "CERTIFICATE";
const BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
const END: &str = "-----END CERTIFICATE-----\n";

/// Intel's root, if its bytes have the pinned digest.
pub(crate) fn intel_root() -> Option<TrustedRoot> {
    TrustedRoot::pinned(Root::Intel, INTEL_SGX_ROOT_CA, INTEL_SGX_ROOT_CA_SHA256)
}

/// What a quote's certificates are, once a trusted root has signed the upper one.
pub(crate) struct Chain<'a> {
    pub(crate) root: &'a TrustedRoot,
    pub(crate) certificates: Certificates,
}

/// The two certificates that are looked at.
pub(crate) struct Certificates {
    pub(crate) leaf: Certificate,
    pub(crate) authority: Certificate,
    /// The platform's family, by the leaf.
    pub(crate) fmspc: [u8; 6],
    /// Both again, byte for byte.
    pub(crate) pem: String,
}

/// Reads the certificates and finds the root above them.
pub(crate) fn read<'a>(
    checks: &mut Checks,
    pck_chain: &[u8],
    roots: &'a [TrustedRoot],
    now: SystemTime,
) -> Option<Chain<'a>> {
    let certificates = checks.step(
        "certificates",
        "the platform's, its authority's and at most a copy of the root, in PEM",
        Certificates::parse(pck_chain),
    )?;
    let Certificates {
        leaf, authority, ..
    } = &certificates;

    let root = root::find(checks, roots, authority, |root| {
        authority.check_issued_by(root).is_ok()
    })?;

    check_validity(checks, &[leaf, authority, root.certificate()], leaf, now);
    Some(Chain { root, certificates })
}

/// Whether the authority of a quote's certificates names Intel's root; nothing is verified.
pub(crate) fn names_intel(pck_chain: &[u8]) -> bool {
    let certificates = Certificates::parse(pck_chain).ok();
    let root = intel_root();
    certificates
        .zip(root)
        .is_some_and(|((it, _), root)| it.authority.is_issued_by(root.certificate()))
}

impl Certificates {
    fn parse(pck_chain: &[u8]) -> Result<(Self, String), String> {
        let [leaf_der, authority_der] = decode(pck_chain)?;
        let parse = |der: &[u8]| Certificate::parse(der).map_err(|error| error.to_string());
        let (leaf, authority) = (parse(&leaf_der)?, parse(&authority_der)?);
        let fmspc = provider::fmspc(&leaf_der)?;
        let to_pem = |der: &[u8]| {
            pem::encode_string(LABEL, LineEnding::LF, der).map_err(|error| error.to_string())
        };
        let pem = to_pem(&leaf_der)? + &to_pem(&authority_der)?;
        let seen = format!(
            "{} of FMSPC {}, {}",
            leaf.common_name(),
            hex::encode(fmspc),
            authority.common_name()
        );
        Ok((
            Self {
                leaf,
                authority,
                fmspc,
                pem,
            },
            seen,
        ))
    }
}

/// Reads the PEM that Intel's library writes: two or three certificates, and it may end with a NUL.
/// The third is a copy of the root, and not looked at: roots never come from evidence.
fn decode(pck_chain: &[u8]) -> Result<[Vec<u8>; 2], String> {
    let text = pck_chain.strip_suffix(&[0]).unwrap_or(pck_chain);
    let text = str::from_utf8(text).map_err(|_| "no text".to_owned())?;
    let blocks: Vec<_> = text.split_inclusive(END).collect();
    let (leaf, authority) = match blocks.as_slice() {
        [leaf, authority] | [leaf, authority, _] => (leaf, authority),
        other => return Err(format!("{} certificates", other.len())),
    };
    if !blocks.iter().all(|block| block.starts_with(BEGIN)) {
        return Err("something between the certificates".to_owned());
    }
    let decode = |block: &str| match pem::decode_vec(block.as_bytes()) {
        Ok((_, der)) => Ok(der),
        Err(error) => Err(format!("no PEM: {error}")),
    };
    Ok([decode(leaf)?, decode(authority)?])
}
