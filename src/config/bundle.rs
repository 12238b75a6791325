//! A bundle's folder: what lies there, believed for its signer.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use attestation::{
    Bundle, Policy,
    bundle::{BundleError, MANIFEST, MAX_FILE, MAX_MANIFEST, SIGNATURE},
    time::to_rfc3339,
};

/// Why a folder holds no bundle that is believed.
#[derive(Debug, thiserror::Error)]
pub enum BundleFolderError {
    /// Manifest or signature cannot be read.
    #[error("{}: {}", path.display(), super::in_words(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bundle is older than the one in force.
    #[error(
        "{}: created {}, before the one in force, created {}: make a new one to go back",
        path.display(), to_rfc3339(*created), to_rfc3339(*newest)
    )]
    Older {
        /// The folder.
        path: PathBuf,
        /// When it was created.
        created: SystemTime,
        /// When the one in force was.
        newest: SystemTime,
    },
    /// The bundle is not believed.
    #[error("{}: {source}", path.display())]
    Bundle {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
}

/// Loads the bundle in a folder, if a signer that `policy` names signed it. Whether it is in force
/// is for each appraisal to see.
///
/// # Errors
/// [`BundleFolderError`] names the file.
pub fn load(folder: &Path, policy: &Policy) -> Result<Bundle, BundleFolderError> {
    load_signed(folder, policy.bundle_signers())
}

/// A bundle's folder, as it was when it was loaded.
#[derive(Clone, Debug, Default)]
pub struct BundleFiles {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The signature over it.
    pub signature: Vec<u8>,
    /// The files that it names, by their paths.
    pub files: Vec<(String, Vec<u8>)>,
}

/// As [`load`], with everything that was read, for whoever keeps it.
///
/// # Errors
/// As for [`load`].
pub fn load_with_files(
    folder: &Path,
    policy: &Policy,
) -> Result<(Bundle, BundleFiles), BundleFolderError> {
    let mut files = Vec::new();
    let mut note = |path: &str, bytes: &[u8]| files.push((path.to_owned(), bytes.to_vec()));
    let (bundle, manifest, signature) = load_noting(folder, policy.bundle_signers(), &mut note)?;
    let files = BundleFiles {
        manifest,
        signature,
        files,
    };
    Ok((bundle, files))
}

/// As [`load`], for signers that are named outside of a policy.
///
/// # Errors
/// As for [`load`].
pub fn load_signed(folder: &Path, signers: &[[u8; 32]]) -> Result<Bundle, BundleFolderError> {
    Ok(load_noting(folder, signers, &mut |_, _| {})?.0)
}

/// The bundle, its manifest and its signature; `note` hears of every file.
fn load_noting(
    folder: &Path,
    signers: &[[u8; 32]],
    note: &mut dyn FnMut(&str, &[u8]),
) -> Result<(Bundle, Vec<u8>, Vec<u8>), BundleFolderError> {
    let named = |name: &str, limit| {
        let path = folder.join(name);
        read(&path, limit).map_err(|source| BundleFolderError::Read { path, source })
    };
    let manifest = named(MANIFEST, MAX_MANIFEST)?;
    let signature = named(SIGNATURE, MAX_SIGNATURE)?;
    let mut read_file = |path: &str| {
        let bytes = read(&folder.join(path), MAX_FILE)?;
        note(path, &bytes);
        Ok(bytes)
    };
    let bundle = Bundle::load(&manifest, &signature, signers, &mut read_file);
    let bundle = bundle.map_err(|source| BundleFolderError::Bundle {
        path: folder.to_owned(),
        source,
    })?;
    Ok((bundle, manifest, signature))
}

/// Longest signature file, in bytes: 88 of base64 and line ends.
const MAX_SIGNATURE: usize = 1024;

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// The system's, or [`io::ErrorKind::FileTooLarge`].
pub fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    let file = super::open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}
