//! `sealgate bundle check` and `show`: what is in a bundle, and whether it holds.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use attestation::{
    bundle::{BundleItem, ItemKind, MANIFEST, MAX_FILE, MAX_MANIFEST, Manifest},
    nvidia::GoldenMeasurements,
    time::to_rfc3339,
};
use clap::ArgGroup;
use sha2::{Digest as _, Sha256};

use super::{Error, REFUSED, parse_time, piece::PieceError, read};
use crate::{
    cli::{terminal, verify::input},
    config,
};

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("believed").required(true).args(["signer", "policy"])))]
pub(in crate::cli) struct CheckArgs {
    /// The bundle's folder.
    folder: PathBuf,
    /// The public key that must have signed it, 64 hex digits; may be given several times.
    #[arg(long, value_name = "HEX", value_parser = parse_key)]
    signer: Vec<[u8; 32]>,
    /// The policy whose `bundle_signers` may have signed it.
    #[arg(long, value_name = "FILE", conflicts_with = "signer")]
    policy: Option<PathBuf>,
    /// The time to check at, instead of now.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) at: Option<SystemTime>,
}

/// Exit code 0 for a bundle that is in force whole, 1 for one that is not, 2 for none.
pub(super) fn run(args: &CheckArgs, now: SystemTime) -> Result<ExitCode, Error> {
    let bundle = match &args.policy {
        Some(policy) => config::bundle::load(&args.folder, &input::policy(policy)?)?,
        None => config::bundle::load_signed(&args.folder, &args.signer)?,
    };
    let mut complaints = 0_usize;
    let mut complain = |line: String| {
        complaints += 1;
        terminal::say(line);
    };
    let mut backed = Vec::new();
    for item in bundle.items() {
        if now >= item.valid_until {
            let end = to_rfc3339(item.valid_until);
            complain(format!("{}: ended at {end}", item.path));
        }
        if item.kind == ItemKind::GpuRim {
            match read_rim(&args.folder, item, now)? {
                Ok(golden) => backed.push((item, golden)),
                Err(error) => complain(format!("{}: {error}", item.path)),
            }
        }
    }
    let golden = bundle.golden_measurements();
    for (item, signed) in &backed {
        if !golden.contains(signed) {
            complain(format!("{}: {}", item.path, Mismatch::Golden));
        }
    }
    for of_bundle in golden {
        if !backed.iter().any(|(_, signed)| signed == of_bundle) {
            let id = &of_bundle.id;
            complain(format!(
                "golden measurements of {id}: {}",
                Mismatch::Unbacked
            ));
        }
    }
    if bundle.items().iter().any(|it| it.kind == ItemKind::GpuRim) {
        terminal::say(
            "whether NVIDIA revoked the signers of its manifests was asked when the bundle was made, \
             and is not here",
        );
    }
    if let Some(manifest) = bundle.manifest() {
        let (from, to) = (
            to_rfc3339(manifest.created),
            to_rfc3339(manifest.valid_until),
        );
        if manifest.is_valid_at(now) {
            terminal::say(format_args!("in force from {from} to {to}"));
        } else {
            complain(format!(
                "in force from {from} to {to}, not at {}",
                to_rfc3339(now)
            ));
        }
    }
    let hex = |bytes: Option<&[u8; 32]>| bytes.map(hex::encode).unwrap_or_default();
    terminal::say(format_args!(
        "{} files, sha256 {}, signed by {}",
        bundle.items().len(),
        hex(bundle.digest()),
        hex(bundle.signer())
    ));
    Ok(match complaints {
        0 => ExitCode::SUCCESS,
        _ => {
            terminal::say("not all of it is in force and as it must be: see above");
            ExitCode::from(REFUSED)
        }
    })
}

/// Verifies a manifest of NVIDIA's again, and gives the golden measurements that it signs.
fn read_rim(
    folder: &Path,
    item: &BundleItem,
    now: SystemTime,
) -> Result<Result<GoldenMeasurements, Mismatch>, Error> {
    let path = item.path.as_str();
    let name = path.strip_prefix("nvidia/");
    let Some(id) = name.and_then(|name| name.strip_suffix(".xml")) else {
        return Ok(Err(Mismatch::Place));
    };
    let xml = read(&folder.join(path), MAX_FILE)?;
    // The file may have changed since the bundle was loaded.
    if Sha256::digest(&xml).as_slice() != item.sha256 {
        return Ok(Err(Mismatch::Digest));
    }
    let rim = rim::verify(&xml, id, now);
    Ok(rim
        .map(|rim| rim.golden)
        .map_err(|error| Mismatch::Rim(error.into())))
}

/// What a manifest of NVIDIA's shows.
#[derive(Debug, thiserror::Error)]
enum Mismatch {
    #[error(transparent)]
    Rim(PieceError),
    #[error("not at nvidia/ID.xml, where NVIDIA's manifests lie")]
    Place,
    #[error("not the file whose digest was signed")]
    Digest,
    #[error("the bundle's golden measurements are not this manifest's")]
    Golden,
    #[error("no manifest of NVIDIA's in the bundle has them")]
    Unbacked,
}

/// Lists a manifest. Nothing is verified: no key is asked for.
pub(super) fn show(folder: &Path, now: SystemTime) -> Result<ExitCode, Error> {
    let manifest = Manifest::from_json(&read(&folder.join(MANIFEST), MAX_MANIFEST)?)?;
    for item in &manifest.items {
        terminal::say(format_args!(
            "{} ({}): fetched {} from {}, {}",
            item.path,
            item.kind.as_str(),
            age(item.fetched_at, now),
            item.source.escape_debug(),
            ending(item.valid_until, now),
        ));
    }
    terminal::say(format_args!(
        "{} files, made {}, {}; not verified: see `sealgate bundle check`",
        manifest.items.len(),
        age(manifest.created, now),
        ending(manifest.valid_until, now),
    ));
    Ok(ExitCode::SUCCESS)
}

fn age(then: SystemTime, now: SystemTime) -> String {
    match now.duration_since(then) {
        Ok(age) => format!("{} ago", in_words(age.as_secs())),
        Err(_) => format!("at {}", to_rfc3339(then)),
    }
}

fn ending(end: SystemTime, now: SystemTime) -> String {
    let date = to_rfc3339(end);
    match end.duration_since(now) {
        Ok(rest) if !rest.is_zero() => {
            format!("ends in {} ({date})", in_words(rest.as_secs()))
        }
        _ => format!("ENDED at {date}"),
    }
}

fn in_words(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

fn parse_key(text: &str) -> Result<[u8; 32], &'static str> {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).map_err(|_| "not 64 hex digits")?;
    Ok(key)
}
