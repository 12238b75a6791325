//! `[evidence]`: where a node's evidence comes from, and what goes out beside it.

use std::{num::NonZeroU64, path::PathBuf};

use attestation::collateral::MAX_PIECES;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::config::{ConfigError, Loaded};

/// Where a node's evidence comes from.
///
/// A policy sees which kind of evidence a node gives, not under which path this machine has it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "source", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum EvidenceConfig {
    /// A software root made by `sealgate demo`: the SEV-SNP formats, signed by a key on disk.
    SoftwareRoot {
        /// Folder with `vcek.key`, `vcek.pem` and `ask.pem`.
        #[serde(skip_serializing)]
        dir: PathBuf,
        /// Where the GPUs' evidence comes from; left out, the node gives none of GPUs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpus: Option<GpusConfig>,
        /// What vendors sign beside the evidence.
        #[serde(default, skip_serializing)]
        collateral: CollateralConfig,
    },
    /// SEV-SNP or TDX, through the kernel's configfs-tsm (Linux 6.7 or newer).
    ConfigfsTsm {
        /// Where the kernel's entries are made.
        #[serde(default = "EvidenceConfig::default_root", skip_serializing)]
        root: PathBuf,
        /// The VMPL to ask for; left out, the kernel's own.
        #[serde(default, skip_serializing)]
        privlevel: Option<u32>,
        /// SEV-SNP: files with the chip's certificate and AMD's intermediate; left out, the host is
        /// asked for them.
        #[serde(default, skip_serializing)]
        certificates: Vec<PathBuf>,
        /// Where the GPUs' evidence comes from; left out, the node gives none of GPUs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpus: Option<GpusConfig>,
        /// What vendors sign beside the evidence.
        #[serde(default, skip_serializing)]
        collateral: CollateralConfig,
    },
    /// SEV-SNP, through the guest driver's own device.
    SevGuest {
        /// The device.
        #[serde(default = "EvidenceConfig::default_sev_guest", skip_serializing)]
        device: PathBuf,
        /// The VMPL to ask for.
        #[serde(default, skip_serializing)]
        privlevel: u32,
        /// As for `configfs-tsm`.
        #[serde(default, skip_serializing)]
        certificates: Vec<PathBuf>,
        /// Where the GPUs' evidence comes from; left out, the node gives none of GPUs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpus: Option<GpusConfig>,
        /// What vendors sign beside the evidence.
        #[serde(default, skip_serializing)]
        collateral: CollateralConfig,
    },
    /// An AWS Nitro enclave, through its secure module.
    Nitro {
        /// The device.
        #[serde(default = "EvidenceConfig::default_nsm", skip_serializing)]
        device: PathBuf,
        /// What vendors sign beside the evidence.
        #[serde(default, skip_serializing)]
        collateral: CollateralConfig,
    },
}

impl EvidenceConfig {
    /// Most files with certificates.
    const MAX_CERTIFICATES: usize = 8;

    fn default_root() -> PathBuf {
        "/sys/kernel/config/tsm/report".into()
    }

    fn default_sev_guest() -> PathBuf {
        "/dev/sev-guest".into()
    }

    fn default_nsm() -> PathBuf {
        "/dev/nsm".into()
    }

    /// Where the GPUs' evidence comes from. A Nitro enclave has none.
    #[must_use]
    pub fn gpus(&self) -> Option<&GpusConfig> {
        match self {
            Self::SoftwareRoot { gpus, .. }
            | Self::ConfigfsTsm { gpus, .. }
            | Self::SevGuest { gpus, .. } => gpus.as_ref(),
            Self::Nitro { .. } => None,
        }
    }

    /// What vendors sign beside the evidence.
    #[must_use]
    pub fn collateral(&self) -> &CollateralConfig {
        match self {
            Self::SoftwareRoot { collateral, .. }
            | Self::ConfigfsTsm { collateral, .. }
            | Self::SevGuest { collateral, .. }
            | Self::Nitro { collateral, .. } => collateral,
        }
    }

    fn certificates(&self) -> &[PathBuf] {
        match self {
            Self::ConfigfsTsm { certificates, .. } | Self::SevGuest { certificates, .. } => {
                certificates
            }
            Self::SoftwareRoot { .. } | Self::Nitro { .. } => &[],
        }
    }
}

/// Where GPUs' evidence comes from.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "source", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum GpusConfig {
    /// Every NVIDIA GPU of the machine, through the driver's management library.
    Nvml {
        /// The library. It is pinned with the rest: what is loaded into the node sees prompts.
        #[serde(default = "GpusConfig::default_library")]
        library: PathBuf,
    },
}

impl GpusConfig {
    fn default_library() -> PathBuf {
        "libnvidia-ml.so.1".into()
    }
}

/// Files with what vendors sign beside the evidence. It is checked by whoever appraises.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollateralConfig {
    /// AMD's certificate revocation lists, DER or PEM, for SEV-SNP.
    pub amd_crls: Vec<PathBuf>,
    /// Intel's collateral for a platform, each the JSON of docs/wire.md, "Collateral", for TDX.
    pub tdx: Vec<PathBuf>,
    /// OCSP responses, DER, for GPUs.
    pub ocsp: Vec<PathBuf>,
    /// Seconds between two readings of the files.
    #[serde(deserialize_with = "CollateralConfig::reread_s")]
    pub reread_s: NonZeroU64,
}

impl CollateralConfig {
    /// Names the key, which the parser no longer knows inside a table with a `source`.
    fn reread_s<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU64, D::Error> {
        let named = |error: D::Error| de::Error::custom(format_args!("reread_s: {error}"));
        NonZeroU64::deserialize(deserializer).map_err(named)
    }
}

impl Default for CollateralConfig {
    fn default() -> Self {
        Self {
            amd_crls: Vec::new(),
            tdx: Vec::new(),
            ocsp: Vec::new(),
            reread_s: NonZeroU64::MIN.saturating_add(5 * 60 - 1),
        }
    }
}

/// Checks that no answer grows past what a verifier reads.
///
/// # Errors
/// [`ConfigError::Invalid`] names the key.
pub(in crate::config) fn check<T>(
    config: &Loaded<T>,
    evidence: &EvidenceConfig,
    section: &str,
) -> Result<(), ConfigError> {
    let CollateralConfig {
        amd_crls,
        tdx,
        ocsp,
        ..
    } = evidence.collateral();
    let lists = [
        (
            "certificates",
            evidence.certificates(),
            EvidenceConfig::MAX_CERTIFICATES,
        ),
        ("collateral.amd_crls", amd_crls, MAX_PIECES),
        ("collateral.tdx", tdx, MAX_PIECES),
        ("collateral.ocsp", ocsp, MAX_PIECES),
    ];
    match lists.iter().find(|(_, files, most)| files.len() > *most) {
        Some((key, _, most)) => {
            Err(config.invalid(&format!("{section}.{key}"), format!("at most {most} files")))
        }
        None => Ok(()),
    }
}
