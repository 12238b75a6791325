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
    Appraisal, Bundle, Collateral, EvidenceKind, Expected, Nonce, Policy, appraise, appraise_item,
    time::from_rfc3339,
};
use clap::{Args, ValueEnum};

use super::terminal;
use crate::clock::{self, Clock};
use input::Unusable;

pub(super) mod input;
pub(super) mod output;
mod raw;

/// Exit code for evidence that was refused.
const REFUSED: u8 = 1;

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
    /// The nonce that was asked with, 64 lower-case hex digits: an answer's, or with --tee that of a
    /// GPU's report or a Nitro document. Without it, evidence is not shown to be fresh.
    #[arg(long, value_name = "HEX")]
    nonce: Option<Nonce>,
    /// The time to appraise at: RFC 3339 in UTC (2026-06-01T00:00:00Z) or Unix seconds. Now, if
    /// left out.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<SystemTime>,
    /// Read raw reports of this kind instead of answers.
    #[arg(long, value_enum, value_name = "TEE")]
    tee: Option<Tee>,
    /// Certificates of the key that signed: PEM or DER, one or several. What is built in or stands
    /// in the report may be left out.
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
    policy: Option<Policy>,
    bundle: Bundle,
    collateral: Collateral,
    nonce: Option<Nonce>,
    raw: Option<Raw>,
}

/// What is asked of raw reports.
struct Raw {
    kind: EvidenceKind,
    certificates: Vec<Vec<u8>>,
    report_data: Option<[u8; 64]>,
}

/// Runs the command.
pub(super) fn run(args: VerifyArgs) -> ExitCode {
    let now = args.at.unwrap_or_else(|| Clock::system().now());
    let appraised = match appraise_all(&args, now) {
        Ok(appraised) => appraised,
        Err(unusable) => return terminal::fail(unusable),
    };
    if args.json {
        terminal::say(output::json(&appraised));
    } else {
        let style = output::Style::of_stdout();
        for (path, appraisal) in &appraised {
            terminal::say(output::text(path, appraisal, style));
        }
    }
    if args.tee.is_none() && args.nonce.is_none() {
        terminal::note("without --nonce nothing shows that the evidence is fresh");
    }
    if appraised.iter().all(|(_, appraisal)| appraisal.accepted()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    }
}

/// Appraises every file. One that cannot be used ends the command before anything is printed, so
/// that no verdict is taken for one over all of them.
fn appraise_all(args: &VerifyArgs, now: SystemTime) -> Result<Vec<(PathBuf, Appraisal)>, Unusable> {
    let question = Question::from_args(args)?;
    let mut appraised = Vec::new();
    for path in &args.files {
        appraised.extend(question.appraise(path, now)?);
    }
    Ok(appraised)
}

impl Question {
    fn from_args(args: &VerifyArgs) -> Result<Self, Unusable> {
        let policy = args.policy.as_deref().map(input::policy).transpose()?;
        let raw = match args.tee {
            Some(tee) => {
                let kind = tee.kind();
                raw::check_arguments(kind, args.nonce.is_some(), args.report_data.is_some())?;
                Some(Raw {
                    kind,
                    certificates: raw::certificates(kind, &args.certs)?,
                    report_data: args.report_data,
                })
            }
            None if policy.is_none() => return Err(Unusable::NoPolicy),
            None => None,
        };
        Ok(Self {
            bundle: input::bundle(args.bundle.as_deref(), policy.as_ref())?,
            policy,
            collateral: input::collateral(&args.collateral)?,
            nonce: args.nonce,
            raw,
        })
    }

    /// Appraises a file, which can hold several devices.
    fn appraise(
        &self,
        path: &Path,
        now: SystemTime,
    ) -> Result<Vec<(PathBuf, Appraisal)>, Unusable> {
        match (&self.raw, &self.policy) {
            (Some(raw), _) => self.appraise_raw(raw, path, now),
            (None, None) => Err(Unusable::NoPolicy),
            (None, Some(policy)) => {
                let mut answer = input::answer(path)?;
                for item in &mut answer.evidence {
                    input::add(&mut item.collateral, &self.collateral);
                }
                let nonce = self.nonce.as_ref();
                let appraisal = appraise(&answer, policy, &self.bundle, nonce, now);
                Ok(vec![(path.to_owned(), appraisal)])
            }
        }
    }

    fn appraise_raw(
        &self,
        raw: &Raw,
        path: &Path,
        now: SystemTime,
    ) -> Result<Vec<(PathBuf, Appraisal)>, Unusable> {
        let policy = self.policy.as_ref();
        if let Some(table) = policy.and_then(|policy| raw::missing_table(raw.kind, policy)) {
            return Err(Unusable::NoSection { table });
        }
        let expected = Expected {
            report_data: raw.report_data,
            nonce: self.nonce.map(|nonce| *nonce.as_bytes()),
        };
        let items = raw::items(raw.kind, path, &raw.certificates)?;
        let several = items.len() > 1;
        let appraised = items.into_iter().zip(1..).map(|(mut item, number)| {
            input::add(&mut item.collateral, &self.collateral);
            let appraisal = appraise_item(&item, policy, &self.bundle, expected, now);
            let name = if several {
                format!("{}, number {number}", path.display()).into()
            } else {
                path.to_owned()
            };
            (name, appraisal)
        });
        Ok(appraised.collect())
    }
}

pub(super) fn parse_time(text: &str) -> Result<SystemTime, &'static str> {
    let unix = text.parse().ok().and_then(clock::from_unix_seconds);
    unix.or_else(|| from_rfc3339(text))
        .ok_or("neither a time such as 2026-06-01T00:00:00Z nor Unix seconds")
}

fn parse_report_data(text: &str) -> Result<[u8; 64], &'static str> {
    let mut bytes = [0; 64];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| "not 128 hex digits")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
