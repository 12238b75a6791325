//! NVIDIA GPUs, through the driver's management library (NVML), which is loaded when it is asked for.
//!
//! NVML's attestation report is the SPDM request followed by the response, as the driver exchanged
//! them with the GPU: NVIDIA's own verifier parses it so, and so are the recorded reports that the
//! verifier here is tested with. Nothing is put before it or taken from it.

use std::{
    fmt,
    path::{Path, PathBuf},
    thread,
};

use attestation::{Collateral, EvidenceItem, EvidenceKind, answer::MAX_ITEMS};
use nvml_wrapper::{Nvml, error::NvmlError};
use x509_cert::{Certificate, der::Decode as _};

use super::{DeviceSource, EvidenceError, pem};

/// Most GPUs of one node: what an answer can hold beside the CPU.
const MAX_GPUS: u32 = MAX_ITEMS as u32 - 1;
/// An SPDM GET_MEASUREMENTS request, which stands before the response: version, code, two
/// parameters, the nonce of 32 bytes, the slot (DSP0274, "GET_MEASUREMENTS").
const SPDM_REQUEST_LEN: usize = 37;
const NONCE_AT: usize = 4;

/// Why there are no reports of GPUs.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The library is not there, or finds no driver.
    #[error(
        "{}: {}: the NVIDIA driver's library is needed; with it in another place, set `library`",
        library.display(),
        of_library(source)
    )]
    Library {
        /// The library.
        library: PathBuf,
        /// What the loader or the library says.
        source: NvmlError,
    },
    /// The library refuses.
    #[error("{what}: {source}")]
    Nvml {
        /// What was asked for.
        what: &'static str,
        /// What the library says.
        source: NvmlError,
    },
    /// There is no GPU, or more than an answer can hold.
    #[error("{0} GPUs; 1 to {MAX_GPUS} are served")]
    Count(u32),
    /// Confidential computing is off.
    #[error(
        "confidential computing is off: the host sets it (NVIDIA's deployment guide, \
         `sealgate doctor`)"
    )]
    Off,
    /// The library cannot say how it is set.
    #[error(
        "how confidential computing is set is not known: {0}: a driver of version 550 or newer \
         says it"
    )]
    Unknown(NvmlError),
    /// It is on, for developers, with everything open to the host.
    #[error(
        "confidential computing is in developers' mode, which protects nothing: the host sets it \
         (NVIDIA's deployment guide, `sealgate doctor`)"
    )]
    DeveloperMode,
    /// One GPU gives no report.
    #[error("GPU {index}: {source}")]
    Report {
        /// Its number, from 0.
        index: u32,
        /// What the library says.
        source: NvmlError,
    },
    /// A report that answers another nonce.
    #[error("GPU {0}: its report does not begin with a request for our nonce")]
    Nonce(u32),
    /// No certificate came with a report.
    #[error("GPU {0}: no certificate chain")]
    NoCertificates(u32),
    /// The library broke down.
    #[error("GPU {0}: the library broke down")]
    Panicked(u32),
}

/// What the library is asked, so that a test can be the GPUs.
pub(super) trait Gpus: fmt::Debug + Send + Sync {
    fn count(&self) -> Result<u32, NvmlError>;
    /// Whether confidential computing is on.
    fn is_confidential(&self) -> Result<bool, NvmlError>;
    /// Whether that is developers' mode, which a Hopper GPU's report does not tell.
    fn is_developer_mode(&self) -> Result<bool, NvmlError>;
    /// The report of one GPU.
    fn report(&self, index: u32, nonce: &[u8; 32]) -> Result<Vec<u8>, NvmlError>;
    /// The certificates of the key that signs it, in PEM.
    fn chain(&self, index: u32) -> Result<Vec<u8>, NvmlError>;
}

impl Gpus for Nvml {
    fn count(&self) -> Result<u32, NvmlError> {
        self.device_count()
    }

    fn is_confidential(&self) -> Result<bool, NvmlError> {
        let device = self.device_by_index(0)?;
        // Under Protected PCIe the GPUs of one machine are confidential together.
        Ok(device.is_cc_enabled()? || device.is_multi_gpu_protected_pcie_enabled()?)
    }

    fn is_developer_mode(&self) -> Result<bool, NvmlError> {
        self.device_by_index(0)?.is_cc_dev_mode_enabled()
    }

    fn report(&self, index: u32, nonce: &[u8; 32]) -> Result<Vec<u8>, NvmlError> {
        let device = self.device_by_index(index)?;
        let report = device.confidential_compute_gpu_attestation_report(*nonce)?;
        Ok(report.attestation_report)
    }

    fn chain(&self, index: u32) -> Result<Vec<u8>, NvmlError> {
        let device = self.device_by_index(index)?;
        Ok(device
            .confidential_compute_gpu_certificate()?
            .attestation_cert_chain)
    }
}

/// Every GPU of the machine.
#[derive(Debug)]
pub(super) struct GpuSource<G = Nvml> {
    gpus: G,
    count: u32,
}

impl GpuSource {
    /// Loads the library and looks at the GPUs.
    ///
    /// # Errors
    /// [`GpuError`] says what is missing.
    pub(super) fn open(library: &Path) -> Result<Self, GpuError> {
        Self::new(load(library)?)
    }
}

/// A loader's own words name the library again, and again.
fn of_library(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(_) => "cannot be loaded".to_owned(),
        other => other.to_string(),
    }
}

fn load(library: &Path) -> Result<Nvml, GpuError> {
    let loaded = Nvml::builder().lib_path(library.as_os_str()).init();
    loaded.map_err(|source| GpuError::Library {
        library: library.to_owned(),
        source,
    })
}

impl<G: Gpus> GpuSource<G> {
    fn new(gpus: G) -> Result<Self, GpuError> {
        let what = "the number of GPUs";
        let count = gpus
            .count()
            .map_err(|source| GpuError::Nvml { what, source })?;
        if !(1..=MAX_GPUS).contains(&count) {
            return Err(GpuError::Count(count));
        }
        if !gpus.is_confidential().map_err(GpuError::Unknown)? {
            return Err(GpuError::Off);
        }
        if gpus.is_developer_mode().map_err(GpuError::Unknown)? {
            return Err(GpuError::DeveloperMode);
        }
        Ok(Self { gpus, count })
    }

    fn item(&self, index: u32, nonce: &[u8; 32]) -> Result<EvidenceItem, GpuError> {
        let failed = |source| GpuError::Report { index, source };
        let report = self.gpus.report(index, nonce).map_err(failed)?;
        let asked = report.get(..SPDM_REQUEST_LEN);
        if asked.and_then(|it| it.get(NONCE_AT..NONCE_AT + nonce.len())) != Some(&nonce[..]) {
            return Err(GpuError::Nonce(index));
        }
        let chain = self.gpus.chain(index).map_err(failed)?;
        let mut certificates = pem::certificates(&chain);
        if certificates.last().is_some_and(|last| is_self_issued(last)) {
            certificates.pop();
        }
        if certificates.is_empty() {
            return Err(GpuError::NoCertificates(index));
        }
        Ok(EvidenceItem {
            kind: EvidenceKind::NvidiaGpu,
            report,
            certificates,
            collateral: Collateral::default(),
        })
    }
}

impl<G: Gpus> DeviceSource for GpuSource<G> {
    /// The GPUs work side by side: one alone takes a good part of a second.
    fn evidence(&self, nonce: &[u8; 32]) -> Result<Vec<EvidenceItem>, EvidenceError> {
        let items: Result<Vec<_>, _> = thread::scope(|scope| {
            let asked: Vec<_> = (0..self.count)
                .map(|index| (index, scope.spawn(move || self.item(index, nonce))))
                .collect();
            let ended = asked.into_iter().map(|(index, asked)| {
                let ended = asked.join();
                ended.unwrap_or(Err(GpuError::Panicked(index)))
            });
            ended.collect()
        });
        Ok(items?)
    }
}

/// Whether a certificate names itself as its issuer, as roots do.
fn is_self_issued(der: &[u8]) -> bool {
    Certificate::from_der(der).is_ok_and(|certificate| {
        let certificate = certificate.tbs_certificate();
        certificate.issuer() == certificate.subject()
    })
}

/// What the library says of a machine's GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuSurvey {
    /// The driver's version.
    pub driver: String,
    /// Each GPU's name and the version of its VBIOS.
    pub gpus: Vec<String>,
    /// Whether confidential computing is on, and how; the error where the library cannot say it.
    pub confidential: Result<ConfidentialState, String>,
}

/// How the GPUs' confidential computing is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfidentialState {
    /// Whether it is on.
    pub is_on: bool,
    /// Whether it is in developers' mode, which protects nothing.
    pub is_developer_mode: bool,
    /// Whether the GPUs take work; it must be allowed after each boot.
    pub is_ready: bool,
}

/// Asks the library at `library` what is there.
///
/// # Errors
/// [`GpuError`] if the library is not there, or finds no driver.
pub fn survey(library: &Path) -> Result<GpuSurvey, GpuError> {
    let nvml = load(library)?;
    let failed = |what| move |source| GpuError::Nvml { what, source };
    let driver = nvml.sys_driver_version();
    let driver = driver.map_err(failed("the driver's version"))?;
    let count = nvml.device_count().map_err(failed("the number of GPUs"))?;
    let unknown = |error: NvmlError| format!("({error})");
    let gpus = (0..count.min(MAX_GPUS)).map(|index| {
        let device = nvml.device_by_index(index);
        device.map_or_else(unknown, |device| {
            let name = device.name().unwrap_or_else(unknown);
            let vbios = device.vbios_version().unwrap_or_else(unknown);
            format!("{name}, VBIOS {vbios}")
        })
    });
    let gpus = gpus.collect();
    let confidential = nvml.device_by_index(0).and_then(|device| {
        let is_on = nvml.is_confidential()?;
        Ok(ConfidentialState {
            is_on,
            is_developer_mode: nvml.is_developer_mode()?,
            is_ready: is_on && device.get_confidential_compute_state()?,
        })
    });
    Ok(GpuSurvey {
        driver,
        gpus,
        confidential: confidential.map_err(|error| error.to_string()),
    })
}

/// The name of the library as the driver installs it.
pub const LIBRARY: &str = "libnvidia-ml.so.1";

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &[u8] =
        include_bytes!("../../../attestation/tests/data/nvidia/hopper/report.bin");
    const CHAIN: &[u8] =
        include_bytes!("../../../attestation/tests/data/nvidia/hopper/cert_chain.pem");

    /// GPUs that answer as a recorded one did.
    #[derive(Debug)]
    struct Recorded {
        count: u32,
        confidential: fn() -> Result<bool, NvmlError>,
        developer_mode: fn() -> Result<bool, NvmlError>,
        report: fn(u32) -> Result<Vec<u8>, NvmlError>,
        chain: &'static [u8],
    }

    impl Recorded {
        fn new(count: u32) -> Self {
            Self {
                count,
                confidential: || Ok(true),
                developer_mode: || Ok(false),
                // The last byte tells one from the other.
                report: |index| {
                    let mut report = REPORT.to_vec();
                    report.push(u8::try_from(index).unwrap());
                    Ok(report)
                },
                chain: CHAIN,
            }
        }
    }

    impl Gpus for Recorded {
        fn count(&self) -> Result<u32, NvmlError> {
            Ok(self.count)
        }

        fn is_confidential(&self) -> Result<bool, NvmlError> {
            (self.confidential)()
        }

        fn is_developer_mode(&self) -> Result<bool, NvmlError> {
            (self.developer_mode)()
        }

        fn report(&self, index: u32, _: &[u8; 32]) -> Result<Vec<u8>, NvmlError> {
            (self.report)(index)
        }

        fn chain(&self, _: u32) -> Result<Vec<u8>, NvmlError> {
            Ok(self.chain.to_vec())
        }
    }

    /// The nonce that the recorded report answers.
    fn nonce() -> [u8; 32] {
        REPORT[NONCE_AT..NONCE_AT + 32].try_into().unwrap()
    }

    #[test]
    fn every_gpu_reports_with_its_chain_and_without_the_root() {
        let source = GpuSource::new(Recorded::new(3)).unwrap();
        let items = source.evidence(&nonce()).unwrap();
        assert_eq!(items.len(), 3);
        let chain = pem::certificates(CHAIN);
        assert_eq!(chain.len(), 5);
        for (index, item) in items.iter().enumerate() {
            assert_eq!(item.kind, EvidenceKind::NvidiaGpu);
            assert_eq!(item.report[..REPORT.len()], *REPORT);
            assert_eq!(usize::from(*item.report.last().unwrap()), index);
            assert_eq!(item.certificates, chain[..4]);
        }
    }

    #[test]
    fn a_chain_without_its_root_stays_as_it_is() {
        let text = std::str::from_utf8(CHAIN).unwrap();
        let root = text.rfind("-----BEGIN CERTIFICATE-----").unwrap();
        let source = GpuSource::new(Recorded {
            chain: &CHAIN[..root],
            ..Recorded::new(1)
        });
        let items = source.unwrap().evidence(&nonce()).unwrap();
        assert_eq!(items[0].certificates, pem::certificates(CHAIN)[..4]);
    }

    #[test]
    fn what_is_missing_at_start_is_named() {
        let opened = |gpus| GpuSource::new(gpus).map_err(|error| error.to_string());
        for count in [1, MAX_GPUS] {
            assert!(opened(Recorded::new(count)).is_ok(), "{count}");
        }
        for count in [0, MAX_GPUS + 1] {
            let error = opened(Recorded::new(count)).unwrap_err();
            assert!(error.starts_with(&format!("{count} GPUs")), "{error}");
        }
        let off = opened(Recorded {
            confidential: || Ok(false),
            ..Recorded::new(1)
        });
        assert!(off.unwrap_err().contains("confidential computing is off"));
        let developers = opened(Recorded {
            developer_mode: || Ok(true),
            ..Recorded::new(1)
        });
        assert!(developers.unwrap_err().contains("developers' mode"));
        let unknown: [fn(&mut Recorded); 2] = [
            |gpus| gpus.confidential = || Err(NvmlError::NotSupported),
            |gpus| gpus.developer_mode = || Err(NvmlError::NotSupported),
        ];
        for unknown in unknown {
            let mut gpus = Recorded::new(1);
            unknown(&mut gpus);
            assert!(opened(gpus).unwrap_err().contains("is not known"));
        }
    }

    #[test]
    fn a_gpu_that_gives_no_good_report_is_named() {
        let asked = |gpus, nonce: [u8; 32]| {
            let source = GpuSource::new(gpus).unwrap();
            source.evidence(&nonce).unwrap_err().to_string()
        };
        let failing = Recorded {
            report: |index| match index {
                0 => Ok(REPORT.to_vec()),
                _ => Err(NvmlError::NotSupported),
            },
            ..Recorded::new(2)
        };
        assert!(asked(failing, nonce()).starts_with("nvml: GPU 1: "));
        let broken = Recorded {
            report: |_| panic!("a size beyond the buffer"),
            ..Recorded::new(1)
        };
        assert!(asked(broken, nonce()).contains("broke down"));
        let short = Recorded {
            report: |_| Ok(REPORT[..SPDM_REQUEST_LEN - 1].to_vec()),
            ..Recorded::new(1)
        };
        assert!(asked(short, nonce()).contains("our nonce"));
        let mut other = nonce();
        other[31] ^= 1;
        assert!(asked(Recorded::new(1), other).contains("our nonce"));
        let root = &CHAIN[std::str::from_utf8(CHAIN)
            .unwrap()
            .rfind("-----BEGIN")
            .unwrap()..];
        for chain in [&b""[..], root] {
            let bare = Recorded {
                chain,
                ..Recorded::new(1)
            };
            assert!(asked(bare, nonce()).contains("no certificate chain"));
        }
    }

    #[test]
    fn an_absent_library_is_named() {
        let error = survey(Path::new("libthere-is-no-such.so.1")).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("libthere-is-no-such.so.1"), "{error}");
    }
}
