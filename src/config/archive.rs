//! Where a gateway keeps the evidence that it judged.

use std::{num::NonZeroU64, path::PathBuf};

use serde::Deserialize;

use super::{ConfigError, Loaded, gateway::GatewayConfig};

/// The folder of evidence in an archive.
pub(crate) const EVIDENCE: &str = "evidence";
/// The log of verdicts, a line of JSON each (docs/architecture.md, "Appraisals").
pub(crate) const LOG: &str = "appraisals.jsonl";
/// The log before it.
pub(crate) const OLD_LOG: &str = "appraisals.1.jsonl";

/// Least room for evidence: a few of the longest answers.
const MIN_BYTES: u64 = 16 << 20;
/// Least room for one node's evidence: the longest answer.
const MIN_BYTES_PER_NODE: u64 = 1 << 20;

/// Where evidence is kept, and how much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// The folder, for one gateway alone; it is made if it is not there.
    pub dir: PathBuf,
    /// Bytes of evidence that are kept. When it is too much, the oldest goes of the node that has
    /// most there.
    #[serde(default = "ArchiveConfig::default_max_bytes")]
    pub max_bytes: NonZeroU64,
    /// Bytes of accepted evidence that are kept of one node; left out, what the others leave it.
    #[serde(default)]
    pub max_bytes_per_node: Option<NonZeroU64>,
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
    let Some(archive) = &config.value.archive else {
        return Ok(());
    };
    let least = |key, min| Err(config.invalid(key, format!("at least {min}")));
    if archive.max_bytes.get() < MIN_BYTES {
        return least("archive.max_bytes", MIN_BYTES);
    }
    match archive.max_bytes_per_node {
        Some(bytes) if bytes.get() < MIN_BYTES_PER_NODE => {
            least("archive.max_bytes_per_node", MIN_BYTES_PER_NODE)
        }
        _ => Ok(()),
    }
}
