//! Where evidence comes from.

use std::sync::Arc;

use attestation::{EvidenceItem, software_root::SoftwareRootError};

use crate::config::{
    ConfigError, Loaded,
    node::{EvidenceConfig, NodeConfig},
};

mod software;

pub use software::SOFTWARE_MEASUREMENT;

/// Something that signs report data as the hardware does.
///
/// Asking may take as long as the hardware takes: callers ask on a thread that may block.
pub(super) trait EvidenceSource: Send + Sync {
    /// A report over `report_data`, with the certificates behind it.
    ///
    /// # Errors
    /// [`EvidenceError`] if the source gives no report.
    fn evidence(&self, report_data: &[u8; 64]) -> Result<EvidenceItem, EvidenceError>;
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file of the source cannot be read.
    #[error(transparent)]
    Read(#[from] ConfigError),
    /// The software root is unusable or refuses to sign.
    #[error("software root: {0}")]
    SoftwareRoot(#[from] SoftwareRootError),
}

/// Opens the source that the configuration names.
///
/// # Errors
/// [`EvidenceError`] if it cannot be used.
pub(super) fn open(config: &Loaded<NodeConfig>) -> Result<Arc<dyn EvidenceSource>, EvidenceError> {
    match &config.value.evidence {
        EvidenceConfig::SoftwareRoot { dir } => {
            let signer = software::open(&config.resolve(dir))?;
            tracing::warn!("evidence by a software root: no hardware protects this node");
            Ok(Arc::new(signer))
        }
    }
}
