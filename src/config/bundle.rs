//! A bundle's folder: what lies there, believed for its signer.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use attestation::{
    Bundle, Policy,
    bundle::{BundleError, MANIFEST, MAX_FILE, MAX_MANIFEST, SIGNATURE},
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

/// As [`load`], for signers that are named outside of a policy.
///
/// # Errors
/// As for [`load`].
pub fn load_signed(folder: &Path, signers: &[[u8; 32]]) -> Result<Bundle, BundleFolderError> {
    let named = |name: &str, limit| {
        let path = folder.join(name);
        read(&path, limit).map_err(|source| BundleFolderError::Read { path, source })
    };
    let manifest = named(MANIFEST, MAX_MANIFEST)?;
    let signature = named(SIGNATURE, MAX_SIGNATURE)?;
    let mut read_file = |path: &str| read(&folder.join(path), MAX_FILE);
    Bundle::load(&manifest, &signature, signers, &mut read_file).map_err(|source| {
        BundleFolderError::Bundle {
            path: folder.to_owned(),
            source,
        }
    })
}

/// Longest signature file, in bytes: 88 of base64 and line ends.
const MAX_SIGNATURE: usize = 1024;

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// The system's, or [`io::ErrorKind::FileTooLarge`].
pub fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}
