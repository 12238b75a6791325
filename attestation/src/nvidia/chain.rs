//! The certificates: from a root that is trusted down to the key that signed the report.
//!
//! Below the root stand, from above: the identity authority of a product family, a provisioner, the
//! device itself (a key that never leaves it) and the key that the device derived for its firmware.

use std::time::SystemTime;

use crate::certificate::{Certificate, CertificateError, Scheme, check_validity};
use crate::check::Checks;
use crate::claims::Root;
use crate::nvidia::roots::{DEVICE_ROOT, DEVICE_ROOT_SHA256};
use crate::root::{self, TrustedRoot};

/// Authorities between leaf and root.
pub(super) const AUTHORITIES: u8 = 3;

/// NVIDIA's root, if its bytes have the pinned digest.
pub(crate) fn nvidia_root() -> Option<TrustedRoot> {
    TrustedRoot::pinned(Root::Nvidia, DEVICE_ROOT, DEVICE_ROOT_SHA256)
}

/// A chain that holds.
pub(crate) struct Chain {
    /// The key that signs reports.
    pub(crate) leaf: Certificate,
    /// The device's own key, which signed the leaf.
    pub(crate) device: Certificate,
    pub(crate) provisioner: Certificate,
    identity: Certificate,
    root_certificate: Certificate,
    pub(crate) root: Root,
    /// When the first of its certificates ends.
    pub(crate) not_after: SystemTime,
}

impl Chain {
    /// Each certificate whose status the vendor tells, with its issuer. The leaf is the device's
    /// own word.
    pub(crate) fn revocable(&self) -> [(&Certificate, &Certificate); 3] {
        [
            (&self.device, &self.provisioner),
            (&self.provisioner, &self.identity),
            (&self.identity, &self.root_certificate),
        ]
    }

    /// The chip, by the first word of the leaf's name: `GH100`.
    pub(crate) fn architecture(&self) -> String {
        architecture(&self.leaf)
    }
}

/// The chip that a leaf names.
pub(crate) fn architecture(leaf: &Certificate) -> String {
    let name = leaf.common_name();
    name.split(' ').next().unwrap_or_default().to_owned()
}

/// Whether the upper authority names NVIDIA's root; nothing is verified.
pub(crate) fn names_nvidia(certificates: &[Vec<u8>]) -> bool {
    let chain = parse(certificates).ok();
    chain
        .zip(nvidia_root())
        .is_some_and(|(([.., identity], _), root)| identity.is_issued_by(root.certificate()))
}

/// A device's certificates, leaf first, with NVIDIA's root behind them where they end below it;
/// nothing is verified.
pub fn with_root(mut certificates: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let ends_below = |der: &Vec<u8>, root: &TrustedRoot| {
        Certificate::parse(der)
            .is_ok_and(|it| !it.is_self_issued() && it.is_issued_by(root.certificate()))
    };
    let last = certificates.last().zip(nvidia_root());
    if last.is_some_and(|(last, root)| ends_below(last, &root)) {
        certificates.push(DEVICE_ROOT.to_vec());
    }
    certificates
}

/// Verifies leaf, three authorities and root; `None` where a later check has nothing to stand on.
pub(crate) fn verify(
    checks: &mut Checks,
    certificates: &[Vec<u8>],
    roots: &[TrustedRoot],
    now: SystemTime,
) -> Option<Chain> {
    let [leaf, device, provisioner, identity] = checks.step(
        "certificates",
        "the leaf and three authorities, root left out",
        parse(certificates),
    )?;
    let endorsed = leaf
        .check_leaf()
        .and_then(|()| leaf.check_issued_by(&device))
        .map(|()| ((), format!("signed by {}", device.common_name())));
    checks.step(
        "leaf certificate",
        "a P-384 key signed by the device",
        endorsed,
    )?;
    let authorities = check_authority(&device, 0, &provisioner)
        .and_then(|()| check_authority(&provisioner, 1, &identity))
        .and_then(|()| identity.check_authority(2, Scheme::EcdsaP384))
        .map(|()| ((), format!("{} certificates", AUTHORITIES)));
    checks.step(
        "authorities",
        "P-384 authorities, each signed by the next",
        authorities,
    )?;

    let root = root::find(checks, roots, &identity, |root| {
        root.check_authority(AUTHORITIES, Scheme::EcdsaP384)
            .and_then(|()| identity.check_issued_by(root))
            .is_ok()
    })?;

    let chain = [&leaf, &device, &provisioner, &identity, root.certificate()];
    check_validity(checks, &chain, &leaf, now);
    let ends = chain.iter().map(|certificate| certificate.not_after());
    Some(Chain {
        not_after: ends.min()?,
        root: root.kind(),
        root_certificate: root.certificate().clone(),
        leaf,
        device,
        provisioner,
        identity,
    })
}

/// Four certificates. A vendor's file may end with the root, which is dropped: it is never trusted.
fn parse(certificates: &[Vec<u8>]) -> Result<([Certificate; 4], String), String> {
    let parsed = certificates.iter().map(|der| Certificate::parse(der));
    let parsed: Result<Vec<_>, _> = parsed.collect();
    let mut parsed = parsed.map_err(|error| error.to_string())?;
    if parsed.last().is_some_and(Certificate::is_self_issued) {
        parsed.pop();
    }
    let count = parsed.len();
    let chain: Result<[Certificate; 4], _> = parsed.try_into();
    let chain = chain.map_err(|_| format!("{count} certificates below the root"))?;
    let names: Vec<_> = chain.iter().map(Certificate::common_name).collect();
    Ok((chain, names.join(", ")))
}

fn check_authority(
    authority: &Certificate,
    below: u8,
    issuer: &Certificate,
) -> Result<(), CertificateError> {
    authority.check_authority(below, Scheme::EcdsaP384)?;
    authority.check_issued_by(issuer)
}
