//! NVIDIA GPUs and switches: SPDM reports, their certificates, golden measurements, and their
//! appraisal.
//!
//! A report is believed if its signature verifies over the bytes as received, the key's certificate
//! chains to a root that the policy trusts and that calls it good, it answers the nonce, and the
//! firmware measured what NVIDIA's manifests say. Nothing in it ties the device to a CPU: the CPU's
//! report does, by holding the digest of this one.

mod chain;
mod device;
mod fwid;
mod golden;
mod policy;
mod propose;
mod reference;
pub mod report;
mod roots;
mod set;
#[cfg(test)]
mod tests;
mod version;

use std::time::SystemTime;

use subtle::ConstantTimeEq;

pub use chain::with_root;
pub use device::{Mode, SwitchId};
pub use golden::{GoldenError, GoldenMeasurement, GoldenMeasurements};
pub use policy::NvidiaPolicy;
pub(crate) use policy::{ARCHITECTURES, Requirement, Section};
pub(crate) use propose::propose;
pub use report::{Report, ReportError};
pub(crate) use set::{check_set, leave_set_open};

use crate::answer::EvidenceKind;
use crate::check::Checks;
use crate::claims::Root;
use crate::input::{Input, ReportNonce};
use crate::nvidia::chain::{Chain, nvidia_root};
use crate::nvidia::device::Device;

/// What one device's report says, once everything it rests on has been looked at. Worth something
/// only if no check failed.
#[derive(Clone, Debug)]
pub struct Claims {
    /// A GPU or a switch.
    pub kind: EvidenceKind,
    /// Where the certificates chain to.
    pub root: Root,
    /// When the first of the certificates and pieces of collateral ends.
    pub not_after: SystemTime,
    /// The chip, by its certificates: `GH100`.
    pub architecture: String,
    /// A GPU's driver.
    pub driver: Option<String>,
    /// The VBIOS, or a switch's firmware.
    pub vbios: String,
    /// A GPU's mode.
    pub mode: Option<Mode>,
    /// SHA-256 of the public key that the device was made with.
    pub device_key: [u8; 32],
    /// SHA-256 of the public key that signed the report, which changes with the firmware.
    pub leaf_key: [u8; 32],
    /// Of a switch its own id; of a GPU under protected PCIe those of its switches.
    pub switches: Vec<SwitchId>,
}

/// Appraises one device. Claims do not mean that all checks passed: `checks` does.
pub(crate) fn run(
    checks: &mut Checks,
    kind: EvidenceKind,
    input: &Input<'_>,
    policy: Option<&NvidiaPolicy>,
) -> Option<Claims> {
    let report = Report::parse(input.report).map(|report| {
        let measurements = report.measurements.len();
        let seen = format!("{} bytes, {measurements} measurements", input.report.len());
        (report, seen)
    });
    let report = checks.step("report", "a signed SPDM 1.1 report", report)?;
    let built_in;
    let roots = match policy {
        Some(policy) => policy.roots.as_slice(),
        None => {
            built_in = Vec::from_iter(nvidia_root());
            &built_in
        }
    };
    let chain = chain::verify(checks, input.certificates, roots, input.now);
    if let Some(chain) = &chain {
        check_signature(checks, &report, chain);
    }
    check_nonce(checks, &report, input.expected.nonce);
    let device = Device::of(kind, &report).map(|device| {
        let seen = device.describe();
        (device, seen)
    });
    let device = checks.step("device data", "the records of a device of its kind", device);

    let (chain, device) = chain.zip(device)?;
    reference::check_architecture(checks, &chain, kind, policy);
    reference::check_identity(checks, &chain, &device);
    let status_end = reference::check_revocation(checks, &chain, input, policy);
    let architecture = chain.architecture();
    reference::check_measurements(checks, &report, &device, &architecture, input, policy);
    reference::check_policy(checks, &chain, &device, policy);
    Some(Claims {
        kind,
        root: chain.root,
        not_after: chain.not_after.min(status_end.unwrap_or(chain.not_after)),
        architecture,
        driver: device.driver().map(str::to_owned),
        vbios: device.vbios().to_owned(),
        mode: device.mode(),
        device_key: chain.device.key_sha256(),
        leaf_key: chain.leaf.key_sha256(),
        switches: device.switches(),
    })
}

fn check_signature(checks: &mut Checks, report: &Report<'_>, chain: &Chain) {
    let passed = chain.leaf.verifies(report.signed, report.signature);
    let seen = if passed {
        "verifies"
    } else {
        "does not verify"
    };
    checks.record("report signature", passed, "verifies", seen);
}

fn check_nonce(checks: &mut Checks, report: &Report<'_>, expected: Option<ReportNonce>) {
    let seen = hex::encode(report.nonce);
    let needed = "a nonce to compare with";
    checks.against("report nonce", expected, needed, seen, |expected| {
        let expected = expected.as_bytes();
        let equal = report.nonce.as_slice().ct_eq(expected);
        (equal.into(), hex::encode(expected))
    });
}
