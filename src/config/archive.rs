//! Where a gateway keeps the evidence that it judged.

use std::{num::NonZeroU64, path::PathBuf};

use serde::Deserialize;

use super::{ConfigError, Loaded, gateway::GatewayConfig};

/// Least room for evidence: a few of the longest answers.
const MIN_BYTES: u64 = 16 << 20;

/// Where evidence is kept, and how much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// The folder, for one gateway alone; it is made if it is not there.
    pub dir: PathBuf,
    /// Bytes of evidence that are kept; the oldest goes first.
    #[serde(default = "ArchiveConfig::default_max_bytes")]
    pub max_bytes: NonZeroU64,
    /// Whether an appraisal that cannot be written down counts as failed.
    #[serde(default)]
    pub required: bool,
}

impl ArchiveConfig {
    fn default_max_bytes() -> NonZeroU64 {
        NonZeroU64::MIN.saturating_add((1 << 30) - 1)
    }
}

/// Checks what no type can say.
///
/// # Errors
/// [`ConfigError::Invalid`] names the key.
pub(super) fn check(config: &Loaded<GatewayConfig>) -> Result<(), ConfigError> {
    match &config.value.archive {
        Some(archive) if archive.max_bytes.get() < MIN_BYTES => {
            let message = format!("at least {MIN_BYTES}");
            Err(config.invalid("archive.max_bytes", message))
        }
        _ => Ok(()),
    }
}
