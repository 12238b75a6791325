//! `sealgate policy`: what a policy accepts, why it refuses, what a new one would change.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use attestation::{Nonce, Policy};
use clap::{Args, Subcommand};

use super::{
    terminal,
    verify::{
        input::{self, Unusable},
        parse_time,
    },
};
use crate::clock::Clock;

mod archive;
mod diff;
mod explain;
mod propose;
mod remedy;
pub(super) mod warnings;

/// Exit code for a policy or evidence that does not pass.
const REFUSED: u8 = 1;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say what a policy accepts and what in it deserves a second look.
    Check {
        /// The policy.
        policy: PathBuf,
    },
    /// Say for evidence which checks fail, and what would satisfy each.
    Explain {
        /// The policy.
        policy: PathBuf,
        #[command(flatten)]
        evidence: Evidence,
        /// A bundle's folder (`sealgate bundle`), believed if a signer that the policy names signed it.
        #[arg(long, value_name = "DIR")]
        bundle: Option<PathBuf>,
    },
    /// Say which nodes a new policy would drop or admit, before it is put in force. Of an archive, the
    /// newest evidence of each node counts.
    Diff {
        /// The policy in force.
        old: PathBuf,
        /// The policy that may follow it.
        new: PathBuf,
        #[command(flatten)]
        evidence: Evidence,
        /// A bundle's folder (`sealgate bundle`), believed if a signer that a policy names signed it.
        #[arg(long, value_name = "DIR")]
        bundle: Option<PathBuf>,
    },
    /// Propose a policy from evidence that you trust for other reasons; every line of it waits for
    /// you to confirm it.
    FromEvidence {
        #[command(flatten)]
        evidence: Evidence,
    },
}

/// Evidence from files.
#[derive(Args, Debug)]
pub(super) struct Evidence {
    /// Answers of nodes (`curl 'http://NODE/v1/attestation?nonce=…'`), or the folder in which a
    /// gateway archives evidence.
    #[arg(value_name = "EVIDENCE", required = true)]
    files: Vec<PathBuf>,
    /// The nonce that an answer was asked with, 64 lower-case hex digits.
    #[arg(long, value_name = "HEX")]
    nonce: Option<Nonce>,
    /// The time to appraise at: RFC 3339 in UTC or Unix seconds. Now, if left out.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<SystemTime>,
    /// What vendors sign beside the evidence, as for `sealgate verify`.
    #[arg(long, value_name = "FILE")]
    collateral: Vec<PathBuf>,
}

impl Evidence {
    fn now(&self) -> SystemTime {
        self.at.unwrap_or_else(|| Clock::system().now())
    }
}

/// Runs the command.
pub(super) fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Check { policy } => check(&policy),
        Command::Explain {
            policy,
            evidence,
            bundle,
        } => explain::run(&policy, &evidence, bundle.as_deref()),
        Command::Diff {
            old,
            new,
            evidence,
            bundle,
        } => diff::run(&old, &new, &evidence, bundle.as_deref()),
        Command::FromEvidence { evidence } => propose::run(&evidence),
    };
    done.unwrap_or_else(terminal::fail)
}

fn check(path: &Path) -> Result<ExitCode, Unusable> {
    let policy = input::policy(path)?;
    let review = policy.review();
    let verdict = match (review.accepts_no_node, review.reasons.is_empty()) {
        (true, _) => "accepts no node",
        (false, true) => "nothing wrong",
        (false, false) => "a part of it accepts nothing",
    };
    terminal::say(format_args!("{}: a policy, {verdict}", path.display()));
    terminal::say(format_args!("digest {}", hex::encode(policy.digest())));
    for line in accepted(&policy) {
        terminal::say(format_args!("accepts {line}"));
    }
    for reason in &review.reasons {
        terminal::say(format_args!("wrong: {reason}"));
    }
    for warning in warnings::of(&policy) {
        terminal::say(format_args!("look again: {warning}"));
    }
    Ok(if review.accepts_no_node {
        ExitCode::from(REFUSED)
    } else {
        ExitCode::SUCCESS
    })
}

/// The kinds of evidence that a policy has a table for.
fn accepted(policy: &Policy) -> Vec<&'static str> {
    let kinds = [
        (policy.sev_snp().is_some(), "AMD SEV-SNP ([sev_snp])"),
        (policy.tdx().is_some(), "Intel TDX ([tdx])"),
        (policy.nitro().is_some(), "AWS Nitro Enclaves ([nitro])"),
        (policy.nvidia().is_some(), "NVIDIA devices ([nvidia])"),
    ];
    let there: Vec<_> = kinds
        .into_iter()
        .filter_map(|(there, name)| there.then_some(name))
        .collect();
    match there.as_slice() {
        [] => vec!["nothing: it has no table for any kind of evidence"],
        _ => there,
    }
}

/// `1 check`, `2 checks`.
fn count(number: usize, what: &str) -> impl fmt::Display {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {what}{ending}")
}
