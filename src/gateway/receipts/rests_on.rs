//! What a receipt rests on, read from the archive into one file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use attestation::{
    Policy,
    answer::MAX_ANSWER,
    bundle::{MANIFEST, MAX_FILE, MAX_MANIFEST, Manifest, SIGNATURE},
    policy::MAX_POLICY,
    time::to_rfc3339,
};
use tokio::task::spawn_blocking;

use super::{Desk, KeptReceipt};
use crate::{
    config::{archive::EVIDENCE, bundle::read},
    gateway::{archive, error::Error, rules::MAX_NAMED_FILE},
    receipts::{BundleFolder, MAX_CONTENTS, PolicyFolder, ReceiptFile},
};

/// Longest signature of a bundle, in bytes.
const MAX_SIGNATURE: usize = 1024;

/// Puts the file together.
///
/// # Errors
/// [`Error::EvidenceNotArchived`], or [`Error::Overloaded`] while as many as may be are being read.
pub(super) async fn bundle(desk: &Desk, kept: &Arc<KeptReceipt>) -> Result<Vec<u8>, Error> {
    let Some(archive) = desk.archive.clone() else {
        return Err(Error::EvidenceNotArchived("there is no archive"));
    };
    let turn = Arc::clone(&desk.reads).try_acquire_owned();
    let turn = turn.map_err(|_| Error::Overloaded)?;
    let kept = Arc::clone(kept);
    let reading = spawn_blocking(move || {
        // Held as long as it is read, also where nobody waits for it any more.
        let _turn = turn;
        Reading::of(&archive).file(&kept)
    });
    let read = reading.await.unwrap_or(Err(NotThere("reading panicked")));
    read.map_err(|NotThere(why)| Error::EvidenceNotArchived(why))
}

/// Why a file cannot be put together.
struct NotThere(&'static str);

impl From<io::Error> for NotThere {
    fn from(_: io::Error) -> Self {
        Self("a file is not there, or too long")
    }
}

/// Reads an archive's folder, up to a bound in all.
struct Reading<'a> {
    archive: &'a Path,
    left: usize,
}

impl<'a> Reading<'a> {
    fn of(archive: &'a Path) -> Self {
        let left = MAX_CONTENTS;
        Self { archive, left }
    }

    fn file(mut self, kept: &KeptReceipt) -> Result<Vec<u8>, NotThere> {
        let evidence = self.archive.join(EVIDENCE);
        let evidence = self.read(
            &evidence.join(format!("{}.json", kept.evidence)),
            MAX_ANSWER,
        )?;
        let policy = self.policy(&self.archive.join(archive::POLICIES).join(&kept.policy))?;
        let bundle = match &kept.bundle {
            Some(digest) => Some(self.bundle(&self.archive.join(archive::BUNDLES).join(digest))?),
            None => None,
        };
        let file = ReceiptFile {
            request_id: kept.request_id.to_string(),
            receipt: kept.jws.clone(),
            salts: kept.salts.clone(),
            node: kept.node.to_string(),
            evidence,
            evidence_sha256: kept.evidence.clone(),
            nonce: kept.nonce.to_string(),
            policy,
            policy_sha256: kept.policy.clone(),
            bundle,
            bundle_sha256: kept.bundle.clone(),
            asked_at: to_rfc3339(kept.asked_at),
            appraised_at: to_rfc3339(kept.appraised_at),
        };
        file.to_json().map_err(|_| NotThere("it makes no file"))
    }

    fn read(&mut self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let bytes = read(path, limit.min(self.left))?;
        self.left = self.left.saturating_sub(bytes.len());
        Ok(bytes)
    }

    /// A policy and the files that it names, by their names in it.
    fn policy(&mut self, folder: &Path) -> Result<PolicyFolder, NotThere> {
        let text = self.read(&folder.join(archive::POLICY), MAX_POLICY)?;
        let text = String::from_utf8(text).map_err(|_| NotThere("the policy is no text"))?;
        let mut files = Vec::new();
        let limit = usize::try_from(MAX_NAMED_FILE).unwrap_or(usize::MAX);
        let parsed = Policy::from_toml(&text, &mut |name| {
            let place: PathBuf = archive::place_of(name, files.len());
            let bytes = self.read(&folder.join(place), limit)?;
            files.push((name.to_owned(), bytes.clone()));
            Ok(bytes)
        });
        parsed.map_err(|_| NotThere("the policy in the archive cannot be read"))?;
        Ok(PolicyFolder { text, files })
    }

    fn bundle(&mut self, folder: &Path) -> Result<BundleFolder, NotThere> {
        let manifest = self.read(&folder.join(MANIFEST), MAX_MANIFEST)?;
        let signature = self.read(&folder.join(SIGNATURE), MAX_SIGNATURE)?;
        let named = Manifest::from_json(&manifest);
        let named = named.map_err(|_| NotThere("the bundle in the archive cannot be read"))?;
        let mut files = Vec::new();
        for item in &named.items {
            // The manifest's reader takes no path that leads out.
            let bytes = self.read(&folder.join(&item.path), MAX_FILE)?;
            files.push((item.path.clone(), bytes));
        }
        Ok(BundleFolder {
            manifest,
            signature,
            files,
        })
    }
}
