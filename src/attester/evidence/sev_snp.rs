//! From a raw SEV-SNP report to an evidence item, whichever way the report came.

use std::path::PathBuf;

use attestation::{Collateral, EvidenceItem, EvidenceKind, sev_snp};

use super::{
    EvidenceError,
    certificate_table::{CertificateTable, SigningKey},
    file, pem,
};
use crate::config::Loaded;

/// Longest file of certificates, in bytes: AMD's whole chain in PEM has under 8 KiB.
const MAX_CERTIFICATE_FILE: usize = 64 * 1024;

/// Where the certificates behind a report come from.
#[derive(Debug)]
pub(super) enum Certificates {
    /// The host's table, with each report.
    Host,
    /// Files, read at start: DER, leaf first.
    Files(Vec<Vec<u8>>),
}

impl Certificates {
    /// Reads the files of the configuration; without any the host is asked.
    ///
    /// # Errors
    /// [`EvidenceError`] names the file that holds no certificate.
    pub(super) fn open<T>(config: &Loaded<T>, files: &[PathBuf]) -> Result<Self, EvidenceError> {
        if files.is_empty() {
            return Ok(Self::Host);
        }
        let mut found = Vec::new();
        for path in files {
            let path = config.resolve(path);
            let certificates = pem::certificates(&file::read(&path, MAX_CERTIFICATE_FILE)?);
            if certificates.is_empty() {
                return Err(EvidenceError::NoCertificate { path });
            }
            found.extend(certificates);
        }
        let ordered = sev_snp::order_certificates(&found);
        if ordered.is_empty() {
            return Err(EvidenceError::NoLeaf);
        }
        Ok(Self::Files(ordered))
    }

    /// The item around `report`; `table` is the host's, empty where it was not asked.
    ///
    /// # Errors
    /// [`EvidenceError`] if the report has another length, or the table cannot be read.
    pub(super) fn item(
        &self,
        report: Vec<u8>,
        table: &[u8],
    ) -> Result<EvidenceItem, EvidenceError> {
        if report.len() != sev_snp::REPORT_LEN {
            return Err(EvidenceError::ReportLength {
                len: report.len(),
                expected: sev_snp::REPORT_LEN,
            });
        }
        let mut collateral = Collateral::default();
        let certificates = match self {
            Self::Files(certificates) => certificates.clone(),
            Self::Host => {
                let table = CertificateTable::parse(table)?;
                let chain = table.chain(SigningKey::of(&report));
                collateral.amd_crls = table.crls;
                chain
            }
        };
        Ok(EvidenceItem {
            kind: EvidenceKind::SevSnp,
            report,
            certificates,
            collateral,
        })
    }
}
