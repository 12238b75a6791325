//! What evidence is judged by: the policy and the bundle, read as one, and by `reload` replaced as one.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use attestation::{
    Bundle, Policy,
    bundle::{MANIFEST, MAX_MANIFEST, SIGNATURE},
};
use sha2::{Digest as _, Sha256};

use super::StartError;
use crate::config::{
    self,
    bundle::{BundleFiles, BundleFolderError},
};

mod reload;

pub(super) use self::reload::Reloader;

/// Longest file that a policy names, in bytes.
pub(super) const MAX_NAMED_FILE: u64 = 1024 * 1024;

/// What is in force.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) policy: Policy,
    pub(super) bundle: Bundle,
    /// The policy's digest in hex.
    pub(super) policy_digest: String,
    /// The bundle's, where there is one, and its folder as it was read.
    pub(super) bundle_digest: Option<String>,
    pub(super) bundle_files: BundleFiles,
    /// The policy as it was read, with the files that it names by their names in it.
    pub(super) text: String,
    pub(super) named: Vec<(String, Vec<u8>)>,
}

impl Rules {
    /// Whether `policy` believes the bundle, too.
    fn has_bundle_for(&self, policy: &Policy) -> bool {
        let signers = policy.bundle_signers();
        let signer = self.bundle.signer();
        signer.is_some_and(|signer| signers.contains(signer))
    }

    /// The bundle as far as `policy` believes it: whole, or not at all.
    fn bundle_under(&self, policy: &Policy) -> (Bundle, BundleFiles) {
        if self.has_bundle_for(policy) {
            (self.bundle.clone(), self.bundle_files.clone())
        } else {
            <_>::default()
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.policy_digest == other.policy_digest && self.bundle_digest == other.bundle_digest
    }
}

/// Where rules are read from.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    policy: PathBuf,
    bundle: Option<PathBuf>,
}

/// What was there when rules were read: changes as soon as any of it does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen([u8; 32]);

/// Reading, and what came of it.
struct Attempt {
    rules: Result<Rules, StartError>,
    /// Why the bundle that lies there is not in force with them.
    complaint: Option<BundleFolderError>,
    /// Files that were asked for beside the policy's own, in that order.
    named: Vec<String>,
    seen: Seen,
    /// SHA-256 of the policy's text in hex, if it could be read.
    text_digest: Option<String>,
}

impl Sources {
    pub(super) fn new(policy: PathBuf, bundle: Option<PathBuf>) -> Self {
        Self { policy, bundle }
    }

    /// # Errors
    /// [`StartError`] names the file that cannot be used.
    #[cfg(test)]
    pub(super) fn read(&self) -> Result<Rules, StartError> {
        self.attempt(None).rules
    }

    /// Reads both, in place of the rules `before`.
    fn attempt(&self, before: Option<&Rules>) -> Attempt {
        let text = config::read_text(&self.policy);
        let text_digest = text.as_ref().ok().map(Sha256::digest).map(hex::encode);
        let mut seen = Sha256::new();
        see(&mut seen, text.as_ref().ok().map(String::as_bytes));
        self.see_bundle(&mut seen);
        let mut names = Vec::new();
        let mut complaint = None;
        let rules = text.map_err(StartError::from).and_then(|text| {
            let mut named = Vec::new();
            let policy = Policy::from_toml(&text, &mut |name| {
                let bytes = self.read_named(name);
                see(&mut seen, bytes.as_deref().ok());
                names.push(name.to_owned());
                let bytes = bytes?;
                named.push((name.to_owned(), bytes.clone()));
                Ok(bytes)
            });
            let policy = policy.map_err(|source| StartError::Policy {
                path: self.policy.clone(),
                source,
            })?;
            let (bundle, bundle_files) = match (self.load_bundle(&policy, before), before) {
                (Ok(loaded), _) => loaded,
                (Err(error), None) => return Err(error.into()),
                // The policy must not wait for it: it may be there to end trust in the bundle.
                (Err(error), Some(before)) => {
                    complaint = Some(error);
                    before.bundle_under(&policy)
                }
            };
            Ok(Rules {
                policy_digest: hex::encode(policy.digest()),
                policy,
                bundle_digest: bundle.digest().map(hex::encode),
                bundle,
                bundle_files,
                text,
                named,
            })
        });
        // What is missing may come without a change of what is looked at: a bundle's files.
        if let Err(error) = &rules {
            see(&mut seen, Some(error.to_string().as_bytes()));
        }
        if let Some(error) = &complaint {
            see(&mut seen, Some(error.to_string().as_bytes()));
        }
        Attempt {
            rules,
            complaint,
            named: names,
            seen: Seen(seen.finalize().into()),
            text_digest,
        }
    }

    /// The bundle that lies there. One that is older than the one in force is not taken: whoever can
    /// write into its folder, and sign nothing, could bring back what its signer replaced.
    fn load_bundle(
        &self,
        policy: &Policy,
        before: Option<&Rules>,
    ) -> Result<(Bundle, BundleFiles), BundleFolderError> {
        let Some(folder) = &self.bundle else {
            return Ok(<_>::default());
        };
        let loaded = config::bundle::load_with_files(folder, policy)?;
        let believed = before.filter(|before| before.has_bundle_for(policy));
        let created = |bundle: &Bundle| bundle.manifest().map(|manifest| manifest.created);
        let newest = believed.and_then(|before| created(&before.bundle));
        match (created(&loaded.0), newest) {
            (Some(created), Some(newest)) if created < newest => Err(BundleFolderError::Older {
                path: folder.clone(),
                created,
                newest,
            }),
            _ => Ok(loaded),
        }
    }

    /// What is there now, for rules that named these files.
    fn look(&self, named: &[String]) -> Seen {
        let mut seen = Sha256::new();
        let text = config::read_text(&self.policy);
        see(&mut seen, text.as_ref().ok().map(String::as_bytes));
        self.see_bundle(&mut seen);
        for name in named {
            see(&mut seen, self.read_named(name).as_deref().ok());
        }
        Seen(seen.finalize().into())
    }

    /// The bundle's manifest and its signature; the manifest holds the digests of the rest.
    fn see_bundle(&self, seen: &mut Sha256) {
        let Some(folder) = &self.bundle else { return };
        for (name, limit) in [(MANIFEST, MAX_MANIFEST), (SIGNATURE, MAX_MANIFEST)] {
            let bytes = config::bundle::read(&folder.join(name), limit);
            see(seen, bytes.as_deref().ok());
        }
    }

    fn read_named(&self, name: &str) -> io::Result<Vec<u8>> {
        let folder = self.policy.parent().unwrap_or(Path::new(""));
        let mut bytes = Vec::new();
        let file = config::open_regular(&folder.join(name))?;
        let mut limited = file.take(MAX_NAMED_FILE.saturating_add(1));
        limited.read_to_end(&mut bytes)?;
        if limited.limit() == 0 {
            let message = format!("larger than {MAX_NAMED_FILE} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(bytes)
    }
}

fn see(seen: &mut Sha256, bytes: Option<&[u8]>) {
    seen.update([u8::from(bytes.is_some())]);
    seen.update(Sha256::digest(bytes.unwrap_or_default()));
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use self::{
    reload::tests::{bundle, with_signer},
    tests::folder,
};
