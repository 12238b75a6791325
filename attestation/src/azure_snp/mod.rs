//! SEV-SNP as Azure's paravisor carries it, for offline appraisal.
//!
//! The guest cannot ask the processor for a report: the paravisor does, at start, and puts the key
//! of the vTPM that it gives the guest into the report data. What the guest vouches for is then a
//! quote under that key. So a capture is believed if the report is, under the `[sev_snp]` policy, if
//! the report data is the digest of the runtime data that holds the key, and if the key signed a
//! quote that answers the nonce. The report measures the paravisor; what the guest booted stands in
//! the quote's registers, for which a policy has no list: an appraisal shows that they are genuine.

mod capture;
mod hcl;
mod quote;
mod reader;
#[cfg(test)]
mod tests;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use subtle::ConstantTimeEq;

pub use capture::{CaptureError, MAX_CAPTURE};
pub use hcl::HclError;
pub use quote::QuoteError;

use crate::azure_snp::capture::Capture;
use crate::azure_snp::hcl::{HclReport, Modulus};
use crate::azure_snp::quote::Quote;
use crate::check::Checks;
use crate::digest::sha256;
use crate::input::{Expected, Input};
use crate::sev_snp::{self, SnpPolicy};

/// 65537, the exponent of every vTPM's key.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// Makes every check that can be made. Claims do not mean that all passed: `checks` does.
pub(crate) fn run(
    checks: &mut Checks,
    input: &Input<'_>,
    policy: Option<&SnpPolicy>,
) -> Option<sev_snp::Claims> {
    let parsed = Capture::parse(input.report);
    let parsed = parsed.map(|capture| (capture, "version 1".to_owned()));
    let capture = checks.step("capture", "JSON of version 1", parsed)?;
    let parsed = HclReport::parse(&capture.hcl_report);
    let parsed = parsed.map(|report| {
        let seen = format!("{} bytes of runtime data", report.runtime_data.len());
        (report, seen)
    });
    let hcl = checks.step("HCL report", "version 1, around a SEV-SNP report", parsed)?;

    let claims = check_report(checks, input, policy, &capture, &hcl);
    let key =
        hcl::attestation_key(hcl.runtime_data).map(|key| (key, "RSA of 2048 bits".to_owned()));
    let key = checks.step("attestation key", "one HCLAkPub that signs", key);
    check_quote(checks, input, &capture, key);
    claims
}

/// The processor's report, whose report data must be the digest of the runtime data and zeros.
fn check_report(
    checks: &mut Checks,
    input: &Input<'_>,
    policy: Option<&SnpPolicy>,
    capture: &Capture,
    hcl: &HclReport<'_>,
) -> Option<sev_snp::Claims> {
    let mut report_data = [0; 64];
    let digest = sha256(&[hcl.runtime_data]);
    for (byte, of_digest) in report_data.iter_mut().zip(digest) {
        *byte = of_digest;
    }
    let certificates: Vec<_> = capture
        .vcek
        .iter()
        .chain(input.certificates)
        .cloned()
        .collect();
    // The authority and root of a whole chain beside it are no leaves.
    let certificates = match sev_snp::certificates_of(hcl.report, &certificates) {
        ordered if ordered.is_empty() => certificates,
        ordered => ordered,
    };
    let of_report = Input {
        report: hcl.report,
        certificates: &certificates,
        expected: Expected {
            report_data: Some(report_data),
            nonce: None,
        },
        ..*input
    };
    sev_snp::run(checks, &of_report, policy)
}

fn check_quote(checks: &mut Checks, input: &Input<'_>, capture: &Capture, key: Option<Modulus>) {
    let parsed = Quote::parse(&capture.message);
    let parsed = parsed.map(|quote| {
        let seen = format!("{} registers", quote.selected().count());
        (quote, seen)
    });
    let quote = checks.step("quote", "a TPM's quote of SHA-256 registers", parsed);
    if let Some(n) = key {
        let key = RsaPublicKeyComponents {
            n: n.as_slice(),
            e: EXPONENT.as_slice(),
        };
        let signature = &capture.signature;
        let verified = key.verify(&RSA_PKCS1_2048_8192_SHA256, &capture.message, signature);
        let seen = match verified {
            Ok(()) => "verifies",
            Err(_) => "does not verify",
        };
        checks.record("quote signature", verified.is_ok(), "verifies", seen);
    }
    let Some(quote) = quote else { return };
    let values = capture.pcrs.as_ref();
    checks.against(
        "PCR digest",
        values,
        "register values to compare with",
        hex::encode(quote.pcr_digest),
        |values| {
            let selected: Option<Vec<_>> = quote.selected().map(|at| values.get(at)).collect();
            let digest = selected.map(|values| {
                let values: Vec<_> = values.into_iter().map(<[u8; 32]>::as_slice).collect();
                sha256(&values)
            });
            let equal = digest.is_some_and(|digest| digest == *quote.pcr_digest);
            let expected = digest.map(hex::encode);
            (
                equal,
                expected.unwrap_or_else(|| "a value for each".to_owned()),
            )
        },
    );
    let nonce = input.expected.nonce;
    let seen = hex::encode(quote.extra_data);
    checks.against("nonce", nonce, "a nonce to compare with", seen, |nonce| {
        let equal = quote.extra_data.ct_eq(nonce.as_bytes());
        (equal.into(), hex::encode(nonce.as_bytes()))
    });
    if let Some(report_data) = input.expected.report_data {
        checks.record(
            "user data",
            false,
            hex::encode(report_data),
            "none: a quote has a nonce alone",
        );
    }
}
