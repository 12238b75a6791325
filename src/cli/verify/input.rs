//! Reads policies, answers, reports and certificates, in whatever form they lie there.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use attestation::{
    Answer, AnswerError, Policy, PolicyError, answer::MAX_ANSWER, policy::MAX_POLICY, sev_snp,
};
use base64::{
    Engine as _,
    alphabet::{self, Alphabet},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// Most files of certificates.
const MAX_CERTIFICATE_FILES: usize = 16;
/// Longest file of certificates, in bytes: AMD's whole chain in PEM has under 8 KiB.
const MAX_CERTIFICATE_FILE: usize = 64 * 1024;
/// Longest file with a report, in bytes; as hex it has 2,368 and line breaks.
const MAX_REPORT_FILE: usize = 16 * 1024;

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const PEM_END: &str = "-----END CERTIFICATE-----";
/// First byte of every DER certificate.
const DER_SEQUENCE: u8 = 0x30;

/// Why an input cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: larger than {limit} bytes", path.display())]
    TooLong { path: PathBuf, limit: usize },
    #[error("{}: not UTF-8 text", path.display())]
    NotText { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Policy { path: PathBuf, source: PolicyError },
    #[error("{}: not a node's answer: {source} (for a raw report give --tee)", path.display())]
    Answer { path: PathBuf, source: AnswerError },
    #[error(
        "{}: not a SEV-SNP report: that is {} bytes in binary, hex or base64",
        path.display(),
        sev_snp::REPORT_LEN
    )]
    Report { path: PathBuf },
    #[error("{}: holds no certificate, in PEM, DER, hex or base64", path.display())]
    Certificate { path: PathBuf },
    #[error("{0} files of certificates exceed the limit of {MAX_CERTIFICATE_FILES}")]
    TooManyFiles(usize),
    #[error("a raw report needs the certificate of the key that signed it: give --certs FILE")]
    NoCertificates,
    #[error("none of the certificates holds a P-384 key, as the one that signs reports does")]
    NoLeaf,
    #[error("an answer is appraised against a policy: give --policy FILE (docs/policy.md)")]
    NoPolicy,
    #[error("the policy has no [sev_snp] table, so it accepts no report")]
    NoSection,
}

/// Reads a policy; files that it names are sought from its own folder.
pub(super) fn policy(path: &Path) -> Result<Policy, Unusable> {
    let text = String::from_utf8(read(path, MAX_POLICY)?);
    let text = text.map_err(|_| Unusable::NotText { path: path.into() })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut read_file = |name: &str| read_limited(&folder.join(name), MAX_CERTIFICATE_FILE);
    Policy::from_toml(&text, &mut read_file).map_err(|source| Unusable::Policy {
        path: path.into(),
        source,
    })
}

pub(super) fn answer(path: &Path) -> Result<Answer, Unusable> {
    // A line end after the JSON, as editors write it, is white space to the reader.
    let bytes = read(path, MAX_ANSWER)?;
    Answer::from_json(&bytes).map_err(|source| Unusable::Answer {
        path: path.into(),
        source,
    })
}

pub(super) fn report(path: &Path) -> Result<Vec<u8>, Unusable> {
    let found = forms(read(path, MAX_REPORT_FILE)?);
    let mut reports = found
        .into_iter()
        .filter(|bytes| bytes.len() == sev_snp::REPORT_LEN);
    reports.next().ok_or(Unusable::Report { path: path.into() })
}

/// Reads every certificate in the files and puts them into the order of evidence.
pub(super) fn certificates(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Unusable> {
    if paths.len() > MAX_CERTIFICATE_FILES {
        return Err(Unusable::TooManyFiles(paths.len()));
    }
    let mut found = Vec::new();
    for path in paths {
        let in_file = certificates_in(read(path, MAX_CERTIFICATE_FILE)?);
        if in_file.is_empty() {
            return Err(Unusable::Certificate { path: path.clone() });
        }
        found.extend(in_file);
    }
    if found.is_empty() {
        return Err(Unusable::NoCertificates);
    }
    let ordered = sev_snp::order_certificates(&found);
    if ordered.is_empty() {
        return Err(Unusable::NoLeaf);
    }
    Ok(ordered)
}

fn certificates_in(bytes: Vec<u8>) -> Vec<Vec<u8>> {
    match std::str::from_utf8(&bytes) {
        Ok(text) if text.contains(PEM_BEGIN) => {
            let blocks = text.split(PEM_BEGIN).skip(1);
            let bodies = blocks.filter_map(|block| block.split_once(PEM_END));
            bodies.filter_map(|(body, _)| from_base64(body)).collect()
        }
        _ => {
            let mut found = forms(bytes).into_iter();
            let der = found.find(|bytes| bytes.first() == Some(&DER_SEQUENCE));
            der.into_iter().collect()
        }
    }
}

/// What the bytes of a file can be: themselves, and what their text encodes.
fn forms(bytes: Vec<u8>) -> Vec<Vec<u8>> {
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
