//! Evidence signed by a software root: the real formats, no protection by hardware.

use std::path::Path;

use attestation::{EvidenceItem, software_root::SoftwareSigner};

use super::{CpuSource, EvidenceError, Question};
use crate::config;

/// What stands in the evidence of a software root where hardware puts the launch digest. A policy
/// for such a node lists it.
pub const SOFTWARE_MEASUREMENT: [u8; 48] = *b"sealgate software root: no launch was measured..";

impl CpuSource for SoftwareSigner {
    fn evidence(&self, question: &Question) -> Result<EvidenceItem, EvidenceError> {
        Ok(self.evidence(question.report_data, SOFTWARE_MEASUREMENT)?)
    }
}

/// Opens the folder that holds a software root.
///
/// # Errors
/// [`EvidenceError`] names the file that is missing or unusable.
pub(super) fn open(dir: &Path) -> Result<SoftwareSigner, EvidenceError> {
    let key = config::read_secret(&dir.join("vcek.key"))?;
    let key = std::str::from_utf8(&key).unwrap_or_default();
    let vcek = config::read_text(&dir.join("vcek.pem"))?;
    let ask = config::read_text(&dir.join("ask.pem"))?;
    Ok(SoftwareSigner::from_pem(key, &vcek, &ask)?)
}
