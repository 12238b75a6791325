//! The certificates: from a root that is trusted down to the key that signed the report.
//!
//! Below the root stand, from above: the identity authority of a product family, a provisioner, the
//! device itself (a key that never leaves it) and the key that the device derived for its firmware.

use std::time::SystemTime;

use crate::certificate::{Certificate, CertificateError, Scheme};
use crate::check::Checks;
use crate::claims::Root;
use crate::digest::sha256;
use crate::nvidia::roots::{DEVICE_ROOT, DEVICE_ROOT_SHA256};
use crate::time::to_rfc3339;

/// Authorities between leaf and root.
const AUTHORITIES: u8 = 3;

/// A root that a policy trusts.
#[derive(Clone, Debug)]
pub(crate) struct TrustedRoot {
    kind: Root,
    certificate: Certificate,
}

impl TrustedRoot {
    /// NVIDIA's root, if its bytes have the pinned digest.
    pub(crate) fn nvidia() -> Option<Self> {
        let is_pinned = is_nvidia(DEVICE_ROOT);
        let certificate = Certificate::parse(DEVICE_ROOT).ok().filter(|_| is_pinned)?;
        Some(Self {
            kind: Root::Nvidia,
            certificate,
        })
    }

    /// A software root's self-signed certificate.
    pub(crate) fn software(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = Certificate::parse(der)?;
        certificate.check_authority(AUTHORITIES, Scheme::EcdsaP384)?;
        certificate.check_issued_by(&certificate)?;
        Ok(Self {
            kind: Root::Software,
            certificate,
        })
    }

    pub(crate) fn is_software(&self) -> bool {
        self.kind == Root::Software
    }

    fn describe(&self) -> String {
        let name = self.certificate.common_name();
        match self.kind {
            Root::Software => format!("{name}, a {}", Root::Software.as_str()),
            _ => name,
        }
    }
}

/// Whether bytes are the root that is compiled in.
pub(crate) fn is_nvidia(der: &[u8]) -> bool {
    hex::encode(sha256(&[der])) == DEVICE_ROOT_SHA256
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
        .zip(TrustedRoot::nvidia())
        .is_some_and(|(([.., identity], _), root)| identity.is_issued_by(&root.certificate))
}

/// A device's certificates, leaf first, with NVIDIA's root behind them where they end below it;
/// nothing is verified.
pub fn with_root(mut certificates: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let ends_below = |der: &Vec<u8>, root: &TrustedRoot| {
        Certificate::parse(der)
            .is_ok_and(|it| !it.is_self_issued() && it.is_issued_by(&root.certificate))
    };
    let last = certificates.last().zip(TrustedRoot::nvidia());
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

    let signs = |root: &&TrustedRoot| {
        let certificate = &root.certificate;
        certificate
            .check_authority(AUTHORITIES, Scheme::EcdsaP384)
            .and_then(|()| identity.check_issued_by(certificate))
            .is_ok()
    };
    let trusted: Vec<_> = roots.iter().map(TrustedRoot::describe).collect();
    let expected = format!("a root that the policy trusts: {}", trusted.join("; "));
    let root = roots.iter().find(signs);
    let seen = root.map_or_else(
        || format!("{} is signed by none of them", identity.common_name()),
        TrustedRoot::describe,
    );
    checks.record("root", root.is_some(), expected, seen);
    let root = root?;

    let chain = [&leaf, &device, &provisioner, &identity, &root.certificate];
    check_validity(checks, &chain, now);
    let ends = chain.iter().map(|certificate| certificate.not_after());
    Some(Chain {
        not_after: ends.min()?,
        root: root.kind,
        root_certificate: root.certificate.clone(),
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

fn check_validity(checks: &mut Checks, chain: &[&Certificate], now: SystemTime) {
    let invalid = chain
        .iter()
        .find(|certificate| !certificate.is_valid_at(now));
    let window = |certificate: &&Certificate| {
        let name = certificate.common_name();
        let from = to_rfc3339(certificate.not_before());
        format!("{name} {from} to {}", to_rfc3339(certificate.not_after()))
    };
    checks.record(
        "certificate validity",
        invalid.is_none(),
        format!("every certificate valid at {}", to_rfc3339(now)),
        invalid.or(chain.first()).map(window).unwrap_or_default(),
    );
}
