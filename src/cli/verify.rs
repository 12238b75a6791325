//! `sealgate verify`: appraises evidence from files, offline.
//!
//! A line for each check, with what was expected and what was seen. Exit code 0 means that every
//! file was accepted, 1 that one was refused, 2 that one could not be used.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use attestation::{
    Appraisal, Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, Nonce, Policy,
    ReportNonce, appraise, appraise_item, time::from_rfc3339,
};
use clap::{Args, ValueEnum};
use sha2::{Digest as _, Sha256};

use super::terminal;
use crate::clock::{self, Clock};
use input::Unusable;

pub(super) mod input;
pub(super) mod output;
mod raw;

/// Exit code for evidence that was refused.
const REFUSED: u8 = 1;
/// 9999-12-31T23:59:59Z, the last time that has a text (RFC 3339).
const LAST_SECOND: u64 = 253_402_300_799;

/// What the command line says.
#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// A node's answer (`curl 'http://NODE/v1/attestation?nonce=…'`), or with --tee a report as the
    /// hardware gave it: binary, hex or base64.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// What to accept (docs/policy.md). With --tee it may be left out: then the checks that need
    /// none are made, and nothing is accepted.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A bundle's folder (`sealgate bundle`), if one of the policy's `bundle_signers` signed it.
    #[arg(long, value_name = "DIR", requires = "policy")]
    bundle: Option<PathBuf>,
    /// The nonce that was asked with, in lower-case hex: of an answer 64 digits; with --tee that of a
    /// GPU's report, a Nitro document or Azure's quote, as long as it is. Without it, evidence is not
    /// shown to be fresh.
    #[arg(long, value_name = "HEX")]
    nonce: Option<ReportNonce>,
    /// The time to appraise at: RFC 3339 in UTC (2026-06-01T00:00:00Z) or Unix seconds. Now, if
    /// left out.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<SystemTime>,
    /// Read raw reports of this kind instead of answers.
    #[arg(long, value_enum, value_name = "TEE")]
    tee: Option<Tee>,
    /// Certificates of the key that signed: PEM or DER, one or several. What is built in, stands in
    /// the report or is among --collateral may be left out. For several GPUs' reports one file each,
    /// in the same order; of several chips' certificates each report gets its own.
    #[arg(long, value_name = "FILE", requires = "tee")]
    certs: Vec<PathBuf>,
    /// What vendors sign beside the evidence: Intel's collateral (JSON), OCSP responses, AMD's
    /// revocation lists, each found out by looking.
    #[arg(long, value_name = "FILE")]
    collateral: Vec<PathBuf>,
    /// What the report must carry as report data, 128 hex digits.
    #[arg(long, value_name = "HEX", requires = "tee", value_parser = parse_report_data)]
    report_data: Option<[u8; 64]>,
    /// Write JSON instead of lines.
    #[arg(long)]
    json: bool,
}

/// Raw reports that can be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Tee {
    /// AMD SEV-SNP.
    SevSnp,
    /// Intel TDX: a quote.
    Tdx,
    /// AWS Nitro Enclaves: an attestation document.
    Nitro,
    /// An NVIDIA GPU: an SPDM report, or the JSON that NVIDIA's tools write.
    NvidiaGpu,
    /// An NVIDIA NVSwitch, likewise.
    NvidiaNvswitch,
    /// SEV-SNP as Azure's virtual TPM carries it.
    AzureSnp,
}

impl Tee {
    fn kind(self) -> EvidenceKind {
        match self {
            Self::SevSnp => EvidenceKind::SevSnp,
            Self::Tdx => EvidenceKind::Tdx,
            Self::Nitro => EvidenceKind::Nitro,
            Self::NvidiaGpu => EvidenceKind::NvidiaGpu,
            Self::NvidiaNvswitch => EvidenceKind::NvidiaNvswitch,
            Self::AzureSnp => EvidenceKind::AzureSnp,
        }
    }
}

/// What is asked of every file.
struct Question {
    bundle: Bundle,
    collateral: Collateral,
    of: Of,
}

/// What is asked about.
enum Of {
    Answers {
        policy: Box<Policy>,
        nonce: Option<Nonce>,
    },
    Reports {
        policy: Option<Box<Policy>>,
        kind: EvidenceKind,
        certificates: raw::Certificates,
        expected: Box<Expected>,
    },
}

/// A piece of evidence, judged.
pub(super) struct Judged {
    /// Its file, and its number there if it is one of several.
    name: PathBuf,
    /// SHA-256 of the file.
    sha256: [u8; 32],
    /// The certificate that stays with an NVIDIA device.
    device: Option<Vec<u8>>,
    appraisal: Appraisal,
}

/// Runs the command.
pub(super) fn run(args: &VerifyArgs) -> ExitCode {
    let now = args.at.unwrap_or_else(|| Clock::system().now());
    let (judged, unusable) = match judge_all(args, now) {
        Ok(judged) => judged,
        Err(unusable) => return terminal::fail(unusable),
    };
    if args.json && !judged.is_empty() {
        terminal::say(output::json(&judged));
    } else {
        let style = output::Style::of_stdout();
        for one in &judged {
            terminal::say(output::text(one, style));
        }
    }
    for (one, other) in same_devices(&judged) {
        terminal::note(format_args!(
            "{} and {} are reports of one device, which counts once",
            one.display(),
            other.display()
        ));
    }
    if args.tee.is_none() && args.nonce.is_none() && !judged.is_empty() {
        terminal::note("without --nonce nothing shows that the evidence is fresh");
    }
    let refused = judged.iter().any(|it| !it.appraisal.accepted());
    let code = if refused {
        ExitCode::from(REFUSED)
    } else {
        ExitCode::SUCCESS
    };
    unusable
        .into_iter()
        .map(terminal::fail)
        .last()
        .unwrap_or(code)
}

/// Judges every file, and says which ones cannot be used.
fn judge_all(args: &VerifyArgs, now: SystemTime) -> Result<(Vec<Judged>, Vec<Unusable>), Unusable> {
    // Who misspelt a file wants to know that first.
    let absent = || args.files.iter().find_map(|path| input::absent(path));
    let question = Question::from_args(args).map_err(|wrong| absent().unwrap_or(wrong))?;
    let (mut judged, mut unusable) = (Vec::new(), Vec::new());
    for (number, path) in args.files.iter().enumerate() {
        match question.judge(path, number, now) {
            Ok(of_file) => judged.extend(of_file),
            Err(wrong) => unusable.push(wrong),
        }
    }
    Ok((judged, unusable))
}

/// Each report of an NVIDIA device with the one before that is of the same device.
fn same_devices(judged: &[Judged]) -> Vec<(&Path, &Path)> {
    let mut same = Vec::new();
    for (at, one) in judged.iter().enumerate() {
        let mut before = judged.iter().take(at);
        let twin = before.find(|it| it.device.is_some() && it.device == one.device);
        same.extend(twin.map(|twin| (twin.name.as_path(), one.name.as_path())));
    }
    same
}

impl Question {
    fn from_args(args: &VerifyArgs) -> Result<Self, Unusable> {
        let policy = args.policy.as_deref().map(input::policy).transpose()?;
        let bundle = input::bundle(args.bundle.as_deref(), policy.as_ref())?;
        let collateral = input::collateral(&args.collateral)?;
        let policy = policy.map(Box::new);
        let of = match args.tee {
            Some(tee) => {
                let kind = tee.kind();
                raw::check_arguments(kind, args.nonce.is_some(), args.report_data.is_some())?;
                let kept = [&collateral, bundle.collateral()];
                let has_kept = kept.iter().any(|it| !it.amd_certificates.is_empty());
                let reports = args.files.len();
                Of::Reports {
                    policy,
                    kind,
                    certificates: raw::Certificates::read(kind, &args.certs, reports, has_kept)?,
                    expected: Box::new(Expected {
                        report_data: args.report_data,
                        nonce: args.nonce,
                    }),
                }
            }
            None => Of::Answers {
                policy: policy.ok_or(Unusable::NoPolicy)?,
                nonce: args.nonce.as_ref().map(of_answer).transpose()?,
            },
        };
        Ok(Self {
            bundle,
            collateral,
            of,
        })
    }

    /// Judges file `number`, counted from 0, which can hold several devices.
    fn judge(&self, path: &Path, number: usize, now: SystemTime) -> Result<Vec<Judged>, Unusable> {
        let bytes = input::evidence(path)?;
        let sha256 = Sha256::digest(&bytes).into();
        match &self.of {
            Of::Answers { policy, nonce } => {
                let mut answer =
                    input::parse_answer(path, &bytes).map_err(|wrong| wrong.hint_at_tee(&bytes))?;
                for item in &mut answer.evidence {
                    input::add(&mut item.collateral, &self.collateral);
                }
                Ok(vec![Judged {
                    name: path.to_owned(),
                    sha256,
                    device: None,
                    appraisal: appraise(&answer, policy, &self.bundle, nonce.as_ref(), now),
                }])
            }
            Of::Reports {
                policy,
                kind,
                certificates,
                expected,
            } => {
                let items = raw::items(*kind, path, bytes, number, certificates)?;
                let several = items.len() > 1;
                let judged = items.into_iter().zip(1..).map(|(mut item, number)| {
                    input::add(&mut item.collateral, &self.collateral);
                    Judged {
                        name: if several {
                            format!("{}, number {number}", path.display()).into()
                        } else {
                            path.to_owned()
                        },
                        sha256,
                        appraisal: self.judge_item(&item, policy.as_deref(), **expected, now),
                        device: item
                            .certificates
                            .get(1)
                            .filter(|_| !item.kind.is_cpu())
                            .cloned(),
                    }
                });
                Ok(judged.collect())
            }
        }
    }

    fn judge_item(
        &self,
        item: &EvidenceItem,
        policy: Option<&Policy>,
        expected: Expected,
        now: SystemTime,
    ) -> Appraisal {
        let appraisal = appraise_item(item, policy, &self.bundle, expected, now);
        match policy.and_then(Policy::nvidia) {
            Some(nvidia) if !item.kind.is_cpu() => appraisal.of_device_alone(nvidia),
            _ => appraisal,
        }
    }
}

fn of_answer(nonce: &ReportNonce) -> Result<Nonce, Unusable> {
    let bytes = <[u8; 32]>::try_from(nonce.as_bytes());
    bytes.map(Nonce::from).map_err(|_| Unusable::NonceLength)
}

pub(super) fn parse_time(text: &str) -> Result<SystemTime, &'static str> {
    let unix = text.parse().ok();
    if unix.is_some_and(|seconds| seconds > LAST_SECOND) {
        return Err("after the year 9999: give Unix seconds, not milliseconds");
    }
    unix.and_then(clock::from_unix_seconds)
        .or_else(|| from_rfc3339(text))
        .ok_or("neither a time such as 2026-06-01T00:00:00Z nor Unix seconds")
}

fn parse_report_data(text: &str) -> Result<[u8; 64], &'static str> {
    let mut bytes = [0; 64];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| "not 128 hex digits")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
