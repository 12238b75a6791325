//! The certificates: from a root that is trusted down to the key that signed the report.

use std::time::SystemTime;

use crate::certificate::{Certificate, Scheme, check_validity};
use crate::check::Checks;
use crate::claims::Root;
use crate::root::{self, TrustedRoot};
use crate::sev_snp::roots::{AMD_ROOTS, ARK_SHA256};
use crate::sev_snp::{Product, Report, endorsement};

/// AMD's roots whose bytes have the pinned digest.
pub(crate) fn amd_roots() -> Vec<TrustedRoot> {
    let pinned = AMD_ROOTS.iter().zip(ARK_SHA256);
    pinned
        .filter_map(|(root, digest)| TrustedRoot::pinned(Root::Amd, root.ark, digest))
        .collect()
}

/// The generation that a root is for; a software root does not say.
fn product_of(root: &TrustedRoot) -> Option<Product> {
    let mut own = AMD_ROOTS.iter().filter(|own| own.ark == root.der());
    own.next().map(|own| own.product)
}

/// A chain that holds: the leaf, and what it hangs from.
pub(crate) struct Chain {
    pub(crate) leaf: Certificate,
    pub(crate) authority: Certificate,
    pub(crate) root: Root,
    pub(crate) root_certificate: Certificate,
    pub(crate) root_product: Option<Product>,
    /// When the first of its certificates ends.
    pub(crate) not_after: SystemTime,
}

/// Verifies leaf, authority and root; `None` where a later check has nothing to stand on.
pub(crate) fn verify(
    checks: &mut Checks,
    certificates: &[Vec<u8>],
    roots: &[TrustedRoot],
    now: SystemTime,
) -> Option<Chain> {
    let (leaf, authority) = checks.step(
        "certificates",
        "the leaf and at most one authority, root left out",
        parse(certificates),
    )?;
    let endorsed = leaf
        .check_leaf()
        .and_then(|()| authority.check_authority(0, Scheme::RsaPss))
        .and_then(|()| leaf.check_issued_by(&authority))
        .map(|()| ((), format!("signed by {}", authority.common_name())));
    checks.step(
        "leaf certificate",
        "a P-384 key signed by the authority",
        endorsed,
    )?;

    let root = root::find(checks, roots, &authority, |root| {
        root.check_authority(1, Scheme::RsaPss).is_ok() && authority.check_issued_by(root).is_ok()
    })?;

    let chain = [&leaf, &authority, root.certificate()];
    check_validity(checks, &chain, &leaf, now);
    Some(Chain {
        root: root.kind(),
        root_product: product_of(root),
        not_after: chain
            .iter()
            .map(|certificate| certificate.not_after())
            .min()?,
        root_certificate: root.certificate().clone(),
        authority,
        leaf,
    })
}

/// The leaf and its authority, which may come from the pinned ones.
fn parse(certificates: &[Vec<u8>]) -> Result<((Certificate, Certificate), String), String> {
    let parse = |der: &[u8]| Certificate::parse(der).map_err(|error| error.to_string());
    let (leaf, authority) = match certificates {
        [leaf] => (parse(leaf)?, None),
        [leaf, authority] => (parse(leaf)?, Some(parse(authority)?)),
        other => return Err(format!("{} certificates", other.len())),
    };
    let (authority, origin) = match authority {
        Some(authority) => (authority, "given"),
        None => (pinned_authority(&leaf).ok_or("no authority")?, "built in"),
    };
    let seen = format!(
        "{}, {} ({origin})",
        leaf.common_name(),
        authority.common_name()
    );
    Ok(((leaf, authority), seen))
}

fn pinned_authority(leaf: &Certificate) -> Option<Certificate> {
    let authorities = AMD_ROOTS.iter().flat_map(|root| [root.ask, root.asvk]);
    authorities
        .filter_map(|der| Certificate::parse(der).ok())
        .find(|authority| leaf.is_issued_by(authority))
}

/// Whether the last certificate of evidence names one of AMD's roots, or an authority of theirs that
/// is built in. Nothing is verified.
pub(crate) fn names_amd(last: &Certificate) -> bool {
    let mut roots = amd_roots().into_iter();
    roots.any(|root| last.is_issued_by(root.certificate())) || pinned_authority(last).is_some()
}

/// Whether the authority of a leaf is built in.
pub(crate) fn has_pinned_authority(leaf: &Certificate) -> bool {
    pinned_authority(leaf).is_some()
}

/// Puts certificates found in files into the order of evidence: leaf first, then its authority;
/// self-signed ones and strangers are left out.
///
/// Nothing is verified here, and what is left out is never trusted.
pub fn order_certificates(certificates: &[Vec<u8>]) -> Vec<Vec<u8>> {
    order(certificates, |_| true)
}

/// As [`order_certificates`], where there may be several leaves: of the one that the report names by
/// hardware id and TCB, or of the first where none fits.
pub fn certificates_of(report: &[u8], certificates: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let report = Report::parse(report).ok();
    let fits = |leaf: &Certificate| {
        let mut report = report.iter();
        report.any(|report| endorsement::fits(leaf, report))
    };
    match order(certificates, fits) {
        none if none.is_empty() => order_certificates(certificates),
        fitting => fitting,
    }
}

fn order(certificates: &[Vec<u8>], is_wanted: impl Fn(&Certificate) -> bool) -> Vec<Vec<u8>> {
    let parsed: Vec<_> = certificates
        .iter()
        .filter_map(|der| Some((der, Certificate::parse(der).ok()?)))
        .collect();
    let mut leaves = parsed.iter().filter(|(_, it)| it.check_leaf().is_ok());
    let Some((leaf_der, leaf)) = leaves.find(|(_, leaf)| is_wanted(leaf)) else {
        return Vec::new();
    };
    let authority = parsed
        .iter()
        .find(|(_, certificate)| leaf.is_issued_by(certificate) && !certificate.is_self_issued());
    let ordered = [Some(*leaf_der), authority.map(|(der, _)| *der)];
    ordered.into_iter().flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::slice;

    use x509_cert::der::Decode;

    use super::*;
    use crate::time::from_rfc3339;

    /// There is no public Turin report: one of Milan's is bent to what the certificate says, and
    /// only its agreement with the certificate is looked at.
    #[test]
    fn a_turin_vcek_chains_to_its_root_and_has_turins_extensions() {
        let vcek = include_bytes!("../../tests/data/turin/vcek.der").to_vec();
        let verify_at = |time| {
            let mut checks = Checks::default();
            let now = from_rfc3339(time).unwrap();
            let chain = verify(&mut checks, slice::from_ref(&vcek), &amd_roots(), now);
            (chain.unwrap(), checks.refusal())
        };
        let (chain, refusal) = verify_at("2026-06-01T00:00:00Z");
        assert_eq!(refusal, None);
        assert_eq!(chain.root_product, Some(Product::Turin));
        let version = |id| u8::from_der(chain.leaf.extension(id).unwrap()).unwrap();
        let [fmc, bootloader, tee, snp, microcode] = [
            endorsement::FMC,
            endorsement::BOOTLOADER,
            endorsement::TEE,
            endorsement::SNP,
            endorsement::MICROCODE,
        ]
        .map(version);
        let milan = include_bytes!("../../tests/data/milan/report.bin");
        let mut report = Report::parse(milan).unwrap();
        (report.version, report.cpuid) = (3, [0x1a, 0x02, 0x01]);
        report.reported_tcb = [fmc, bootloader, tee, snp, 0, 0, 0, microcode];
        report.chip_id = [0; 64];
        let hwid = chain.leaf.extension(endorsement::HWID).unwrap();
        report.chip_id[..8].copy_from_slice(hwid);
        let mut checks = Checks::default();
        endorsement::verify(&mut checks, &chain.leaf, chain.root_product, &report);
        assert_eq!(checks.refusal(), None);

        for time in ["2024-11-05T00:00:00Z", "2031-11-07T00:00:00Z"] {
            let (_, refusal) = verify_at(time);
            assert_eq!(refusal.unwrap().check, "certificate validity");
        }
    }
}
