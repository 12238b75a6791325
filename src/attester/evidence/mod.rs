//! Where evidence comes from: the CPU, the devices, and what vendors sign beside it.
//!
//! Each source stands behind one small trait and takes its root path or device from the
//! configuration, so that tests can be the hardware. The devices answer first: their reports go
//! into what the CPU's report carries (docs/wire.md, "Binding").

use std::{io, path::PathBuf, sync::Arc, time::Instant};

use attestation::{
    EvidenceItem, Nonce, StatementDigest, binding, software_root::SoftwareRootError,
};

use crate::config::{
    ConfigError, Loaded,
    node::{EvidenceConfig, GpusConfig},
};

mod certificate_table;
mod configfs;
mod delivery;
mod file;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod nitro;
mod nvml;
mod pem;
mod sev_guest;
mod sev_snp;
mod software;
#[cfg(test)]
mod tests;

pub(crate) use self::configfs::tee as tsm_tee;
pub use self::{
    certificate_table::TableError,
    configfs::ConfigfsError,
    nitro::NitroError,
    nvml::{
        ConfidentialState, GpuError, GpuSurvey, LIBRARY as NVML_LIBRARY, survey as survey_gpus,
    },
    sev_guest::GuestDeviceError,
    software::SOFTWARE_MEASUREMENT,
};
#[cfg(test)]
pub(crate) use self::{
    certificate_table::tests::{GUIDS, table},
    configfs::tests::Kernel,
    tests::{milan, tdx_quote},
};
use self::{
    configfs::Configfs, delivery::Delivery, nitro::Nitro, nvml::GpuSource, sev_guest::GuestDevice,
    sev_snp::Certificates,
};

/// What a CPU's report has to carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// The report's user field.
    pub(crate) report_data: [u8; 64],
    /// The asker's nonce, for reports that have a field of its own for it.
    pub(crate) nonce: [u8; 32],
}

/// A CPU whose hardware signs report data.
///
/// Asking may take as long as the hardware takes: callers ask on a thread that may block.
pub(crate) trait CpuSource: Send + Sync {
    /// A report that answers `question`, with the certificates behind it.
    ///
    /// # Errors
    /// [`EvidenceError`] if the source gives no report.
    fn evidence(&self, question: &Question) -> Result<EvidenceItem, EvidenceError>;
}

/// Devices that sign a nonce, each for itself. They may block as a CPU does.
pub(crate) trait DeviceSource: Send + Sync {
    /// A report of every device, in an order that does not change.
    ///
    /// # Errors
    /// [`EvidenceError`] if one of them gives no report.
    fn evidence(&self, nonce: &[u8; 32]) -> Result<Vec<EvidenceItem>, EvidenceError>;
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file of the source cannot be read.
    #[error(transparent)]
    Read(#[from] ConfigError),
    /// A file that the configuration names cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that the configuration names is longer than any of its kind.
    #[error("{}: longer than {limit} bytes", path.display())]
    FileTooLong {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A file of certificates without one.
    #[error("{}: holds no certificate, in PEM or DER", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file of revocation lists without one.
    #[error("{}: holds no revocation list, in PEM or DER", path.display())]
    NoCrl {
        /// The file.
        path: PathBuf,
    },
    /// Certificates, none of which is that of a chip.
    #[error(
        "evidence.certificates: none holds a P-384 key, as the chip's (VCEK or VLEK) does: give \
         that certificate and AMD's intermediate"
    )]
    NoLeaf,
    /// A report that is none.
    #[error("a report of {len} bytes, where {expected} are due")]
    ReportLength {
        /// Its length.
        len: usize,
        /// The length of every report.
        expected: usize,
    },
    /// The host's certificates cannot be read.
    #[error("the host's table of certificates: {0}: give them as files, by `certificates`")]
    Table(#[from] TableError),
    /// configfs-tsm gives no report.
    #[error("configfs-tsm: {0}")]
    Configfs(#[from] ConfigfsError),
    /// `/dev/sev-guest` gives no report.
    #[error("sev-guest: {0}")]
    GuestDevice(#[from] GuestDeviceError),
    /// The Nitro Secure Module gives no document.
    #[error("nitro: {0}")]
    Nitro(#[from] NitroError),
    /// The GPUs give no reports.
    #[error("nvml: {0}")]
    Gpu(#[from] GpuError),
    /// The software root is unusable or refuses to sign.
    #[error("software root: {0}")]
    SoftwareRoot(#[from] SoftwareRootError),
}

/// What to do about a device that does not open.
fn device_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            ": this machine is no such guest, or the driver is not loaded (`sealgate doctor`)"
        }
        io::ErrorKind::PermissionDenied => {
            ": the node's user may not open it (deploy/README.md, \"Access to the hardware\")"
        }
        _ => "",
    }
}

/// All the sources of one process.
pub(crate) struct Sources {
    pub(crate) cpu: Arc<dyn CpuSource>,
    pub(crate) devices: Vec<Box<dyn DeviceSource>>,
    delivery: Delivery,
}

impl Sources {
    /// Opens the sources that the configuration names, and lets each give one report, so that what
    /// cannot attest does not start.
    ///
    /// # Errors
    /// [`EvidenceError`] says what is missing and what to do.
    pub(crate) fn open<T>(
        config: &Loaded<T>,
        evidence: &EvidenceConfig,
    ) -> Result<Self, EvidenceError> {
        let mut devices: Vec<Box<dyn DeviceSource>> = Vec::new();
        if let Some(GpusConfig::Nvml { library }) = evidence.gpus() {
            devices.push(Box::new(GpuSource::open(library)?));
        }
        let sources = Self {
            cpu: cpu(config, evidence)?,
            devices,
            delivery: Delivery::open(config, evidence.collateral(), Instant::now())?,
        };
        // No statement has this digest and nobody asks by this nonce: the trial proves nothing else.
        sources.evidence(&StatementDigest::of(b"trial"), &Nonce::from([0; 32]))?;
        Ok(sources)
    }

    /// Evidence for the statement and the nonce: the CPU's item, then the devices'.
    ///
    /// # Errors
    /// [`EvidenceError`] if one of the sources gives none.
    pub(crate) fn evidence(
        &self,
        statement: &StatementDigest,
        nonce: &Nonce,
    ) -> Result<Vec<EvidenceItem>, EvidenceError> {
        let gpu_nonce = binding::gpu_nonce(statement, nonce);
        let mut devices = Vec::new();
        for source in &self.devices {
            devices.extend(source.evidence(&gpu_nonce)?);
        }
        let reports: Vec<&[u8]> = devices.iter().map(|item| item.report.as_slice()).collect();
        let question = Question {
            report_data: binding::report_data(statement, nonce, &reports),
            nonce: *nonce.as_bytes(),
        };
        let mut evidence = vec![self.cpu.evidence(&question)?];
        evidence.append(&mut devices);
        self.delivery.attach(&mut evidence, Instant::now());
        Ok(evidence)
    }
}

fn cpu<T>(
    config: &Loaded<T>,
    evidence: &EvidenceConfig,
) -> Result<Arc<dyn CpuSource>, EvidenceError> {
    Ok(match evidence {
        EvidenceConfig::SoftwareRoot { dir, .. } => {
            let signer = software::open(&config.resolve(dir))?;
            tracing::warn!("evidence by a software root: no hardware protects this process");
            Arc::new(signer)
        }
        EvidenceConfig::ConfigfsTsm {
            root,
            privlevel,
            certificates,
            ..
        } => {
            let certificates = Certificates::open(config, certificates)?;
            Arc::new(Configfs::new(
                config.resolve(root),
                *privlevel,
                certificates,
            ))
        }
        EvidenceConfig::SevGuest {
            device,
            privlevel,
            certificates,
            ..
        } => {
            let certificates = Certificates::open(config, certificates)?;
            Arc::new(GuestDevice::open(
                &config.resolve(device),
                *privlevel,
                certificates,
            )?)
        }
        EvidenceConfig::Nitro { device, .. } => Arc::new(Nitro::open(&config.resolve(device))?),
    })
}
