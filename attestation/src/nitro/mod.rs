//! AWS Nitro Enclaves: attestation documents and their appraisal.
//!
//! A document is believed if its signature verifies over the bytes as received, its certificates
//! chain to a root that the policy trusts, it is of our time and question, and the registers are
//! what the policy lists. The root in a document is only compared with the trusted one. AWS publishes
//! revocation lists, but a leaf lives three hours: they are not read.

mod cbor;
mod chain;
mod document;
mod policy;
mod propose;
mod reference;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use subtle::ConstantTimeEq;

pub use cbor::CborError;
pub use document::{DocumentError, MAX_DOCUMENT, Pcr};
pub use policy::NitroPolicy;
pub(crate) use policy::Section;
pub(crate) use propose::propose;

use crate::check::Checks;
use crate::claims::Root;
use crate::input::{Expected, Input, ReportNonce};
use crate::nitro::chain::aws_root;
use crate::nitro::document::{Document, ES384};

/// What a document says, once everything it rests on has been looked at. Worth something only if no
/// check failed.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Where the certificates chain to.
    pub root: Root,
    /// The enclave's name: the instance's, and a part of its own.
    pub module_id: String,
    /// When the document was made.
    pub timestamp: SystemTime,
    /// The platform configuration registers that it holds.
    pub pcrs: BTreeMap<u64, Pcr>,
    /// The key that the enclave put into the document. Nothing uses it: a node's keys stand in its
    /// statement.
    pub public_key: Option<Vec<u8>>,
    /// When the first of the certificates ends.
    pub not_after: SystemTime,
}

/// Makes every check that can be made. Claims do not mean that all passed: `checks` does.
pub(crate) fn run(
    checks: &mut Checks,
    input: &Input<'_>,
    policy: Option<&NitroPolicy>,
) -> Option<Claims> {
    let parsed = Document::parse(input.report);
    let parsed = parsed.map(|document| {
        let seen = format!("{} bytes", input.report.len());
        (document, seen)
    });
    let document = checks.step(
        "document",
        "one COSE_Sign1 of at most 16384 bytes with every field once",
        parsed,
    )?;
    checks.record(
        "signature algorithm",
        document.protected == ES384,
        format!("{} (ES384 alone)", hex::encode(ES384)),
        hex::encode(document.protected),
    );
    checks.record(
        "digest",
        document.digest == "SHA384",
        "SHA384",
        document.digest,
    );

    let built_in: Vec<_>;
    let roots = match policy {
        Some(policy) => policy.roots.as_slice(),
        None => {
            built_in = aws_root().into_iter().collect();
            &built_in
        }
    };
    let chain = chain::verify(checks, &document, input, roots);
    if let Some(chain) = &chain {
        let verifies = chain
            .leaf
            .verifies(&document.signed_bytes(), document.signature);
        let seen = if verifies {
            "verifies"
        } else {
            "does not verify"
        };
        checks.record("document signature", verifies, "verifies", seen);
    }
    reference::check_launch(checks, &document);
    reference::check(checks, policy, &document, input.asked);
    let Expected { report_data, nonce } = &input.expected;
    let report_data = report_data.as_ref().map(<[u8; 64]>::as_slice);
    check_field(checks, "report data", document.user_data, report_data);
    let nonce = nonce.as_ref().map(ReportNonce::as_bytes);
    check_field(checks, "nonce", document.nonce, nonce);

    let chain = chain?;
    let since_epoch = Duration::from_millis(document.timestamp_ms);
    Some(Claims {
        root: chain.root,
        module_id: document.module_id.to_owned(),
        timestamp: UNIX_EPOCH.checked_add(since_epoch)?,
        public_key: document.public_key.map(<[u8]>::to_vec),
        not_after: chain.not_after,
        pcrs: document.pcrs,
    })
}

/// Compares a field that the enclave chose; one that is left out is equal to nothing.
fn check_field(
    checks: &mut Checks,
    name: &'static str,
    field: Option<&[u8]>,
    expected: Option<&[u8]>,
) {
    let seen = field.map_or_else(|| "none".to_owned(), hex::encode);
    checks.against(
        name,
        expected,
        &format!("a {name} to compare with"),
        seen,
        |expected| {
            let equal = field.is_some_and(|field| field.ct_eq(expected).into());
            (equal, hex::encode(expected))
        },
    );
}
