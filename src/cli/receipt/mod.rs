//! `sealgate receipt verify`: a receipt with all that it rests on, judged from one file, offline.
//!
//! A line for each check, with what was expected and what was seen. Exit code 0 means that all was
//! accepted, 1 that something was refused, 2 that an input could not be used.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use attestation::{Policy, PolicyError};
use clap::{Args, Subcommand};

use self::judge::{Inputs, Judged, judge};
use super::{
    terminal,
    verify::{
        input::{self, Unusable as NoPolicy},
        output::Style,
        parse_time,
    },
};
use crate::{
    config,
    receipts::{MAX_FILE, ReceiptFile, ReceiptFileError},
};

mod judge;
mod output;

/// Exit code for what was refused.
const REFUSED: u8 = 1;
/// Longest prompt or answer that is read: an image's reply in base64.
const MAX_CONTENT: usize = 256 * 1024 * 1024;

/// What can be done with receipts.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Verify a receipt with all that it rests on, offline: evidence, statement, signature, and that a
    /// prompt or an answer is the one that it is of.
    Verify(VerifyArgs),
}

/// What the command line says.
#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// What a gateway gave: `curl -H 'Authorization: Bearer KEY' -o FILE
    /// 'http://GATEWAY/v1/receipts/ID?bundle=1'`, byte for byte.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What to accept, in place of the policy in the file, which is the gateway's word
    /// (docs/policy.md).
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The body that was sent, byte for byte: proves that the receipt is of it.
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// The body that was got: proves that the receipt is of it. An event stream may be as `curl -N`
    /// wrote it.
    #[arg(long, value_name = "FILE")]
    response: Option<PathBuf>,
    /// When to judge the evidence, in place of when the gateway did, which is its word: RFC 3339, or
    /// seconds since the Unix epoch. How fresh it was is judged by when the gateway asked for it.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<SystemTime>,
    /// Write JSON instead of lines.
    #[arg(long)]
    json: bool,
}

/// Why an input cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{}: {}", path.display(), config::in_words(source))]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        source: ReceiptFileError,
    },
    #[error(transparent)]
    Policy(#[from] NoPolicy),
    #[error("{}: the policy in it: {source}", path.display())]
    PolicyInside { path: PathBuf, source: PolicyError },
}

/// Runs a command.
pub(super) fn run(command: &Command) -> ExitCode {
    let Command::Verify(args) = command;
    match verify(args) {
        Ok(judged) => {
            if args.json {
                terminal::say(output::json(&args.file, &judged));
            } else {
                terminal::say(output::text(&args.file, &judged, Style::of_stdout()));
            }
            if judged.is_accepted() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(REFUSED)
            }
        }
        Err(Unusable::File {
            path,
            source: source @ ReceiptFileError::Digest { .. },
        }) => {
            terminal::note(format_args!("{}: refused: {source}", path.display()));
            ExitCode::from(REFUSED)
        }
        Err(unusable) => terminal::fail(unusable),
    }
}

fn verify(args: &VerifyArgs) -> Result<Judged, Unusable> {
    let content = |path: &Option<PathBuf>| {
        let path = path.as_deref();
        path.map(|path| read(path, MAX_CONTENT)).transpose()
    };
    let (request, response) = (content(&args.request)?, content(&args.response)?);
    let given = args.policy.as_deref().map(input::policy).transpose()?;
    let bytes = read(&args.file, MAX_FILE)?;
    let file = ReceiptFile::from_json(&bytes).map_err(|source| Unusable::File {
        path: args.file.clone(),
        source,
    })?;
    let is_given = given.is_some();
    let policy = given.map_or_else(|| policy_inside(&args.file, &file), Ok)?;
    Ok(judge(
        &file,
        &Inputs {
            policy,
            is_given,
            at: args.at,
            request,
            response,
        },
    ))
}

fn policy_inside(path: &Path, file: &ReceiptFile) -> Result<Policy, Unusable> {
    file.policy.read().map_err(|source| Unusable::PolicyInside {
        path: path.to_owned(),
        source,
    })
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Unusable> {
    config::bundle::read(path, limit).map_err(|source| Unusable::Read {
        path: path.to_owned(),
        source,
    })
}
