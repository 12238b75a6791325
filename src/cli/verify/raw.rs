//! Raw evidence as vendors' tools leave it, turned into what the verifier takes.

use std::path::{Path, PathBuf};

use attestation::{Collateral, EvidenceItem, EvidenceKind, sev_snp};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::input::{self, Unusable};

/// Most devices in one file of NVIDIA's.
const MAX_DEVICES: usize = 32;
/// An SPDM request for measurements, version 1.1: what a device's report begins with.
const SPDM_GET_MEASUREMENTS: [u8; 2] = [0x11, 0xe0];
/// A CBOR array of four: what COSE_Sign1 begins with, after its tag if it has one.
const CBOR_ARRAY_4: u8 = 0x84;
const CBOR_TAG_18: u8 = 0xd2;
/// Header and TD report of the shortest quote.
const MIN_QUOTE: usize = 48 + 384;

/// Refuses arguments that this kind of report has nothing for.
pub(super) fn check_arguments(
    kind: EvidenceKind,
    nonce: bool,
    report_data: bool,
) -> Result<(), Unusable> {
    use EvidenceKind::{NvidiaGpu, NvidiaNvswitch, SevSnp, Tdx};
    if nonce && matches!(kind, SevSnp | Tdx) {
        return Err(Unusable::NoNonceInIt { kind });
    }
    if report_data && matches!(kind, NvidiaGpu | NvidiaNvswitch) {
        return Err(Unusable::NoReportDataInIt { kind });
    }
    Ok(())
}

/// The certificates that go with the reports of one kind.
pub(super) struct Certificates {
    kind: EvidenceKind,
    by_file: Vec<Vec<Vec<u8>>>,
    /// How many files of reports there are.
    reports: usize,
}

impl Certificates {
    /// Reads them. `has_kept` says that certificates of chips came another way.
    pub(super) fn read(
        kind: EvidenceKind,
        paths: &[PathBuf],
        reports: usize,
        has_kept: bool,
    ) -> Result<Self, Unusable> {
        let by_file = input::certificates(paths)?;
        let has_leaf = || !sev_snp::order_certificates(&by_file.concat()).is_empty();
        match (kind, by_file.is_empty()) {
            (EvidenceKind::SevSnp, true) if !has_kept => Err(Unusable::NoChipCertificate),
            (EvidenceKind::SevSnp, false) if !has_leaf() => Err(Unusable::NoLeaf),
            (EvidenceKind::Tdx | EvidenceKind::Nitro, false) => {
                Err(Unusable::CertificatesInside { kind })
            }
            _ => Ok(()),
        }?;
        Ok(Self {
            kind,
            by_file,
            reports,
        })
    }

    /// Those of the report in file `number`, counted from 0. A chip's name their chip; a device's are
    /// told apart by their order alone.
    fn of(&self, number: usize, report: &[u8]) -> Result<Vec<Vec<u8>>, Unusable> {
        let all = self.by_file.concat();
        match self.kind {
            EvidenceKind::SevSnp => Ok(sev_snp::certificates_of(report, &all)),
            EvidenceKind::NvidiaGpu | EvidenceKind::NvidiaNvswitch if all.is_empty() => {
                Err(Unusable::NoCertificates)
            }
            EvidenceKind::NvidiaGpu | EvidenceKind::NvidiaNvswitch if self.reports > 1 => {
                let paired = self.by_file.len() == self.reports;
                let own = self.by_file.get(number).filter(|_| paired).cloned();
                own.ok_or(Unusable::Unpaired {
                    certificates: self.by_file.len(),
                    reports: self.reports,
                })
            }
            _ => Ok(all),
        }
    }
}

/// The reports of this kind in file `number`, counted from 0; one, but for NVIDIA's JSON.
pub(super) fn items(
    kind: EvidenceKind,
    path: &Path,
    bytes: Vec<u8>,
    number: usize,
    certificates: &Certificates,
) -> Result<Vec<EvidenceItem>, Unusable> {
    let is_device = matches!(kind, EvidenceKind::NvidiaGpu | EvidenceKind::NvidiaNvswitch);
    if is_device && bytes.trim_ascii_start().first() == Some(&b'[') {
        return devices(kind, path, &bytes);
    }
    let looks_right = |bytes: &Vec<u8>| looks_like(kind, bytes);
    let report = input::forms(bytes).into_iter().find(looks_right);
    let report = report.ok_or_else(|| Unusable::Report {
        path: path.into(),
        kind,
        form: form(kind),
    })?;
    Ok(vec![EvidenceItem {
        kind,
        certificates: certificates.of(number, &report)?,
        report,
        collateral: Collateral::default(),
    }])
}

/// Whether the bytes begin, or are as long, as a report of this kind.
fn looks_like(kind: EvidenceKind, bytes: &[u8]) -> bool {
    match kind {
        EvidenceKind::SevSnp => bytes.len() == sev_snp::REPORT_LEN,
        // SGX's version 3 too: the verifier says what is wrong with it.
        EvidenceKind::Tdx => {
            let version = bytes.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
            matches!(version, Some(3..=5)) && bytes.len() >= MIN_QUOTE
        }
        EvidenceKind::Nitro => {
            matches!(bytes, [CBOR_ARRAY_4, ..] | [CBOR_TAG_18, CBOR_ARRAY_4, ..])
        }
        EvidenceKind::NvidiaGpu | EvidenceKind::NvidiaNvswitch => {
            bytes.starts_with(&SPDM_GET_MEASUREMENTS)
        }
        EvidenceKind::AzureSnp => bytes.trim_ascii_start().first() == Some(&b'{'),
    }
}

/// What a report of this kind is, for whoever gave something else.
fn form(kind: EvidenceKind) -> &'static str {
    match kind {
        EvidenceKind::SevSnp => "1184 bytes in binary, hex or base64",
        EvidenceKind::Tdx => "a quote of version 4 or 5 in binary, hex or base64",
        EvidenceKind::Nitro => "a COSE_Sign1 document in binary, hex or base64",
        EvidenceKind::NvidiaGpu | EvidenceKind::NvidiaNvswitch => {
            "an SPDM request and its response in binary, hex or base64, or NVIDIA's JSON list of \
             evidence"
        }
        EvidenceKind::AzureSnp => "the JSON of report, certificate and TPM quote",
    }
}

/// One device as NVIDIA's tools write it; the rest of its members does not matter here.
#[derive(Deserialize)]
struct Device {
    /// A PEM chain, in base64.
    certificate: String,
    /// The report, in base64.
    evidence: String,
}

fn devices(kind: EvidenceKind, path: &Path, bytes: &[u8]) -> Result<Vec<EvidenceItem>, Unusable> {
    let wrong = || Unusable::Report {
        path: path.into(),
        kind,
        form: form(kind),
    };
    let devices: Vec<Device> = serde_json::from_slice(bytes).map_err(|_| wrong())?;
    if devices.is_empty() || devices.len() > MAX_DEVICES {
        return Err(wrong());
    }
    let item = |device: Device| {
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| wrong());
        let report = decode(&device.evidence)?;
        if !looks_like(kind, &report) {
            return Err(wrong());
        }
        Ok(EvidenceItem {
            kind,
            report,
            certificates: input::certificates_in(decode(&device.certificate)?),
            collateral: Collateral::default(),
        })
    };
    devices.into_iter().map(item).collect()
}
