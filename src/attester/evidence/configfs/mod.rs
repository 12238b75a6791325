//! configfs-tsm: the kernel's one interface to the reports of SEV-SNP and TDX (Linux 6.7 or newer).
//!
//! Each report gets an entry of its own below the root, so that two who ask at once do not meet.
//! The kernel counts the writes to an entry in `generation`: a count that is not ours shows that
//! somebody else wrote to it, and then the report may speak for another's data and is thrown away.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use attestation::{Collateral, EvidenceItem, EvidenceKind};

use self::files::{Files, SystemFiles};
use super::{
    CpuSource, EvidenceError, Question, certificate_table::MAX_TABLE, sev_snp::Certificates,
};
use crate::ids::RequestId;

pub(super) mod files;
#[cfg(test)]
pub(crate) mod tests;

/// Longest report or quote that is read, in bytes. A TDX quote has 5 to 8 KiB.
const MAX_REPORT: usize = 64 * 1024;
/// Longest attribute of text, in bytes: one page.
const MAX_TEXT: usize = 4096;
/// Most tries at one report.
const MAX_TRIES: u32 = 8;
/// Rest before the second try; it doubles each time, to 3.2 s in all.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// Most names that are tried for one entry. They are random: a second one is a rarity.
const MAX_NAMES: u32 = 4;

/// Why configfs gives no report.
#[derive(Debug, thiserror::Error)]
pub enum ConfigfsError {
    /// There is no such folder.
    #[error(
        "{} is not there: this is no SEV-SNP or TDX guest, or its kernel is older than 6.7, or \
         configfs is not mounted, or sev-guest or tdx-guest is not loaded (`sealgate doctor`)",
        .0.display()
    )]
    NoRoot(PathBuf),
    /// An entry cannot be made, an attribute not read or written.
    #[error("{}: {source}{}", path.display(), hint(source))]
    File {
        /// The entry or attribute.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel was busy, or somebody else wrote to our entry, each time.
    #[error("no report after {MAX_TRIES} tries: {0}")]
    Busy(Box<Self>),
    /// Somebody else wrote to our entry.
    #[error("{}: {seen} writes where {expected} were made: somebody else writes to it", path.display())]
    Conflict {
        /// The entry.
        path: PathBuf,
        /// The generation after our writes.
        expected: u64,
        /// The generation seen.
        seen: u64,
    },
    /// Reports of a TEE that is not known here.
    #[error("{}: the provider is {provider:?}; known are sev_guest and tdx_guest", path.display())]
    Provider {
        /// The entry's attribute.
        path: PathBuf,
        /// What stands in it.
        provider: Box<str>,
    },
    /// An attribute is longer than any.
    #[error("{}: longer than {limit} bytes", path.display())]
    TooLong {
        /// The attribute.
        path: PathBuf,
        /// The limit, in bytes.
        limit: usize,
    },
    /// An attribute has no number or no text in it.
    #[error("{}: not what the kernel writes there", path.display())]
    Malformed {
        /// The attribute.
        path: PathBuf,
    },
    /// The kernel gave an empty report.
    #[error("{}: empty", path.display())]
    Empty {
        /// The attribute.
        path: PathBuf,
    },
}

/// What to do about an error of the file system.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ": the node's user may not write there (deploy/README.md, \"Access to the hardware\")"
        }
        io::ErrorKind::NotFound => ": no kernel made this entry; `root` must be a configfs",
        _ => "",
    }
}

impl ConfigfsError {
    /// Whether another try may end otherwise.
    fn is_passing(&self) -> bool {
        match self {
            Self::Conflict { .. } => true,
            Self::File { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::ResourceBusy
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::Interrupted
                    | io::ErrorKind::TimedOut
            ),
            _ => false,
        }
    }
}

/// Whose reports a machine's kernel gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tee {
    SevSnp,
    Tdx,
}

impl From<Tee> for EvidenceKind {
    fn from(tee: Tee) -> Self {
        match tee {
            Tee::SevSnp => Self::SevSnp,
            Tee::Tdx => Self::Tdx,
        }
    }
}

/// The reports below one root.
#[derive(Debug)]
pub(super) struct Configfs<F = SystemFiles> {
    files: F,
    root: PathBuf,
    privlevel: Option<u32>,
    certificates: Certificates,
}

/// What the kernel gives for one question.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    tee: Tee,
    outblob: Vec<u8>,
    auxblob: Vec<u8>,
}

impl Configfs {
    pub(super) fn new(root: PathBuf, privlevel: Option<u32>, certificates: Certificates) -> Self {
        Self::with_files(SystemFiles, root, privlevel, certificates)
    }
}

impl<F: Files> Configfs<F> {
    fn with_files(
        files: F,
        root: PathBuf,
        privlevel: Option<u32>,
        certificates: Certificates,
    ) -> Self {
        Self {
            files,
            root,
            privlevel,
            certificates,
        }
    }

    /// A report over `inblob`, with tries while the kernel is busy.
    fn report(&self, inblob: &[u8; 64]) -> Result<Report, ConfigfsError> {
        let mut pause = FIRST_PAUSE;
        let mut tried = 1;
        loop {
            match self.attempt(inblob) {
                Err(error) if error.is_passing() && tried < MAX_TRIES => {
                    tracing::debug!(%error, "no report yet");
                    self.files.pause(pause);
                    pause = pause.saturating_mul(2);
                    tried += 1;
                }
                Err(error) if error.is_passing() => {
                    return Err(ConfigfsError::Busy(Box::new(error)));
                }
                ended => return ended,
            }
        }
    }

    fn attempt(&self, inblob: &[u8; 64]) -> Result<Report, ConfigfsError> {
        let entry = Entry::create(&self.files, &self.root)?;
        let tee = entry.tee()?;
        let before = entry.generation()?;
        let mut writes = 1;
        if let Some(privlevel) = self.privlevel {
            entry.write("privlevel", privlevel.to_string().as_bytes())?;
            writes += 1;
        }
        entry.write("inblob", inblob)?;
        let outblob = entry.read("outblob", MAX_REPORT)?;
        if outblob.is_empty() {
            return Err(ConfigfsError::Empty {
                path: entry.path.join("outblob"),
            });
        }
        let auxblob = match (tee, &self.certificates) {
            (Tee::SevSnp, Certificates::Host) => entry.read_optional("auxblob", MAX_TABLE)?,
            _ => Vec::new(),
        };
        // The kernel's counter wraps.
        let expected = before.wrapping_add(writes);
        let seen = entry.generation()?;
        if seen != expected {
            return Err(ConfigfsError::Conflict {
                path: entry.path.clone(),
                expected,
                seen,
            });
        }
        Ok(Report {
            tee,
            outblob,
            auxblob,
        })
    }
}

impl<F: Files> CpuSource for Configfs<F> {
    fn evidence(&self, question: &Question) -> Result<EvidenceItem, EvidenceError> {
        let report = self.report(&question.report_data)?;
        match report.tee {
            Tee::SevSnp => self.certificates.item(report.outblob, &report.auxblob),
            // A quote carries its certificates.
            Tee::Tdx => Ok(EvidenceItem {
                kind: EvidenceKind::Tdx,
                report: report.outblob,
                certificates: Vec::new(),
                collateral: Collateral::default(),
            }),
        }
    }
}

/// Whose reports are to be had below `root`.
///
/// # Errors
/// [`ConfigfsError`] if no entry can be made there.
pub(crate) fn tee(root: &Path) -> Result<Tee, ConfigfsError> {
    Entry::create(&SystemFiles, root)?.tee()
}

/// One entry below the root, which ends with it.
struct Entry<'a, F: Files> {
    files: &'a F,
    path: PathBuf,
}

impl<'a, F: Files> Entry<'a, F> {
    fn create(files: &'a F, root: &Path) -> Result<Self, ConfigfsError> {
        let mut named = 1;
        loop {
            let path = root.join(format!("sealgate-{}", RequestId::generate()));
            let Err(source) = files.create_dir(&path) else {
                return Ok(Self { files, path });
            };
            match source.kind() {
                io::ErrorKind::AlreadyExists if named < MAX_NAMES => named += 1,
                io::ErrorKind::NotFound => return Err(ConfigfsError::NoRoot(root.to_owned())),
                _ => return Err(ConfigfsError::File { path, source }),
            }
        }
    }

    fn tee(&self) -> Result<Tee, ConfigfsError> {
        let provider = self.text("provider")?;
        match provider.as_str() {
            "sev_guest" => Ok(Tee::SevSnp),
            "tdx_guest" => Ok(Tee::Tdx),
            _ => Err(ConfigfsError::Provider {
                path: self.path.join("provider"),
                provider: provider.into(),
            }),
        }
    }

    fn generation(&self) -> Result<u64, ConfigfsError> {
        let text = self.text("generation")?;
        text.parse().map_err(|_| ConfigfsError::Malformed {
            path: self.path.join("generation"),
        })
    }

    fn text(&self, name: &str) -> Result<String, ConfigfsError> {
        let bytes = self.read(name, MAX_TEXT)?;
        let text = String::from_utf8(bytes).map_err(|_| ConfigfsError::Malformed {
            path: self.path.join(name),
        })?;
        Ok(text.trim_end().to_owned())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ConfigfsError> {
        let path = self.path.join(name);
        let written = self.files.write(&path, bytes);
        written.map_err(|source| ConfigfsError::File { path, source })
    }

    /// As [`Entry::read`]; empty where the TEE has no such attribute.
    fn read_optional(&self, name: &str, limit: usize) -> Result<Vec<u8>, ConfigfsError> {
        match self.read(name, limit) {
            Err(ConfigfsError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            read => read,
        }
    }

    fn read(&self, name: &str, limit: usize) -> Result<Vec<u8>, ConfigfsError> {
        let path = self.path.join(name);
        let mut bytes = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let read = self
            .files
            .open(&path)
            .and_then(|file| file.take(most).read_to_end(&mut bytes));
        match read {
            Err(source) => Err(ConfigfsError::File { path, source }),
            Ok(_) if bytes.len() > limit => Err(ConfigfsError::TooLong { path, limit }),
            Ok(_) => Ok(bytes),
        }
    }
}

impl<F: Files> Drop for Entry<'_, F> {
    fn drop(&mut self) {
        if let Err(error) = self.files.remove_dir(&self.path) {
            // The report is none the worse for it.
            tracing::warn!(path = %self.path.display(), %error, "an entry is left behind");
        }
    }
}
