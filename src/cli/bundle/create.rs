//! `sealgate bundle create`: vendors' files become a signed bundle, or none does.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use attestation::{
    bundle::{BundleItem, MANIFEST, Manifest, SIGNATURE},
    time::to_rfc3339,
};
use sha2::{Digest as _, Sha256};

use super::{
    Error, parse_time,
    piece::{self, MAX_INPUT, Piece},
    read, read_key, signers,
};
use crate::cli::terminal;

/// Most files that are looked at.
const MAX_INPUTS: usize = 1024;
const DAY: u64 = 24 * 60 * 60;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CreateArgs {
    /// The bundle's folder, which is made; one that is there must be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The key that signs it, from `sealgate bundle keygen`.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Days until the bundle ends, whatever the dates of its files.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    valid_days: u16,
    /// The time to verify at and to date the bundle with, instead of now.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) at: Option<SystemTime>,
    /// Vendors' files, or folders of them: NVIDIA's manifests (XML named by its id, or the service's
    /// JSON), OCSP responses, AMD's revocation lists and certificates of chips' keys, Intel's
    /// collateral.
    #[arg(value_name = "INPUT", required = true)]
    inputs: Vec<PathBuf>,
}

pub(super) fn run(args: &CreateArgs, now: SystemTime) -> Result<ExitCode, Error> {
    let key = read_key(&args.key)?;
    check_empty(&args.out)?;
    let length = Duration::from_secs(u64::from(args.valid_days).saturating_mul(DAY));
    let valid_until = now
        .checked_add(length)
        .ok_or_else(|| Error::Calendar(args.valid_days, to_rfc3339(now)))?;

    let files = files(&args.inputs)?;
    let mut pieces = Vec::new();
    for file in &files {
        let bytes = read(file, MAX_INPUT)?;
        let found = piece::pieces(file, bytes, now).map_err(|source| Error::Piece {
            path: file.clone(),
            source,
        })?;
        match found {
            Some(found) => pieces.extend(found.into_iter().map(|piece| (file, piece))),
            None => terminal::note(format_args!(
                "{}: left out: AMD's authorities are built in",
                file.display()
            )),
        }
    }
    signers::check(&mut pieces, now)?;
    if pieces.is_empty() {
        return Err(Error::Nothing(files.len()));
    }
    let item = |(file, piece): &(&PathBuf, Piece)| BundleItem {
        path: piece.path.clone(),
        kind: piece.kind,
        sha256: Sha256::digest(&piece.content).into(),
        source: source_of(file),
        fetched_at: modified(file).unwrap_or(now),
        valid_until: piece.valid_until,
    };
    let manifest = Manifest {
        created: now,
        valid_until,
        items: pieces.iter().map(item).collect(),
    };
    let manifest = manifest.to_json().map_err(|error| match error {
        attestation::bundle::ManifestError::PathTwice(path) => Error::Twice(path),
        other => Error::Manifest(other),
    })?;
    for (_, piece) in &pieces {
        write(&args.out.join(&piece.path), &piece.content)?;
        let end = to_rfc3339(piece.valid_until);
        terminal::say(format_args!("{}: {}, until {end}", piece.path, piece.what));
    }
    // The manifest last, so that a bundle that was cut short is none.
    write(&args.out.join(SIGNATURE), key.sign(&manifest).as_bytes())?;
    write(&args.out.join(MANIFEST), &manifest)?;
    terminal::say(format_args!(
        "{}: {} files, until {}, sha256 {}",
        args.out.display(),
        pieces.len(),
        to_rfc3339(valid_until),
        hex::encode(Sha256::digest(&manifest))
    ));
    Ok(ExitCode::SUCCESS)
}

fn check_empty(out: &Path) -> Result<(), Error> {
    match fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(Error::NotEmpty {
                path: out.to_owned(),
            }),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::File {
            path: out.to_owned(),
            source,
        }),
    }
}

/// The files themselves, and those directly in folders, sorted; what `fetch` notes of sources is
/// not one of them.
fn files(inputs: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for input in inputs {
        let wrong = |source| Error::File {
            path: input.clone(),
            source,
        };
        if !input.is_dir() {
            files.push(input.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in fs::read_dir(input).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            let is_note = path.extension().is_some_and(|it| it == SOURCE_EXTENSION);
            if path.is_file() && !is_note {
                inside.push(path);
            }
            if inside.len() > MAX_INPUTS {
                return Err(Error::TooManyFiles(MAX_INPUTS));
            }
        }
        inside.sort();
        files.extend(inside);
    }
    if files.len() > MAX_INPUTS {
        return Err(Error::TooManyFiles(MAX_INPUTS));
    }
    Ok(files)
}

/// What the note that `fetch` puts beside a file is called.
pub(super) const SOURCE_EXTENSION: &str = "source";
/// Longest source, in bytes.
const MAX_SOURCE: usize = 1024;

/// The address that `fetch` noted, or the file's path.
fn source_of(file: &Path) -> String {
    let mut note = file.as_os_str().to_owned();
    note.push(".");
    note.push(SOURCE_EXTENSION);
    let noted = read(Path::new(&note), MAX_SOURCE).ok();
    let noted = noted.and_then(|bytes| String::from_utf8(bytes).ok());
    let mut source = noted.map_or_else(|| file.display().to_string(), |it| it.trim().to_owned());
    while source.len() > MAX_SOURCE {
        source.pop();
    }
    source
}

fn modified(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).ok()?.modified().ok()
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = folder.and_then(|()| fs::write(path, bytes));
    written.map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}
