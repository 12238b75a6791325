//! What AMD's extensions in a VCEK or VLEK say, against what the report says.

use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier};

use crate::certificate::Certificate;
use crate::check::Checks;
use crate::sev_snp::report::{FLAG_MASK_CHIP_KEY, Report};
use crate::sev_snp::{Product, Tcb};

/// The arc of AMD's extensions; `.1.` of it is for VCEK and VLEK.
const fn amd(id: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(id)
}

pub(crate) const STRUCTURE_VERSION: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.1");
pub(crate) const PRODUCT_NAME: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.2");
pub(crate) const BOOTLOADER: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.1");
pub(crate) const TEE: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.2");
pub(crate) const SNP: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.3");
pub(crate) const MICROCODE: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.8");
pub(crate) const FMC: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.9");
pub(crate) const HWID: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.4");
pub(crate) const CSP_ID: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.5");

/// Security versions of the TCB's reserved bytes: all zero, and not in every certificate.
pub(crate) const RESERVED: [ObjectIdentifier; 4] = [
    amd("1.3.6.1.4.1.3704.1.3.4"),
    amd("1.3.6.1.4.1.3704.1.3.5"),
    amd("1.3.6.1.4.1.3704.1.3.6"),
    amd("1.3.6.1.4.1.3704.1.3.7"),
];

/// The key that signs reports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SigningKey {
    /// Derived from the chip and its TCB.
    Vcek,
    /// Lent by AMD to a cloud provider, for any of its chips.
    Vlek,
}

impl SigningKey {
    /// By the subject's name, as AMD writes it.
    pub(crate) fn of(leaf: &Certificate) -> Option<Self> {
        match leaf.common_name().as_str() {
            "SEV-VCEK" => Some(Self::Vcek),
            "SEV-VLEK" => Some(Self::Vlek),
            _ => None,
        }
    }

    /// The value of the report's SIGNING_KEY bits.
    fn from_flags(flags: u32) -> Option<Self> {
        match (flags >> 2) & 0b111 {
            0 => Some(Self::Vcek),
            1 => Some(Self::Vlek),
            _ => None,
        }
    }

    /// The name in AMD's documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
        }
    }
}

fn name_of(key: Option<SigningKey>) -> &'static str {
    key.map_or("another key", SigningKey::as_str)
}

/// What the leaf says, once it agrees with the report.
pub(crate) struct Endorsement {
    pub(crate) product: Product,
    pub(crate) key: SigningKey,
    /// The cloud provider of a VLEK.
    pub(crate) csp_id: Option<String>,
}

/// Checks every statement of the leaf against the report; `None` if it names no product, without
/// which a TCB cannot be read.
pub(crate) fn verify(
    checks: &mut Checks,
    leaf: &Certificate,
    root_product: Option<Product>,
    report: &Report,
) -> Option<Endorsement> {
    let key = check_signing_key(checks, leaf, report);
    let product = check_product(checks, leaf, root_product, report)?;
    check_tcb(checks, leaf, product, report);
    check_hwid(checks, leaf, product, key, report);
    Some(Endorsement {
        product,
        key: key?,
        csp_id: csp_id(leaf),
    })
}

/// Whether a certificate is the one for the key that the report's chip derives from the reported
/// TCB, or for a lent key of that TCB.
pub(crate) fn fits(leaf: &Certificate, report: &Report) -> bool {
    let name = ia5(leaf, PRODUCT_NAME);
    let product = name.as_deref().and_then(Product::from_certificate_name);
    product.is_some_and(|product| {
        tcb_agrees(leaf, product, report)
            && hwid_agrees(leaf, product, SigningKey::of(leaf), report)
    })
}

fn check_signing_key(
    checks: &mut Checks,
    leaf: &Certificate,
    report: &Report,
) -> Option<SigningKey> {
    let key = SigningKey::of(leaf);
    let flagged = SigningKey::from_flags(report.flags);
    checks.record(
        "signing key",
        key.is_some() && key == flagged,
        format!("the report's: {}", name_of(flagged)),
        format!("the certificate's: {}", name_of(key)),
    );
    let masked = report.flags & FLAG_MASK_CHIP_KEY != 0;
    let seen = if masked { "masked" } else { "not masked" };
    checks.record("chip key mask", !masked, "not masked", seen);
    key
}

fn check_product(
    checks: &mut Checks,
    leaf: &Certificate,
    root_product: Option<Product>,
    report: &Report,
) -> Option<Product> {
    let name = ia5(leaf, PRODUCT_NAME);
    let product = name.as_deref().and_then(Product::from_certificate_name);
    let [family, model, _] = report.cpuid;
    // Version 2 does not carry CPUID; its bytes were reserved and zero.
    let by_cpuid = match report.version {
        2 => report.cpuid == [0; 3],
        _ => product.is_some() && product == Product::from_cpuid(family, model),
    };
    let by_root = root_product.is_none_or(|of_root| product == Some(of_root));
    checks.record(
        "product name",
        product.is_some() && by_cpuid && by_root,
        match report.version {
            2 => "the root's generation".to_owned(),
            _ => format!("the root's generation, and of CPUID {family:02x}h/{model:02x}h"),
        },
        name.unwrap_or_else(|| "no such extension".to_owned()),
    );
    product
}

/// Compares every part: AMD derives the key from exactly this TCB.
fn check_tcb(checks: &mut Checks, leaf: &Certificate, product: Product, report: &Report) {
    let certified = certified_tcb(leaf, product);
    let reported = Tcb::from_word(product, report.reported_tcb);
    checks.record(
        "certified TCB",
        tcb_agrees(leaf, product, report),
        describe(reported, "a TCB with its reserved bytes zero"),
        describe(certified, "a missing or malformed extension"),
    );
}

fn tcb_agrees(leaf: &Certificate, product: Product, report: &Report) -> bool {
    let certified = certified_tcb(leaf, product);
    let reserved_are_zero = RESERVED
        .into_iter()
        .all(|id| leaf.extension(id).is_none() || security_version(leaf, id) == Some(0));
    certified.is_some()
        && certified == Tcb::from_word(product, report.reported_tcb)
        && reserved_are_zero
}

fn certified_tcb(leaf: &Certificate, product: Product) -> Option<Tcb> {
    Some(Tcb {
        fmc: match product {
            Product::Turin => Some(security_version(leaf, FMC)?),
            Product::Milan | Product::Genoa => None,
        },
        bootloader: security_version(leaf, BOOTLOADER)?,
        tee: security_version(leaf, TEE)?,
        snp: security_version(leaf, SNP)?,
        microcode: security_version(leaf, MICROCODE)?,
    })
}

fn describe(tcb: Option<Tcb>, otherwise: &str) -> String {
    tcb.map_or_else(|| otherwise.to_owned(), |tcb| tcb.to_string())
}

fn check_hwid(
    checks: &mut Checks,
    leaf: &Certificate,
    product: Product,
    key: Option<SigningKey>,
    report: &Report,
) {
    let hwid = leaf.extension(HWID);
    let (chip_id, _) = report.chip_id.split_at(product.hwid_len());
    let passed = hwid_agrees(leaf, product, key, report);
    let expected = match key {
        Some(SigningKey::Vlek) => "none, and a chip id of zeros".to_owned(),
        _ => hex::encode(chip_id),
    };
    let seen = hwid.map_or_else(|| "no such extension".to_owned(), hex::encode);
    checks.record("hardware id", passed, expected, seen);
}

fn hwid_agrees(
    leaf: &Certificate,
    product: Product,
    key: Option<SigningKey>,
    report: &Report,
) -> bool {
    let hwid = leaf.extension(HWID);
    let (chip_id, rest) = report.chip_id.split_at(product.hwid_len());
    match key {
        Some(SigningKey::Vcek) => hwid == Some(chip_id) && is_zero(rest),
        Some(SigningKey::Vlek) => hwid.is_none() && is_zero(&report.chip_id),
        None => false,
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn security_version(leaf: &Certificate, id: ObjectIdentifier) -> Option<u8> {
    u8::from_der(leaf.extension(id)?).ok()
}

/// The product that a leaf names.
pub(crate) fn product_of(leaf: &Certificate) -> Option<Product> {
    Product::from_certificate_name(&ia5(leaf, PRODUCT_NAME)?)
}

/// The cloud provider that a VLEK names.
pub(crate) fn csp_id(leaf: &Certificate) -> Option<String> {
    ia5(leaf, CSP_ID)
}

fn ia5(leaf: &Certificate, id: ObjectIdentifier) -> Option<String> {
    let text = Ia5StringRef::from_der(leaf.extension(id)?).ok()?;
    Some(text.as_str().to_owned())
}
