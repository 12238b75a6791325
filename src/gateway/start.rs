//! What can keep a gateway from starting, and what is looked at before.

use std::{io, net::SocketAddr, path::PathBuf};

use attestation::PolicyError;

use super::{
    audit::Post,
    files::{keep_tls, sources},
    rules::Reloader,
    self_test::SelfTestError,
    shared::Shared,
};
use crate::{
    admin::{self, AdminError},
    attester::{evidence::EvidenceError, statement::IdentityError},
    clock::Clock,
    config::{
        self, ConfigError, Loaded, bundle::BundleFolderError, gateway::GatewayConfig,
        store::resolved,
    },
    store::{JournalError, StoreError},
    tls,
};

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration, or a file that it names, cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy cannot be used.
    #[error("{}: {source}", path.display())]
    Policy {
        /// The policy's file.
        path: PathBuf,
        /// Why.
        source: PolicyError,
    },
    /// There is no evidence of the gateway's own to be had.
    #[error("attestation.evidence: {0}")]
    Evidence(#[from] EvidenceError),
    /// The gateway's own keys or statement cannot be made.
    #[error("attestation: {0}")]
    Identity(#[from] IdentityError),
    /// The bundle cannot be used.
    #[error("bundle: {0}")]
    Bundle(#[from] BundleFolderError),
    /// The store cannot be used.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// What is not in the store yet cannot be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The verifier is not to be relied on.
    #[error("self-test: {0}: this program must not be used")]
    SelfTest(#[from] SelfTestError),
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl From<AdminError> for StartError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Config(error) => Self::Config(error),
            AdminError::Listen { address, source } => Self::Listen { address, source },
        }
    }
}

/// Reads every file that the configuration names, as a start does, and opens no port.
///
/// # Errors
/// [`StartError`] names what cannot be used.
pub fn check_files(config: &Loaded<GatewayConfig>) -> Result<(), StartError> {
    let rules = Reloader::start(sources(config))?.rules();
    let tls = keep_tls(config, Clock::system())?;
    let ends_at = tls.as_ref().map(tls::Keeper::spki_sha256);
    Shared::read(config, Clock::system(), rules)?.attesting(config, ends_at)?;
    if let Some(store) = config.value.store() {
        Post::read(config, &resolved(config, &store).audit)?;
    }
    admin::check_files(config, config.value.admin.as_ref())?;
    Ok(())
}

/// What has to be known of files that [`check_files`] found nothing wrong with.
#[must_use]
pub fn warnings(config: &Loaded<GatewayConfig>) -> Vec<String> {
    let tls = config.value.tls.as_ref();
    let files = tls.and_then(|tls| config::tls::of_gateway(config, tls).ok());
    let public = files.and_then(|files| tls::warning(&files, Clock::system().now()));
    let of_admin = admin::warnings(config, config.value.admin.as_ref());
    public.into_iter().chain(of_admin).collect()
}
