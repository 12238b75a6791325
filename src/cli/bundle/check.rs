//! `sealgate bundle check` and `show`: what is in a bundle, and whether it holds.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use attestation::{
    Bundle,
    bundle::{BundleItem, ItemKind, MANIFEST, MAX_FILE, MAX_MANIFEST, Manifest},
    time::to_rfc3339,
};

use super::{Error, REFUSED, parse_time, piece::PieceError, read};
use crate::{
    cli::{terminal, verify::input},
    config,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CheckArgs {
    /// The bundle's folder.
    folder: PathBuf,
    /// The public key that must have signed it, 64 hex digits; may be given several times.
    #[arg(long, value_name = "HEX", value_parser = parse_key, required_unless_present = "policy")]
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
    let mut holds = true;
    let mut complain = |line: String| {
        holds = false;
        terminal::say(line);
    };
    for item in bundle.items() {
        if now >= item.valid_until {
            let end = to_rfc3339(item.valid_until);
            complain(format!("{}: ended at {end}", item.path));
        }
        if let Err(error) = check_manifest_of_nvidia(&args.folder, &bundle, item, now)? {
            complain(format!("{}: {error}", item.path));
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
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    })
}

/// Verifies a manifest of NVIDIA's again, and that the golden measurements beside it are its own.
fn check_manifest_of_nvidia(
    folder: &Path,
    bundle: &Bundle,
    item: &BundleItem,
    now: SystemTime,
) -> Result<Result<(), Mismatch>, Error> {
    let path = item.path.as_str();
    let id = path
        .strip_prefix("nvidia/")
        .and_then(|name| name.strip_suffix(".xml"));
    let Some(id) = id.filter(|_| item.kind == ItemKind::GpuRim) else {
        return Ok(Ok(()));
    };
    let xml = read(&folder.join(path), MAX_FILE)?;
    let rim = match rim::verify(&xml, id, now) {
        Ok(rim) => rim,
        Err(error) => return Ok(Err(Mismatch::Rim(error.into()))),
    };
    let same = bundle.golden_measurements().contains(&rim.golden);
    Ok(same.then_some(()).ok_or(Mismatch::Golden))
}

/// What a manifest of NVIDIA's shows.
#[derive(Debug, thiserror::Error)]
enum Mismatch {
    #[error(transparent)]
    Rim(PieceError),
    #[error("the bundle's golden measurements are not this manifest's")]
    Golden,
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
