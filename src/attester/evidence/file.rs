//! Small files that a configuration names.

use std::{io::Read as _, path::Path};

use super::EvidenceError;
use crate::config::open_regular;

/// The bytes of the file at `path`, at most `limit`.
///
/// # Errors
/// [`EvidenceError`] names the file.
pub(super) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, EvidenceError> {
    let failed = |source| EvidenceError::File {
        path: path.to_owned(),
        source,
    };
    let file = open_regular(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut limited = file.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1));
    limited.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(EvidenceError::FileTooLong {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}
