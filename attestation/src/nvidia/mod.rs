//! NVIDIA GPUs and switches: SPDM reports, their certificates, golden measurements, and their
//! appraisal.

mod golden;

use std::io;
use std::time::SystemTime;

use serde::Deserialize;

pub use golden::{GoldenError, GoldenMeasurement, GoldenMeasurements};

use crate::answer::EvidenceKind;
use crate::check::Checks;
use crate::claims::Root;
use crate::input::Input;
use crate::policy::PolicyError;

/// Reference values for devices' evidence.
#[derive(Clone, Debug)]
pub struct NvidiaPolicy {}

/// The `[nvidia]` table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {}

impl Section {
    pub(crate) fn load(
        self,
        _read_file: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
        _digests: &mut Vec<[u8; 32]>,
    ) -> Result<NvidiaPolicy, PolicyError> {
        Ok(NvidiaPolicy {})
    }
}

/// What one device's report says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// A GPU or a switch.
    pub kind: EvidenceKind,
    /// Where the certificates chain to.
    pub root: Root,
    /// When the first of the certificates and pieces of collateral ends.
    pub not_after: SystemTime,
}

/// Appraises one device.
pub(crate) fn run(
    checks: &mut Checks,
    kind: EvidenceKind,
    _input: &Input<'_>,
    _policy: Option<&NvidiaPolicy>,
) -> Option<Claims> {
    checks.record("TEE", false, "one that is supported", kind.as_str());
    None
}

/// Appraises the devices of one machine together: how many, of which kinds, and that they fit.
pub(crate) fn check_set(
    checks: &mut Checks,
    items: &[EvidenceKind],
    _devices: &[Claims],
    _policy: Option<&NvidiaPolicy>,
) {
    checks.record("devices", items.is_empty(), "none", items.len().to_string());
}
