//! What `sealgate doctor` asks of a machine, in the way in which the node would.

use std::path::Path;

use attestation::{EvidenceKind, Nonce, StatementDigest};

use super::{
    engine::Engine,
    evidence::{ConfigfsError, EvidenceError, Sources, tsm_tee},
};
use crate::config::{
    Loaded,
    node::{EngineUrl, NodeConfig},
};

pub use super::evidence::{ConfidentialState, GpuSurvey, NVML_LIBRARY, survey_gpus as gpus};

/// Whose reports the kernel gives below `root`; an entry is made there and ended.
///
/// # Errors
/// [`ConfigfsError`] if there is no configfs-tsm or the process may not use it.
pub fn tsm_provider(root: &Path) -> Result<EvidenceKind, ConfigfsError> {
    tsm_tee(root).map(EvidenceKind::from)
}

/// The kinds of evidence that a node of this configuration gives here and now.
///
/// # Errors
/// [`EvidenceError`] says which source gives none and what to do.
pub fn evidence(config: &Loaded<NodeConfig>) -> Result<Vec<EvidenceKind>, EvidenceError> {
    let sources = Sources::open(config, &config.value.evidence)?;
    let items = sources.evidence(&StatementDigest::of(b"probe"), &Nonce::from([0; 32]))?;
    Ok(items.iter().map(|item| item.kind).collect())
}

/// The address of each engine of the configuration, with the models that it lists or why it does not.
pub async fn engines(config: &Loaded<NodeConfig>) -> Vec<(String, Result<Vec<String>, String>)> {
    let mut said = Vec::new();
    for engine in &config.value.engines {
        let answer = match &engine.url {
            EngineUrl::Echo => Ok(Vec::new()),
            EngineUrl::Http(base) => match Engine::new(base.clone(), engine, config) {
                Ok(engine) => engine
                    .list_models()
                    .await
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
        };
        said.push((engine.url.to_string(), answer));
    }
    said
}
