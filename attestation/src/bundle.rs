//! What a verifier keeps beside its policy: collateral, and reference values for GPUs.
//!
//! A bundle is files and a manifest that names them, signed by somebody whom the policy trusts with
//! it (`bundle_signers`). Loading checks the signature and each file's digest. Dates are not looked
//! at then: each appraisal asks for what is in force at its own time, and gets nothing else.

mod inspect;
mod manifest;
mod signer;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io;
use std::time::SystemTime;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use inspect::{InspectError, Inspected, inspect};
pub use manifest::{BundleItem, ItemKind, MAX_MANIFEST, Manifest, ManifestError};
pub use signer::{BundleKey, BundleKeyError};

use crate::check::Checks;
use crate::collateral::Collateral;
use crate::digest::sha256;
use crate::nvidia::{GoldenError, GoldenMeasurements};
use crate::time::to_rfc3339;

/// The manifest's name in a bundle's folder.
pub const MANIFEST: &str = "manifest.json";
/// The name of the signature over the manifest, in base64.
pub const SIGNATURE: &str = "manifest.sig";
/// Longest file of a bundle, in bytes.
pub const MAX_FILE: usize = 256 * 1024;
/// Most bytes of all files together.
pub const MAX_FILES: usize = 64 * 1024 * 1024;

/// Collateral and reference values from a source that the policy trusts.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    signed: Option<Signed>,
    collateral: Collateral,
    /// Intel's collateral past its date, whose lists go on revoking. Invariant: empty in a bundle as
    /// it was loaded.
    past_tdx: Vec<Vec<u8>>,
    golden: Vec<GoldenMeasurements>,
}

/// The manifest behind a bundle that was loaded.
#[derive(Clone, Debug)]
struct Signed {
    manifest: Manifest,
    digest: [u8; 32],
    signer: [u8; 32],
}

/// Why a bundle is not used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A policy that trusts nobody with bundles.
    #[error("the policy believes no bundle: name its signer in `bundle_signers`")]
    NoSigners,
    /// No signature of anybody that the policy names.
    #[error("`{SIGNATURE}` is not a signature of `{MANIFEST}` by one of {0} `bundle_signers`")]
    Signature(usize),
    /// A signed text that is no manifest.
    #[error("`{MANIFEST}`: {0}")]
    Manifest(#[from] ManifestError),
    /// A file that cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// Its path in the bundle.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file longer than [`MAX_FILE`], or all together longer than [`MAX_FILES`].
    #[error("`{path}` of {len} bytes exceeds the limit of {MAX_FILE}, or all of {MAX_FILES}")]
    TooLong {
        /// Its path in the bundle.
        path: String,
        /// Its length in bytes.
        len: usize,
    },
    /// A file that is not the one that the manifest names.
    #[error("`{path}` has another digest than the manifest says")]
    Digest {
        /// Its path in the bundle.
        path: String,
    },
    /// A file that should hold golden measurements.
    #[error("`{path}`: {source}")]
    Golden {
        /// Its path in the bundle.
        path: String,
        /// What is wrong.
        source: GoldenError,
    },
    /// Golden measurements of one id twice.
    #[error("golden measurements for `{0}` are there twice")]
    GoldenTwice(String),
}

impl Bundle {
    /// No bundle: evidence must bring the collateral that it needs.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Loads a bundle: `manifest` and `signature` as they lie in its folder, the files through
    /// `read_file`, which is asked for paths that lead nowhere but below the folder.
    ///
    /// # Errors
    /// [`BundleError`] if none of `signers` signed it, or a file is not as the manifest says.
    pub fn load(
        manifest: &[u8],
        signature: &[u8],
        signers: &[[u8; 32]],
        read_file: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, BundleError> {
        let signer = signer_of(manifest, signature, signers)?;
        let mut bundle = Self {
            signed: Some(Signed {
                manifest: Manifest::from_json(manifest)?,
                digest: sha256(&[manifest]),
                signer,
            }),
            ..Self::default()
        };
        let mut left = MAX_FILES;
        for item in bundle.items().to_vec() {
            let path = || item.path.clone();
            let file = read_file(&item.path).map_err(|source| BundleError::Read {
                path: path(),
                source,
            })?;
            let len = file.len();
            let rest = left.checked_sub(len).filter(|_| len <= MAX_FILE);
            left = rest.ok_or_else(|| BundleError::TooLong { path: path(), len })?;
            if sha256(&[&file]) != item.sha256 {
                return Err(BundleError::Digest { path: path() });
            }
            bundle.keep(&item, file)?;
        }
        Ok(bundle)
    }

    /// Puts a file where its kind belongs: behind those of its kind that came before.
    fn keep(&mut self, item: &BundleItem, file: Vec<u8>) -> Result<(), BundleError> {
        match item.kind {
            ItemKind::AmdCrl => self.collateral.amd_crls.push(file),
            ItemKind::AmdCertificate => self.collateral.amd_certificates.push(file),
            ItemKind::TdxCollateral => self.collateral.tdx.push(file),
            ItemKind::Ocsp => self.collateral.ocsp.push(file),
            ItemKind::GpuGoldenMeasurements => {
                let golden = GoldenMeasurements::from_json(&file);
                let golden = golden.map_err(|source| BundleError::Golden {
                    path: item.path.clone(),
                    source,
                })?;
                if self.golden.iter().any(|other| other.id == golden.id) {
                    return Err(BundleError::GoldenTwice(golden.id));
                }
                self.golden.push(golden);
            }
            // Kept for people; what it says stands in the golden measurements.
            ItemKind::GpuRim => {}
        }
        Ok(())
    }

    /// Golden measurements that nobody vouches for: for the self-test, which carries its own, and for
    /// tests. Nothing that decides about a node may use it.
    pub(crate) fn of_golden(golden: Vec<GoldenMeasurements>) -> Self {
        Self {
            golden,
            ..Self::default()
        }
    }

    /// What vendors signed.
    pub fn collateral(&self) -> &Collateral {
        &self.collateral
    }

    /// Intel's collateral that is past its date: good for nothing but to revoke.
    pub(crate) fn past_tdx(&self) -> &[Vec<u8>] {
        &self.past_tdx
    }

    /// Golden measurements of GPUs and switches.
    pub fn golden_measurements(&self) -> &[GoldenMeasurements] {
        &self.golden
    }

    /// Tells this bundle from any other: SHA-256 of its manifest; `None` for the empty one.
    pub fn digest(&self) -> Option<&[u8; 32]> {
        self.signed.as_ref().map(|signed| &signed.digest)
    }

    /// Whose signature it is believed for; `None` for the empty one.
    pub fn signer(&self) -> Option<&[u8; 32]> {
        self.signed.as_ref().map(|signed| &signed.signer)
    }

    /// What it was loaded from; `None` for the empty one.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.signed.as_ref().map(|signed| &signed.manifest)
    }

    /// The files of its manifest.
    pub fn items(&self) -> &[BundleItem] {
        self.manifest().map_or(&[], |manifest| &manifest.items)
    }

    /// What of it is in force at `now`; nothing once the manifest has ended.
    pub(crate) fn in_force(&self, now: SystemTime) -> Cow<'_, Self> {
        let Some(signed) = &self.signed else {
            return Cow::Borrowed(self);
        };
        let whole = signed.manifest.is_valid_at(now);
        if whole && self.items().iter().all(|item| now < item.valid_until) {
            return Cow::Borrowed(self);
        }
        let kept = |kind: ItemKind| {
            let of_kind = self.items().iter().filter(move |item| item.kind == kind);
            // What revokes goes on revoking past its date; each verifier looks at dates itself.
            let revokes = matches!(kind, ItemKind::AmdCrl | ItemKind::Ocsp);
            of_kind.map(move |item| whole && (revokes || now < item.valid_until))
        };
        let pieces = |kind, pieces: &[Vec<u8>]| {
            let pieces = pieces.iter().zip(kept(kind)).filter(|(_, kept)| *kept);
            pieces.map(|(piece, _)| piece.clone()).collect()
        };
        let tdx = self
            .collateral
            .tdx
            .iter()
            .zip(kept(ItemKind::TdxCollateral));
        let past_tdx = tdx.filter(|(_, kept)| whole && !kept);
        let golden = self
            .golden
            .iter()
            .zip(kept(ItemKind::GpuGoldenMeasurements));
        Cow::Owned(Self {
            signed: self.signed.clone(),
            collateral: Collateral {
                amd_crls: pieces(ItemKind::AmdCrl, &self.collateral.amd_crls),
                amd_certificates: pieces(
                    ItemKind::AmdCertificate,
                    &self.collateral.amd_certificates,
                ),
                tdx: pieces(ItemKind::TdxCollateral, &self.collateral.tdx),
                ocsp: pieces(ItemKind::Ocsp, &self.collateral.ocsp),
            },
            past_tdx: past_tdx.map(|(piece, _)| piece.clone()).collect(),
            golden: golden
                .filter(|(_, kept)| *kept)
                .map(|(it, _)| it.clone())
                .collect(),
        })
    }

    /// When the manifest or the first of the files in force at `now` ends: nothing that rests on
    /// this bundle may hold longer. `None` for the empty one.
    pub(crate) fn not_after(&self, now: SystemTime) -> Option<SystemTime> {
        let ends = self.items().iter().map(|item| item.valid_until);
        let in_force = ends.filter(|end| now < *end);
        Some(in_force.fold(self.manifest()?.valid_until, SystemTime::min))
    }

    /// Records whether the manifest is in force, and which files no longer are. Without a bundle
    /// there is nothing to record.
    pub(crate) fn check(&self, checks: &mut Checks, now: SystemTime) {
        let Some(signed) = &self.signed else {
            return;
        };
        let manifest = &signed.manifest;
        let ended = manifest.items.iter().filter(|item| now >= item.valid_until);
        let ended: Vec<_> = ended.map(BundleItem::ending).collect();
        let left_out = match ended.as_slice() {
            [] => String::new(),
            ended => format!("; past their date: {}", ended.join(", ")),
        };
        checks.record(
            "bundle",
            manifest.is_valid_at(now),
            format!("a bundle that is in force at {}", to_rfc3339(now)),
            format!(
                "sha256 {}, from {} to {}{left_out}",
                hex::encode(signed.digest),
                to_rfc3339(manifest.created),
                to_rfc3339(manifest.valid_until),
            ),
        );
    }
}

/// Which of `signers` signed.
fn signer_of(
    manifest: &[u8],
    signature: &[u8],
    signers: &[[u8; 32]],
) -> Result<[u8; 32], BundleError> {
    if signers.is_empty() {
        return Err(BundleError::NoSigners);
    }
    let decoded = STANDARD.decode(signature.trim_ascii_end());
    let signature = decoded.map_err(|_| BundleError::Signature(signers.len()))?;
    let signed = |key: &&[u8; 32]| {
        let key = UnparsedPublicKey::new(&ED25519, key);
        key.verify(manifest, &signature).is_ok()
    };
    let signer = signers.iter().find(signed).copied();
    signer.ok_or(BundleError::Signature(signers.len()))
}
