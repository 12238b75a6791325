//! Collateral that the node hands on with its evidence, so that verifiers need not fetch it.
//!
//! The node reads files and trusts nothing in them: each piece is signed by its vendor and checked
//! by whoever appraises the evidence. Something else keeps the files fresh; they are read again at
//! intervals, and what cannot be read leaves the last good pieces in place.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use attestation::{Collateral, EvidenceItem, EvidenceKind};

use super::{EvidenceError, file, pem};
use crate::config::{Loaded, node::CollateralConfig};

/// Longest file, in bytes. AMD's lists have under 2 KiB, Intel's collateral about 20 KiB.
const MAX_FILE: usize = 128 * 1024;

/// The pieces, by kind, and when to read them again.
#[derive(Debug)]
pub(super) struct Delivery {
    files: Files,
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    collateral: Collateral,
    read_at: Instant,
}

#[derive(Debug)]
struct Files {
    amd_crls: Vec<PathBuf>,
    tdx: Vec<PathBuf>,
    ocsp: Vec<PathBuf>,
}

impl Delivery {
    /// Reads every file that the configuration names.
    ///
    /// # Errors
    /// [`EvidenceError`] names the file that cannot be read.
    pub(super) fn open<T>(
        config: &Loaded<T>,
        collateral: &CollateralConfig,
        now: Instant,
    ) -> Result<Self, EvidenceError> {
        let resolved = |paths: &[PathBuf]| paths.iter().map(|path| config.resolve(path)).collect();
        let files = Files {
            amd_crls: resolved(&collateral.amd_crls),
            tdx: resolved(&collateral.tdx),
            ocsp: resolved(&collateral.ocsp),
        };
        let state = State {
            collateral: files.read()?,
            read_at: now,
        };
        Ok(Self {
            files,
            every: Duration::from_secs(collateral.reread_s.get()),
            state: Mutex::new(state),
        })
    }

    /// Puts to each item what belongs to its kind.
    pub(super) fn attach(&self, evidence: &mut [EvidenceItem], now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.read_at) >= self.every {
            state.read_at = now;
            match self.files.read() {
                Ok(collateral) => state.collateral = collateral,
                Err(error) => tracing::warn!(%error, "collateral stays as it was"),
            }
        }
        for item in evidence {
            let delivered = &state.collateral;
            let given = &mut item.collateral;
            match item.kind {
                EvidenceKind::SevSnp => given.amd_crls.extend(delivered.amd_crls.iter().cloned()),
                EvidenceKind::Tdx => given.tdx.extend(delivered.tdx.iter().cloned()),
                EvidenceKind::NvidiaGpu | EvidenceKind::NvidiaNvswitch => {
                    given.ocsp.extend(delivered.ocsp.iter().cloned());
                }
                EvidenceKind::Nitro | EvidenceKind::AzureSnp => {}
            }
        }
    }
}

impl Files {
    fn read(&self) -> Result<Collateral, EvidenceError> {
        let each = |paths: &[PathBuf]| -> Result<Vec<Vec<u8>>, EvidenceError> {
            paths
                .iter()
                .map(|path| file::read(path, MAX_FILE))
                .collect()
        };
        let mut amd_crls = Vec::new();
        for path in &self.amd_crls {
            let crls = pem::crls(&file::read(path, MAX_FILE)?);
            if crls.is_empty() {
                return Err(EvidenceError::NoCrl { path: path.clone() });
            }
            amd_crls.extend(crls);
        }
        Ok(Collateral {
            amd_crls,
            tdx: each(&self.tdx)?,
            ocsp: each(&self.ocsp)?,
            ..Collateral::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{self, node::NodeConfig};

    fn item(kind: EvidenceKind) -> EvidenceItem {
        EvidenceItem {
            kind,
            report: vec![1],
            certificates: Vec::new(),
            collateral: Collateral::default(),
        }
    }

    fn configured(dir: &std::path::Path, collateral: &str) -> Loaded<NodeConfig> {
        let text = format!(
            "node_id = \"n\"\n[evidence]\nsource = \"nitro\"\n[evidence.collateral]\n{collateral}\n\
             [[engine]]\nurl = \"builtin:echo\"\n"
        );
        config::parse(&dir.join("node.toml"), &text, std::iter::empty()).unwrap()
    }

    fn open(dir: &std::path::Path, text: &str, now: Instant) -> Result<Delivery, EvidenceError> {
        let config = configured(dir, text);
        Delivery::open(&config, config.value.evidence.collateral(), now)
    }

    #[test]
    fn each_kind_goes_to_its_own_and_files_are_read_again() {
        use EvidenceKind::{Nitro, NvidiaGpu, SevSnp, Tdx};
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        write("crl", &[0x30, 1, 1]);
        write("tdx", b"{}");
        write("ocsp", &[0x30, 1, 2]);
        let start = Instant::now();
        let text = "amd_crls = [\"crl\"]\ntdx = [\"tdx\"]\nocsp = [\"ocsp\"]\nreread_s = 60";
        let delivery = open(dir.path(), text, start).unwrap();
        let seen = |now| {
            let mut items = [SevSnp, NvidiaGpu, Tdx, Nitro].map(item);
            delivery.attach(&mut items, now);
            items.map(|item| item.collateral)
        };
        let [snp, gpu, tdx, nitro] = seen(start);
        assert_eq!(snp.amd_crls, [[0x30, 1, 1]]);
        assert!(snp.tdx.is_empty() && snp.ocsp.is_empty());
        assert_eq!(gpu.ocsp, [[0x30, 1, 2]]);
        assert!(gpu.amd_crls.is_empty() && gpu.tdx.is_empty());
        assert_eq!(tdx.tdx, [b"{}"]);
        assert!(tdx.amd_crls.is_empty() && tdx.ocsp.is_empty());
        assert!(nitro.is_empty());

        write(
            "crl",
            b"-----BEGIN X509 CRL-----\nMAED\n-----END X509 CRL-----\n",
        );
        let crl = |now| seen(now)[0].amd_crls.clone();
        assert_eq!(crl(start + Duration::from_secs(59)), [[0x30, 1, 1]]);
        assert_eq!(crl(start + Duration::from_secs(60)), [[0x30, 1, 3]]);
        write("crl", b"no list");
        assert_eq!(crl(start + Duration::from_secs(120)), [[0x30, 1, 3]]);
        write("crl", &[0x30, 1, 4]);
        assert_eq!(crl(start + Duration::from_secs(179)), [[0x30, 1, 3]]);
        assert_eq!(crl(start + Duration::from_secs(180)), [[0x30, 1, 4]]);
    }

    #[test]
    fn a_file_that_cannot_be_used_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("text"), "text").unwrap();
        fs::write(dir.path().join("long"), vec![0; MAX_FILE + 1]).unwrap();
        for (text, named) in [
            ("tdx = [\"absent\"]", "absent"),
            ("amd_crls = [\"text\"]", "no revocation list"),
            ("ocsp = [\"long\"]", "longer than 131072 bytes"),
        ] {
            let error = open(dir.path(), text, Instant::now())
                .unwrap_err()
                .to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
