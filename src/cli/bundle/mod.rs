//! `sealgate bundle`: collateral and reference values, checked once, signed by the operator.
//!
//! This is the only place where NVIDIA's XML is read, and `fetch` the only one that asks vendors'
//! services. The roles read what was made here.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use attestation::{bundle::BundleKey, chain::StatusError};
use clap::Subcommand;
use zeroize::Zeroizing;

use super::{terminal, verify::parse_time};
use crate::{
    clock::Clock,
    config::{self, bundle::BundleFolderError},
};
use check::CheckArgs;
use create::CreateArgs;
use fetch::FetchArgs;

mod check;
mod create;
mod fetch;
mod piece;
mod signers;
#[cfg(test)]
mod tests;

/// Exit code for a bundle that is not in force.
const REFUSED: u8 = 1;
/// Longest key file, in bytes.
const MAX_KEY_FILE: usize = 4 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the key that signs bundles, and print what a policy lists in `bundle_signers`.
    Keygen {
        /// Where the key goes, readable by its owner alone; nothing is written over.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Check vendors' files and make a signed bundle of them.
    Create(CreateArgs),
    /// Verify a bundle: signature, digests, dates, and NVIDIA's manifests again.
    Check(CheckArgs),
    /// List what a folder's manifest names, with ages and ends; nothing is verified.
    Show {
        /// The bundle's folder.
        folder: PathBuf,
        /// The time to tell ages at, instead of now.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        at: Option<SystemTime>,
    },
    /// Download files from the vendors' services, for `create`; nothing is believed.
    Fetch(FetchArgs),
}

/// What can be wrong with a bundle or its files.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{}: {}", path.display(), config::in_words(source))]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Key {
        path: PathBuf,
        source: attestation::bundle::BundleKeyError,
    },
    #[error("{}: {source}", path.display())]
    Piece {
        path: PathBuf,
        source: piece::PieceError,
    },
    #[error(
        "{}: NVIDIA's manifest: signed under {source}: {}",
        path.display(),
        signers::remedy(path, source)
    )]
    Signer { path: PathBuf, source: StatusError },
    #[error(transparent)]
    Policy(#[from] super::verify::input::Unusable),
    #[error(transparent)]
    Folder(#[from] BundleFolderError),
    #[error("manifest: {0}")]
    Manifest(#[from] attestation::bundle::ManifestError),
    #[error("{}: not empty: give a new folder", path.display())]
    NotEmpty { path: PathBuf },
    #[error("nothing to put in a bundle: {0} files, and none is a piece of one")]
    Nothing(usize),
    #[error("more than {0} files")]
    TooManyFiles(usize),
    #[error("two files give `{0}`")]
    Twice(String),
    #[error("{0} days from {1} is beyond the calendar")]
    Calendar(u16, String),
    #[error(transparent)]
    Fetch(#[from] fetch::FetchFailed),
}

pub(super) fn run(command: Command) -> ExitCode {
    let now = Clock::system().now();
    let done = match command {
        Command::Keygen { out } => keygen(&out).map(|()| ExitCode::SUCCESS),
        Command::Create(args) => create::run(&args, args.at.unwrap_or(now)),
        Command::Check(args) => check::run(&args, args.at.unwrap_or(now)),
        Command::Show { folder, at } => check::show(&folder, at.unwrap_or(now)),
        Command::Fetch(args) => fetch::run(&args),
    };
    done.unwrap_or_else(terminal::fail)
}

fn keygen(out: &Path) -> Result<(), Error> {
    let wrong = |source| Error::Key {
        path: out.to_owned(),
        source,
    };
    let (key, pem) = BundleKey::generate().map_err(wrong)?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(out);
    let written = file.and_then(|mut file| {
        file.write_all(pem.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| Error::File {
        path: out.to_owned(),
        source,
    })?;
    let public_key = hex::encode(key.public_key());
    terminal::say(&public_key);
    terminal::note(format_args!(
        "list this public key at the top of the policy:\nbundle_signers = [\"{public_key}\"]"
    ));
    Ok(())
}

fn read_key(path: &Path) -> Result<BundleKey, Error> {
    let bytes = Zeroizing::new(read(path, MAX_KEY_FILE)?);
    let pem = std::str::from_utf8(&bytes).unwrap_or_default();
    BundleKey::from_pem(pem).map_err(|source| Error::Key {
        path: path.to_owned(),
        source,
    })
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Error> {
    config::bundle::read(path, limit).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}
