//! What a policy would say to accept a device.

use crate::answer::EvidenceKind;
use crate::certificate::Certificate;
use crate::nvidia::chain;
use crate::nvidia::device::Device;
use crate::nvidia::report::Report;
use crate::proposal::{Line, Table};

/// Reads a device's report and certificates, and proposes the table that would accept it, with
/// `gpus` of its kind in a machine.
///
/// # Errors
/// What cannot be read.
pub(crate) fn propose(
    kind: EvidenceKind,
    report: &[u8],
    certificates: &[Vec<u8>],
    gpus: usize,
) -> Result<Vec<Table>, String> {
    let report = Report::parse(report).map_err(|error| format!("no device's report: {error}"))?;
    let device = Device::of(kind, &report).map_err(|error| format!("device data: {error}"))?;
    let leaf = certificates.first().ok_or("no certificate")?;
    let leaf = Certificate::parse(leaf).map_err(|error| format!("the certificate: {error}"))?;
    let mut lines = vec![
        root(certificates),
        Line::one(
            "architectures",
            chain::architecture(&leaf),
            "the chip, as its certificate names it",
        ),
        Line::new(
            "minimum_gpus",
            gpus.to_string(),
            "how many GPUs a machine has: one with fewer is refused",
        ),
    ];
    if let Some(mode) = device.mode() {
        lines.push(Line::one(
            "modes",
            mode.as_str(),
            "how the GPU is set up: under ppcie its links are not encrypted",
        ));
    }
    if let Some(driver) = device.driver() {
        lines.push(Line::new(
            "minimum_driver",
            format!("\"{driver}\""),
            "the driver: confirm that no later one mends what you must not live with",
        ));
    }
    Ok(vec![Table::new("nvidia", lines)])
}

fn root(certificates: &[Vec<u8>]) -> Line {
    if chain::names_nvidia(certificates) {
        return Line::new(
            "nvidia_root",
            "true",
            "the certificates name NVIDIA's root, which is built in",
        );
    }
    Line::one(
        "software_roots",
        "software-root.pem",
        "the certificates do not name NVIDIA's root: give the file of the software root, and know \
         that it protects nothing",
    )
}
