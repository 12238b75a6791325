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
    Answer, Appraisal, Bundle, Collateral, EvidenceItem, EvidenceKind, Expected, Nonce, Policy,
    appraise, appraise_item, time::from_rfc3339,
};
use clap::{Args, ValueEnum};

use super::terminal;
use crate::clock::{self, Clock};
use input::Unusable;

mod input;
mod output;

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
    /// The nonce that the answer was asked with, 64 lower-case hex digits. Without it, evidence is
    /// not shown to be fresh.
    #[arg(long, value_name = "HEX", conflicts_with = "tee")]
    nonce: Option<Nonce>,
    /// The time to appraise at: RFC 3339 in UTC (2026-06-01T00:00:00Z) or Unix seconds. Now, if
    /// left out.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<SystemTime>,
    /// Read raw reports of this kind instead of answers.
    #[arg(long, value_enum, value_name = "TEE")]
    tee: Option<Tee>,
    /// Certificates of the key that signed: PEM or DER, one or several. The authority may be left
    /// out where it is built in.
    #[arg(long, value_name = "FILE", requires = "tee")]
    certs: Vec<PathBuf>,
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
}

/// What is asked of every file.
enum Question {
    /// Whether a node's answer passes.
    Answer {
        policy: Policy,
        nonce: Option<Nonce>,
    },
    /// Whether a raw SEV-SNP report passes.
    SevSnp {
        policy: Option<Policy>,
        certificates: Vec<Vec<u8>>,
        report_data: Option<[u8; 64]>,
    },
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
    let one = |path: &PathBuf| Ok((path.clone(), question.appraise(path, now)?));
    args.files.iter().map(one).collect()
}

impl Question {
    fn from_args(args: &VerifyArgs) -> Result<Self, Unusable> {
        let policy = args.policy.as_deref().map(input::policy).transpose()?;
        match args.tee {
            Some(Tee::SevSnp) => Ok(Self::SevSnp {
                policy,
                certificates: input::certificates(&args.certs)?,
                report_data: args.report_data,
            }),
            None => Ok(Self::Answer {
                policy: policy.ok_or(Unusable::NoPolicy)?,
                nonce: args.nonce,
            }),
        }
    }

    fn appraise(&self, path: &Path, now: SystemTime) -> Result<Appraisal, Unusable> {
        match self {
            Self::Answer { policy, nonce } => {
                let answer: Answer = input::answer(path)?;
                Ok(appraise(
                    &answer,
                    policy,
                    &Bundle::empty(),
                    nonce.as_ref(),
                    now,
                ))
            }
            Self::SevSnp {
                policy,
                certificates,
                report_data,
            } => {
                let report = input::report(path)?;
                if policy.as_ref().is_some_and(|it| it.sev_snp().is_none()) {
                    return Err(Unusable::NoSection);
                }
                let item = EvidenceItem {
                    kind: EvidenceKind::SevSnp,
                    report,
                    certificates: certificates.clone(),
                    collateral: Collateral::default(),
                };
                let expected = Expected {
                    report_data: *report_data,
                    nonce: None,
                };
                Ok(appraise_item(
                    &item,
                    policy.as_ref(),
                    &Bundle::empty(),
                    expected,
                    now,
                ))
            }
        }
    }
}

fn parse_time(text: &str) -> Result<SystemTime, &'static str> {
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
