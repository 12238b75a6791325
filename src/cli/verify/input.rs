//! Reads policies, answers, reports and certificates, in whatever form they lie there.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use attestation::{
    Answer, AnswerError, Bundle, Collateral, CollateralKind, EvidenceKind, Policy, PolicyError,
    Statement, answer::MAX_ANSWER, policy::MAX_POLICY, proposal::UNCONFIRMED,
};
use base64::{
    Engine as _,
    alphabet::{self, Alphabet},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::config::{self, bundle::BundleFolderError};

/// Most files of certificates.
const MAX_CERTIFICATE_FILES: usize = 16;
/// Longest file of certificates, in bytes: AMD's whole chain in PEM has under 8 KiB.
const MAX_CERTIFICATE_FILE: usize = 64 * 1024;
/// Longest file with an answer or reports, in bytes: a list of 32 devices' in base64 has under
/// 512 KiB.
const MAX_EVIDENCE_FILE: usize = MAX_ANSWER;
/// Most files of collateral.
const MAX_COLLATERAL_FILES: usize = 64;
/// Longest file of collateral, in bytes: Intel's has under 32 KiB.
const MAX_COLLATERAL_FILE: usize = 1024 * 1024;

const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";
/// First byte of every DER certificate.
const DER_SEQUENCE: u8 = 0x30;

/// Why an input cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Unusable {
    #[error("{}: {}", path.display(), config::in_words(source))]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: larger than {limit} bytes", path.display())]
    TooLong { path: PathBuf, limit: usize },
    #[error("{}: not UTF-8 text", path.display())]
    NotText { path: PathBuf },
    #[error(transparent)]
    Bundle(#[from] BundleFolderError),
    #[error("{}: {source}", path.display())]
    Policy { path: PathBuf, source: PolicyError },
    #[error(
        "{}: {source}\nlines that begin with `{UNCONFIRMED}` wait to be confirmed: remove it where \
         you agree",
        path.display()
    )]
    Unconfirmed { path: PathBuf, source: PolicyError },
    #[error("{}: not a node's answer: {source}{hint}", path.display())]
    Answer {
        path: PathBuf,
        source: AnswerError,
        hint: &'static str,
    },
    #[error("{}: no {kind} evidence: that is {form}", path.display())]
    Report {
        path: PathBuf,
        kind: EvidenceKind,
        form: &'static str,
    },
    #[error("{}: holds no certificate, in PEM, DER, hex or base64", path.display())]
    Certificate { path: PathBuf },
    #[error("{0} files of certificates exceed the limit of {MAX_CERTIFICATE_FILES}")]
    TooManyFiles(usize),
    #[error("a raw report needs the certificate of the key that signed it: give --certs FILE")]
    NoCertificates,
    #[error(
        "a raw report needs the certificate of the chip's key: give it with --certs, --collateral or \
         --bundle"
    )]
    NoChipCertificate,
    #[error("none of the certificates holds a P-384 key, as the one that signs reports does")]
    NoLeaf,
    #[error("an answer is appraised against a policy: give --policy FILE (docs/policy.md)")]
    NoPolicy,
    #[error(
        "{certificates} files of certificates for {reports} reports: give one --certs for each \
         report, in the same order"
    )]
    Unpaired { certificates: usize, reports: usize },
    #[error(
        "the nonce of an answer is 64 lower-case hex digits; with --tee it can have another length"
    )]
    NonceLength,
    #[error("{kind} evidence carries its certificates: leave --certs out")]
    CertificatesInside { kind: EvidenceKind },
    #[error("{kind} evidence has no nonce of its own: leave --nonce out, or give --report-data")]
    NoNonceInIt { kind: EvidenceKind },
    #[error("{kind} evidence has no report data: leave --report-data out, or give --nonce")]
    NoReportDataInIt { kind: EvidenceKind },
    #[error(
        "{}: no collateral: that is Intel's JSON, or an OCSP response, a revocation list or a \
         certificate, in PEM, DER, hex or base64",
        path.display()
    )]
    Collateral { path: PathBuf },
    #[error("{}: {reason}", path.display())]
    NoProposal { path: PathBuf, reason: String },
    #[error("{}: an archive without evidence", path.display())]
    EmptyArchive { path: PathBuf },
    #[error("{0} pieces of evidence: a policy is proposed from one")]
    NotOneAnswer(usize),
    #[error("{0} files of collateral exceed the limit of {MAX_COLLATERAL_FILES}")]
    TooMuchCollateral(usize),
}

impl Unusable {
    /// Says of what is no answer, but could be a report, how reports are read.
    pub(in crate::cli) fn hint_at_tee(self, bytes: &[u8]) -> Self {
        let is_object = bytes.trim_ascii_start().first() == Some(&b'{');
        let is_capture = bytes.windows(CAPTURE.len()).any(|window| window == CAPTURE);
        match self {
            Self::Answer { path, source, .. } if !is_object || is_capture => Self::Answer {
                path,
                source,
                hint: " (for a raw report give --tee)",
            },
            other => other,
        }
    }
}

/// A member that captures of Azure's have, and no answer.
const CAPTURE: &[u8] = b"\"hcl_report\"";

/// Reads a policy; files that it names are sought from its own folder.
pub(in crate::cli) fn policy(path: &Path) -> Result<Policy, Unusable> {
    let text = String::from_utf8(read(path, MAX_POLICY)?);
    let text = text.map_err(|_| Unusable::NotText { path: path.into() })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut read_file = |name: &str| read_limited(&folder.join(name), MAX_CERTIFICATE_FILE);
    Policy::from_toml(&text, &mut read_file).map_err(|source| {
        let path = path.into();
        if text.lines().any(|line| line.starts_with(UNCONFIRMED)) {
            Unusable::Unconfirmed { path, source }
        } else {
            Unusable::Policy { path, source }
        }
    })
}

pub(in crate::cli) fn answer(path: &Path) -> Result<Answer, Unusable> {
    parse_answer(path, &evidence(path)?)
}

/// What stands in the file at `path`, as an answer.
pub(in crate::cli) fn parse_answer(path: &Path, bytes: &[u8]) -> Result<Answer, Unusable> {
    // A line end after the JSON, as editors write it, is white space to the reader.
    Answer::from_json(bytes).map_err(|source| Unusable::Answer {
        path: path.into(),
        source,
        hint: "",
    })
}

/// Reads a file with an answer or with reports.
pub(in crate::cli) fn evidence(path: &Path) -> Result<Vec<u8>, Unusable> {
    read(path, MAX_EVIDENCE_FILE)
}

/// Why a file cannot be opened, if it cannot.
pub(in crate::cli) fn absent(path: &Path) -> Option<Unusable> {
    let source = File::open(path).err()?;
    Some(Unusable::Read {
        path: path.into(),
        source,
    })
}

/// Reads answers, each with the collateral beside it. A folder is a gateway's archive.
pub(in crate::cli) fn answers(
    paths: &[PathBuf],
    beside: &[PathBuf],
) -> Result<Vec<(PathBuf, Answer)>, Unusable> {
    let beside = collateral(beside)?;
    let mut answers = Vec::new();
    for path in paths {
        for path in files(path)? {
            let mut answer = answer(&path)?;
            for item in &mut answer.evidence {
                add(&mut item.collateral, &beside);
            }
            answers.push((path, answer));
        }
    }
    Ok(answers)
}

/// A file itself; of an archive's folder, the evidence in it by name.
fn files(path: &Path) -> Result<Vec<PathBuf>, Unusable> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |source| Unusable::Read {
        path: path.to_owned(),
        source,
    };
    let folder = match path.join("evidence") {
        below if below.is_dir() => below,
        _ => path.to_owned(),
    };
    let entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(unreadable)?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Unusable::EmptyArchive { path: path.into() });
    }
    Ok(files)
}

/// What to call a piece of evidence: its node, if its statement can be read, and its file.
pub(in crate::cli) fn name_of(path: &Path, answer: &Answer) -> String {
    match Statement::parse(&answer.statement) {
        Ok(statement) => format!("{} ({})", statement.node_id(), path.display()),
        Err(_) => path.display().to_string(),
    }
}

/// Loads a bundle that a signer of the policy signed; without a folder there is none.
pub(in crate::cli) fn bundle(
    folder: Option<&Path>,
    policy: Option<&Policy>,
) -> Result<Bundle, Unusable> {
    match (folder, policy) {
        (Some(folder), Some(policy)) => Ok(config::bundle::load(folder, policy)?),
        (Some(_), None) => Err(Unusable::NoPolicy),
        (None, _) => Ok(Bundle::empty()),
    }
}

/// Reads collateral of any kind.
pub(in crate::cli) fn collateral(paths: &[PathBuf]) -> Result<Collateral, Unusable> {
    if paths.len() > MAX_COLLATERAL_FILES {
        return Err(Unusable::TooMuchCollateral(paths.len()));
    }
    let mut collateral = Collateral::default();
    for path in paths {
        let bytes = read(path, MAX_COLLATERAL_FILE)?;
        let unknown = || Unusable::Collateral { path: path.clone() };
        let mut pieces = pem_blocks(&bytes);
        if pieces.is_empty() {
            let mut forms = forms(bytes).into_iter();
            let known = forms.find(|bytes| CollateralKind::of(bytes).is_some());
            pieces.push(known.ok_or_else(unknown)?);
        }
        for piece in pieces {
            collateral.take(piece).map_err(|_| unknown())?;
        }
    }
    Ok(collateral)
}

/// Gives evidence what was read beside it.
pub(in crate::cli) fn add(to: &mut Collateral, more: &Collateral) {
    to.amd_crls.extend_from_slice(&more.amd_crls);
    to.amd_certificates
        .extend_from_slice(&more.amd_certificates);
    to.tdx.extend_from_slice(&more.tdx);
    to.ocsp.extend_from_slice(&more.ocsp);
}

/// Reads every certificate in the files, in their order, by file.
pub(in crate::cli) fn certificates(paths: &[PathBuf]) -> Result<Vec<Vec<Vec<u8>>>, Unusable> {
    if paths.len() > MAX_CERTIFICATE_FILES {
        return Err(Unusable::TooManyFiles(paths.len()));
    }
    let mut found = Vec::new();
    for path in paths {
        let in_file = certificates_in(read(path, MAX_CERTIFICATE_FILE)?);
        if in_file.is_empty() {
            return Err(Unusable::Certificate { path: path.clone() });
        }
        found.push(in_file);
    }
    Ok(found)
}

pub(in crate::cli) fn certificates_in(bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let blocks = pem_blocks(&bytes);
    if !blocks.is_empty() {
        return blocks;
    }
    let mut found = forms(bytes).into_iter();
    let der = found.find(|bytes| bytes.first() == Some(&DER_SEQUENCE));
    der.into_iter().collect()
}

/// What stands between PEM's lines, whatever their label.
fn pem_blocks(bytes: &[u8]) -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let blocks = text.split(PEM_BEGIN).skip(1);
    let bodies = blocks.filter_map(|block| {
        let (_, body) = block.split_once("-----")?;
        let (body, _) = body.split_once(PEM_END)?;
        from_base64(body)
    });
    bodies.collect()
}

/// What the bytes of a file can be: themselves, and what their text encodes.
pub(in crate::cli) fn forms(bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let from_hex = hex::decode(without_blanks(text)).ok();
    let decoded = [from_hex, from_base64(text)];
    let mut forms = vec![bytes];
    forms.extend(decoded.into_iter().flatten());
    forms
}

/// Either alphabet, padded or not, in lines or not: what is read is checked by a signature.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text = without_blanks(text);
    let decode = |alphabet: &Alphabet| GeneralPurpose::new(alphabet, CONFIG).decode(&text).ok();
    decode(&alphabet::STANDARD).or_else(|| decode(&alphabet::URL_SAFE))
}

fn without_blanks(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Unusable> {
    read_limited(path, limit).map_err(|source| match source.kind() {
        io::ErrorKind::FileTooLarge => Unusable::TooLong {
            path: path.into(),
            limit,
        },
        _ => Unusable::Read {
            path: path.into(),
            source,
        },
    })
}

fn read_limited(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}
