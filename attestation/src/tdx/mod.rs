//! Intel TDX: quotes, Intel's collateral, and their appraisal.
//!
//! A quote is believed if its signature verifies over the bytes as received; Intel's certificates,
//! revocation lists, TCB info and QE identity vouch for the key behind it up to a root that the
//! policy trusts (`dcap-qvl`, on aws-lc-rs); and TD and platform agree with the policy. Collateral
//! comes from the verifier's bundle or with the evidence, and is verified each time. Event logs are
//! not replayed: RTMRs are compared as they are.

mod chain;
mod collateral;
mod policy;
mod propose;
mod provider;
pub mod quote;
mod reference;
mod revocation;
mod roots;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use dcap_qvl::QuoteClaims;
use serde::Deserialize;
use subtle::ConstantTimeEq;

pub use collateral::MAX_TDX_COLLATERAL;
pub(crate) use policy::Section;
pub use policy::TdxPolicy;
pub(crate) use propose::propose;
pub use quote::{Header, MAX_QUOTE, Quote, QuoteError, TdReport};

use crate::check::Checks;
use crate::claims::Root;
use crate::input::Input;
use crate::tdx::chain::{Chain, intel_root};
use crate::tdx::quote::{ECDSA_P256, INTEL_QE_VENDOR, TEE_TYPE_TDX};

/// What a quote says, once everything it rests on has been looked at. Worth something only if no
/// check failed.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Where the certificates chain to.
    pub root: Root,
    /// What is said of the TD.
    pub report: Box<TdReport>,
    /// The platform's family (FMSPC).
    pub fmspc: [u8; 6],
    /// The platform's identity (PPID), 16 bytes.
    pub ppid: Vec<u8>,
    /// How the platform stands against Intel's TCB info.
    pub tcb_status: TcbStatus,
    /// Intel's advisories that explain the status.
    pub advisories: Vec<String>,
    /// The lower number of TCB info and QE identity.
    pub tcb_evaluation_number: u32,
    /// When the first of the certificates and pieces of collateral ends.
    pub not_after: SystemTime,
}

/// How a platform stands against Intel's TCB info. A policy can name only those that do not mean an
/// old or a revoked platform.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub enum TcbStatus {
    /// Nothing is missing.
    UpToDate,
    /// Software in the TD must mitigate something.
    #[serde(rename = "SWHardeningNeeded")]
    SwHardeningNeeded,
    /// The platform can be configured so that something is not mitigated.
    ConfigurationNeeded,
    /// Both of these.
    #[serde(rename = "ConfigurationAndSWHardeningNeeded")]
    ConfigurationAndSwHardeningNeeded,
    /// Firmware or microcode is too old.
    #[serde(skip_deserializing)]
    OutOfDate,
    /// Too old, and see [`TcbStatus::ConfigurationNeeded`].
    #[serde(skip_deserializing)]
    OutOfDateConfigurationNeeded,
    /// The TD was launched by a module that was too old; the one that runs now is not.
    #[serde(skip_deserializing)]
    TdRelaunchAdvised,
    /// That, and see [`TcbStatus::ConfigurationNeeded`].
    #[serde(skip_deserializing)]
    TdRelaunchAdvisedConfigurationNeeded,
    /// The platform's keys are not trusted any more.
    #[serde(skip_deserializing)]
    Revoked,
}

impl TcbStatus {
    /// Intel's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::TdRelaunchAdvised => "TDRelaunchAdvised",
            Self::TdRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
            Self::Revoked => "Revoked",
        }
    }

    /// Whether advisories say what software must mitigate.
    fn is_hardening_needed(self) -> bool {
        matches!(
            self,
            Self::SwHardeningNeeded | Self::ConfigurationAndSwHardeningNeeded
        )
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<dcap_qvl::TcbStatus> for TcbStatus {
    fn from(status: dcap_qvl::TcbStatus) -> Self {
        use dcap_qvl::TcbStatus as Qvl;
        match status {
            Qvl::UpToDate => Self::UpToDate,
            Qvl::SWHardeningNeeded => Self::SwHardeningNeeded,
            Qvl::ConfigurationNeeded => Self::ConfigurationNeeded,
            Qvl::ConfigurationAndSWHardeningNeeded => Self::ConfigurationAndSwHardeningNeeded,
            Qvl::OutOfDate => Self::OutOfDate,
            Qvl::OutOfDateConfigurationNeeded => Self::OutOfDateConfigurationNeeded,
            Qvl::TDRelaunchAdvised => Self::TdRelaunchAdvised,
            Qvl::TDRelaunchAdvisedConfigurationNeeded => Self::TdRelaunchAdvisedConfigurationNeeded,
            Qvl::Revoked => Self::Revoked,
        }
    }
}

/// Makes every check that can be made. Claims do not mean that all passed: `checks` does.
pub(crate) fn run(
    checks: &mut Checks,
    input: &Input<'_>,
    policy: Option<&TdxPolicy>,
) -> Option<Claims> {
    let quote = parse(checks, input.report)?;
    let report = &quote.report;
    check_signature(checks, &quote);
    reference::check_td(checks, report);

    let built_in;
    let roots = match policy {
        Some(policy) => policy.roots.as_slice(),
        None => {
            built_in = intel_root();
            built_in.as_slice()
        }
    };
    let chain = chain::read(checks, quote.pck_chain, roots, input.now);
    let endorsed = chain.as_ref().and_then(|chain| {
        let claims = check_endorsements(checks, input, chain)?;
        reference::check_platform(checks, policy, &claims);
        Some((chain.root.kind(), claims))
    });
    reference::check_report(checks, policy, report);
    check_report_data(checks, report, input.expected.report_data);

    let (root, claims) = endorsed?;
    let not_after = Duration::from_secs(claims.earliest_expiration_date);
    Some(Claims {
        root,
        report: Box::new(quote.report),
        tcb_status: claims.tcb.status.into(),
        advisories: reference::advisories(&claims),
        fmspc: claims.platform.pck.fmspc,
        ppid: claims.platform.pck.ppid,
        tcb_evaluation_number: claims.tcb.eval_data_number,
        // A time that cannot be told has ended.
        not_after: UNIX_EPOCH.checked_add(not_after).unwrap_or(UNIX_EPOCH),
    })
}

fn parse<'a>(checks: &mut Checks, bytes: &'a [u8]) -> Option<Quote<'a>> {
    let header = Header::parse(bytes).map(|header| (header, format!("{} bytes", bytes.len())));
    let header = checks.step("quote header", "48 bytes", header)?;
    checks.record(
        "TEE type",
        header.tee_type == TEE_TYPE_TDX,
        "0x81 (TDX)",
        match header.tee_type {
            0 => "0x0 (SGX)".to_owned(),
            other => format!("{other:#x}"),
        },
    );
    checks.record(
        "quote version",
        matches!(header.version, 4 | 5),
        "4 or 5",
        header.version.to_string(),
    );
    checks.record(
        "attestation key type",
        header.attestation_key_type == ECDSA_P256,
        "2 (ECDSA P-256)",
        header.attestation_key_type.to_string(),
    );
    checks.record(
        "QE vendor",
        header.qe_vendor == INTEL_QE_VENDOR,
        format!("{} (Intel)", hex::encode(INTEL_QE_VENDOR)),
        hex::encode(header.qe_vendor),
    );
    let quote = Quote::parse(bytes).map(|quote| {
        let body = if quote.report.current.is_some() {
            "1.5"
        } else {
            "1.0"
        };
        (quote, format!("{} bytes, TD report {body}", bytes.len()))
    });
    checks.step(
        "quote",
        "TD report and signature data, each of its exact length",
        quote,
    )
}

fn check_signature(checks: &mut Checks, quote: &Quote<'_>) {
    const UNCOMPRESSED: u8 = 4;
    let key = [&[UNCOMPRESSED], quote.attestation_key.as_slice()].concat();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key);
    let passed = key.verify(quote.signed, &quote.signature).is_ok();
    let seen = if passed {
        "verifies"
    } else {
        "does not verify"
    };
    checks.record("quote signature", passed, "verifies", seen);
}

/// Chooses collateral, and verifies that it and the certificates vouch for the quote.
fn check_endorsements(
    checks: &mut Checks,
    input: &Input<'_>,
    chain: &Chain<'_>,
) -> Option<QuoteClaims> {
    let mut collateral = collateral::choose(checks, input, &chain.certificates)?;
    let signers = collateral::signers(&collateral);
    collateral.pck_certificate_chain = Some(chain.certificates.pem.clone());
    let now = input.now.duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let verified = provider::verify(input.report, collateral, chain.root.der(), now);
    let verified = verified.map(|claims| {
        let seen = format!(
            "{}, TCB of {}",
            hex::encode(&claims.platform.pck.ppid),
            claims.platform.tcb_level.tcb_date
        );
        (claims, seen)
    });
    let claims = checks.step(
        "endorsements",
        "certificates, revocation lists, TCB info and QE identity vouch for the quote",
        verified,
    )?;
    revocation::check(checks, input, chain, signers.as_ref());
    Some(claims)
}

fn check_report_data(checks: &mut Checks, report: &TdReport, expected: Option<[u8; 64]>) {
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
