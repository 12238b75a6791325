//! AMD SEV-SNP: reports, the certificates that endorse them, and their appraisal.
//!
//! A report is believed if its signature verifies over the bytes as received, the key's certificate
//! chains to a root that the policy trusts, the certificate's extensions agree with the report, and
//! the report agrees with the policy. AMD's revocation lists, and certificates for reports that come
//! without, are taken from collateral.

mod chain;
pub(crate) mod endorsement;
mod kept;
mod policy;
mod product;
mod propose;
mod reference;
pub mod report;
pub(crate) mod revocation;
pub(crate) mod roots;

use std::time::SystemTime;

use subtle::ConstantTimeEq;

pub(crate) use chain::{amd_roots, verify as verify_chain};
pub use chain::{certificates_of, order_certificates};
pub use endorsement::SigningKey;
pub(crate) use policy::Section;
pub use policy::SnpPolicy;
pub use product::{Product, Tcb};
pub(crate) use propose::propose;
pub use report::{REPORT_LEN, Report, ReportError, SIGNED_LEN};

use crate::check::Checks;
use crate::claims::Root;
use crate::input::Input;
use crate::sev_snp::report::{ECDSA_P384_SHA384, Signed};

/// What a report says, once everything it rests on has been looked at. Worth something only if no
/// check failed.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Where the certificates chain to.
    pub root: Root,
    /// The processor's generation.
    pub product: Product,
    /// The kind of key that signed.
    pub signing_key: SigningKey,
    /// The launch digest of the guest.
    pub measurement: [u8; 48],
    /// The chip's identity; zero under a VLEK.
    pub chip_id: [u8; 64],
    /// The TCB that the signing key was derived from.
    pub reported_tcb: Tcb,
    /// When the first of the certificates ends, or the revocation list that was used.
    pub not_after: SystemTime,
}

/// Makes every check that can be made. Claims do not mean that all passed: `checks` does.
pub(crate) fn run(
    checks: &mut Checks,
    input: &Input<'_>,
    policy: Option<&SnpPolicy>,
) -> Option<Claims> {
    let bytes = input.report;
    let parsed = Report::parse(bytes);
    let parsed = parsed.map(|report| {
        let seen = format!("{REPORT_LEN} bytes, version {}", report.version);
        (report, seen)
    });
    let report = checks.step("report", "1184 bytes, version 2 to 5", parsed)?;
    checks.record(
        "signature algorithm",
        report.signature_algorithm == ECDSA_P384_SHA384,
        "1 (ECDSA P-384 with SHA-384)",
        report.signature_algorithm.to_string(),
    );

    let built_in;
    let roots = match policy {
        Some(policy) => policy.roots.as_slice(),
        None => {
            built_in = amd_roots();
            &built_in
        }
    };
    let kept;
    let certificates = match input.certificates {
        [] => {
            kept = kept::find(input, &report);
            &kept
        }
        delivered => delivered,
    };
    let chain = chain::verify(checks, certificates, roots, input.now);
    let mut endorsement = None;
    let mut list_ends = None;
    if let Some(chain) = &chain {
        check_signature(checks, bytes, chain);
        list_ends = revocation::check(checks, input, policy, chain);
        endorsement = endorsement::verify(checks, &chain.leaf, chain.root_product, &report);
    }
    reference::check_guest_policy(checks, &report);
    reference::check(checks, policy, &report, endorsement.as_ref());
    check_report_data(checks, &report, input.expected.report_data);

    let (chain, endorsement) = chain.zip(endorsement)?;
    Some(Claims {
        root: chain.root,
        product: endorsement.product,
        signing_key: endorsement.key,
        measurement: report.measurement,
        chip_id: report.chip_id,
        reported_tcb: Tcb::from_word(endorsement.product, report.reported_tcb)?,
        not_after: list_ends.map_or(chain.not_after, |end| end.min(chain.not_after)),
    })
}

fn check_signature(checks: &mut Checks, bytes: &[u8], chain: &chain::Chain) {
    let signed = Signed::from_report(bytes);
    let passed = signed
        .as_ref()
        .is_some_and(|signed| chain.leaf.verifies(signed.message, &signed.signature));
    let seen = match (&signed, passed) {
        (None, _) => "bytes set that must be zero",
        (Some(_), true) => "verifies",
        (Some(_), false) => "does not verify",
    };
    checks.record("report signature", passed, "verifies", seen);
}

fn check_report_data(checks: &mut Checks, report: &Report, expected: Option<[u8; 64]>) {
    let seen = hex::encode(report.report_data);
    checks.against(
        "report data",
        expected,
        "report data to compare with",
        seen,
        |expected| {
            let equal = report.report_data.ct_eq(&expected);
            (equal.into(), hex::encode(expected))
        },
    );
}
