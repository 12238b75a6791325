//! A node's answer to `GET /v1/attestation`: statement, nonce and evidence
//! (`docs/wire.md`, "What a node says of itself").

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::collateral::{Collateral, MAX_PIECES};
use crate::digest::{InvalidHex, Nonce};
use crate::json::{self, Json, JsonError, Members};
use crate::statement::MAX_STATEMENT;

/// Longest answer, in bytes.
pub const MAX_ANSWER: usize = 1024 * 1024;
/// Most evidence items: one CPU, and every GPU and switch of the largest machine with room to spare.
pub const MAX_ITEMS: usize = 32;
/// Most certificates of one item.
pub const MAX_CERTIFICATES: usize = 8;

/// Statement and evidence as a node gave them: well formed, not appraised.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The statement's bytes, to be parsed by the verifier and hashed as they are.
    pub statement: Vec<u8>,
    /// The nonce that the node says it answers.
    pub nonce: Nonce,
    /// The CPU's item, then the devices'.
    pub evidence: Vec<EvidenceItem>,
}

/// One piece of evidence, with the certificates that endorse it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EvidenceItem {
    /// Which hardware it comes from.
    pub kind: EvidenceKind,
    /// The report, byte for byte as the hardware gave it.
    pub report: Vec<u8>,
    /// DER certificates, leaf first, root left out.
    pub certificates: Vec<Vec<u8>>,
    /// What its vendor signs beside it, where the node delivers that too.
    pub collateral: Collateral,
}

/// The kinds of evidence that an answer can hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EvidenceKind {
    /// AMD SEV-SNP, a CPU.
    SevSnp,
    /// Intel TDX, a CPU.
    Tdx,
    /// AWS Nitro Enclaves, a CPU.
    Nitro,
    /// An NVIDIA GPU, a device.
    NvidiaGpu,
    /// An NVIDIA NVSwitch, a device.
    NvidiaNvswitch,
    /// SEV-SNP as Azure's paravisor carries it. Its report data is not a node's to set, so no answer
    /// can hold it: it is for offline appraisal alone.
    AzureSnp,
}

impl EvidenceKind {
    /// Those that an answer can hold.
    const IN_ANSWERS: [Self; 5] = [
        Self::SevSnp,
        Self::Tdx,
        Self::Nitro,
        Self::NvidiaGpu,
        Self::NvidiaNvswitch,
    ];

    /// The word in an answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SevSnp => "sev-snp",
            Self::Tdx => "tdx",
            Self::Nitro => "nitro",
            Self::NvidiaGpu => "nvidia-gpu",
            Self::NvidiaNvswitch => "nvidia-nvswitch",
            Self::AzureSnp => "azure-snp",
        }
    }

    /// Whether it is a CPU's; every other kind is a device's.
    pub fn is_cpu(self) -> bool {
        matches!(
            self,
            Self::SevSnp | Self::Tdx | Self::Nitro | Self::AzureSnp
        )
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::IN_ANSWERS
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why bytes are no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Longer than [`MAX_ANSWER`].
    #[error("answer of {len} bytes exceeds the limit of {MAX_ANSWER}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not the JSON that an answer is.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Text that is not canonical base64.
    #[error("`{0}` is not canonical base64")]
    Base64(&'static str),
    /// The nonce has another form.
    #[error("`nonce` is {0}")]
    Nonce(#[from] InvalidHex),
    /// The statement is longer than a statement can be.
    #[error("statement of {len} bytes exceeds the limit of {MAX_STATEMENT}")]
    StatementTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// More than [`MAX_ITEMS`].
    #[error("{0} evidence items exceed the limit of {MAX_ITEMS}")]
    TooManyItems(usize),
    /// More than [`MAX_CERTIFICATES`] in one item.
    #[error("{0} certificates exceed the limit of {MAX_CERTIFICATES}")]
    TooManyCertificates(usize),
    /// More than [`MAX_PIECES`] of one kind of collateral in one item.
    #[error("{0} pieces of one kind of collateral exceed the limit of {MAX_PIECES}")]
    TooManyPieces(usize),
    /// A type that no verifier knows.
    #[error("evidence of an unknown type")]
    UnknownType,
    /// Not exactly one CPU item, or not in the first place.
    #[error("evidence is not one CPU item followed by devices")]
    NotOneCpuFirst,
    /// A device without the certificate that tells it from another.
    #[error("a device has no certificate")]
    DeviceWithoutCertificate,
    /// One device in two places.
    #[error("two devices have the same leaf certificate")]
    RepeatedDevice,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// If it is too long, no strict JSON, or its evidence is not one CPU item followed by distinct
    /// devices.
    pub fn from_json(bytes: &[u8]) -> Result<Self, AnswerError> {
        if bytes.len() > MAX_ANSWER {
            return Err(AnswerError::TooLong { len: bytes.len() });
        }
        let mut members = json::object(bytes)?;
        let statement = base64("statement", &members.string("statement")?)?;
        if statement.len() > MAX_STATEMENT {
            return Err(AnswerError::StatementTooLong {
                len: statement.len(),
            });
        }
        let nonce = members.string("nonce")?.parse()?;
        let items = members.array("evidence")?;
        if items.len() > MAX_ITEMS {
            return Err(AnswerError::TooManyItems(items.len()));
        }
        let item = |item: Json| EvidenceItem::from_members(item.into_members("evidence")?);
        let evidence: Vec<_> = items.into_iter().map(item).collect::<Result<_, _>>()?;
        arrangement(&evidence)?;
        Ok(Self {
            statement,
            nonce,
            evidence,
        })
    }

    /// Writes the answer, as [`Answer::from_json`] reads it.
    ///
    /// # Errors
    /// [`AnswerError::Json`] if the writer fails, which memory does not.
    pub fn to_json(&self) -> Result<Vec<u8>, AnswerError> {
        let evidence = self.evidence.iter().map(ItemOut::from).collect();
        let out = AnswerOut {
            statement: STANDARD.encode(&self.statement),
            nonce: self.nonce.to_string(),
            evidence,
        };
        Ok(serde_json::to_vec(&out).map_err(JsonError::Syntax)?)
    }

    /// The items after the CPU's.
    pub fn devices(&self) -> &[EvidenceItem] {
        self.evidence.get(1..).unwrap_or_default()
    }
}

impl EvidenceItem {
    fn from_members(mut members: Members) -> Result<Self, AnswerError> {
        let kind = EvidenceKind::from_name(&members.string("type")?);
        let report = base64("report", &members.string("report")?)?;
        let certificates = members.array("certificates")?;
        if certificates.len() > MAX_CERTIFICATES {
            return Err(AnswerError::TooManyCertificates(certificates.len()));
        }
        let certificate = |item: Json| base64("certificates", &item.into_string("certificates")?);
        let collateral = match members.optional("collateral") {
            Some(json) => Collateral::from_members(json.into_members("collateral")?)?,
            None => Collateral::default(),
        };
        Ok(Self {
            kind: kind.ok_or(AnswerError::UnknownType)?,
            report,
            certificates: certificates
                .into_iter()
                .map(certificate)
                .collect::<Result<_, _>>()?,
            collateral,
        })
    }
}

/// One CPU item, first; devices told apart by their leaf certificates.
fn arrangement(evidence: &[EvidenceItem]) -> Result<(), AnswerError> {
    let (cpu, devices) = evidence.split_first().ok_or(AnswerError::NotOneCpuFirst)?;
    if !cpu.kind.is_cpu() || devices.iter().any(|device| device.kind.is_cpu()) {
        return Err(AnswerError::NotOneCpuFirst);
    }
    let mut leaves = Vec::with_capacity(devices.len());
    for device in devices {
        let leaf = device.certificates.first();
        let leaf = leaf.ok_or(AnswerError::DeviceWithoutCertificate)?;
        if leaves.contains(&leaf) {
            return Err(AnswerError::RepeatedDevice);
        }
        leaves.push(leaf);
    }
    Ok(())
}

fn base64(member: &'static str, text: &str) -> Result<Vec<u8>, AnswerError> {
    STANDARD
        .decode(text)
        .map_err(|_| AnswerError::Base64(member))
}

#[derive(Serialize)]
struct AnswerOut {
    statement: String,
    nonce: String,
    evidence: Vec<ItemOut>,
}

#[derive(Serialize)]
struct ItemOut {
    #[serde(rename = "type")]
    kind: &'static str,
    report: String,
    certificates: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    collateral: BTreeMap<&'static str, Vec<String>>,
}

impl From<&EvidenceItem> for ItemOut {
    fn from(item: &EvidenceItem) -> Self {
        Self {
            kind: item.kind.as_str(),
            report: STANDARD.encode(&item.report),
            certificates: item
                .certificates
                .iter()
                .map(|der| STANDARD.encode(der))
                .collect(),
            collateral: item.collateral.to_members().into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
