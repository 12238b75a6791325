//! What is kept of a key: its hash under a secret that is not in the database.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rand::RngExt as _;
use zeroize::Zeroizing;

use super::StoreError;
use crate::config::{self, store::StoreConfig};

/// What is hashed, so that none of the three can be taken for another.
const KEY: &[u8] = b"sealgate key\0";
const CHECK: &[u8] = b"sealgate check\0";
const CALLER: &[u8] = b"sealgate caller\0";

/// The hash of a key: HMAC-SHA256 under the store's secret. It tells nothing of the key, so looking it up
/// needs no constant time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyHash([u8; 32]);

impl KeyHash {
    pub(super) fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok()?;
        Some(Self(hash))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// Hashes keys.
#[derive(Clone)]
pub(super) struct Hasher(Arc<hmac::Key>);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(..)")
    }
}

impl Hasher {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(Arc::new(hmac::Key::new(HMAC_SHA256, secret)))
    }

    /// Reads the secret; makes it first, if it is not there and may be made.
    pub(super) fn read(path: &Path, is_made: bool) -> Result<Self, StoreError> {
        if is_made && !path.exists() {
            make(path).map_err(|source| StoreError::File {
                path: path.to_owned(),
                source,
            })?;
        }
        let secret = config::read_secret(path)?;
        let secret = secret.trim_ascii_end();
        StoreConfig::check_secret(secret).map_err(|message| StoreError::Secret {
            path: path.to_owned(),
            message,
        })?;
        Ok(Self::new(secret))
    }

    fn of(&self, parts: [&[u8]; 2]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        parts.iter().for_each(|part| context.update(part));
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        hash
    }

    pub(super) fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.of([KEY, key]))
    }

    /// Says which secret it is, and nothing of it.
    pub(super) fn check(&self) -> String {
        hex::encode(self.of([CHECK, b""]))
    }

    pub(super) fn pseudonym(&self, key_id: &str) -> String {
        let hash = self.of([CALLER, key_id.as_bytes()]);
        hex::encode(hash.get(..16).unwrap_or_default())
    }
}

/// Makes a secret that only its owner can read. Whoever comes second takes the first one's.
fn make(path: &Path) -> io::Result<()> {
    let bits = Zeroizing::new(rand::rng().random::<[u8; 48]>());
    let text = Zeroizing::new(BASE64_STANDARD.encode(*bits));
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    // Whole before it has its name: nobody reads half of it.
    let mut file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

/// Makes an empty file that only its owner can read, unless there is one.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(Hasher::read(&path, false).is_err());
        let first = Hasher::read(&path, true).unwrap();
        let again = Hasher::read(&path, true).unwrap();
        assert_eq!(first.check(), again.check());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        let other = Hasher::read(&dir.path().join("other"), true).unwrap();
        assert_ne!(first.check(), other.check());
        assert_ne!(first.hash(b"key"), other.hash(b"key"));
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (text, is_one) in [
            ("", false),
            ("short", false),
            ("0123456789abcdef0123456789abcde\n", false),
            ("0123456789abcdef0123456789abcdef\n", true),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(Hasher::read(&path, true).is_ok(), is_one, "{text:?}");
        }
    }

    #[test]
    fn what_is_hashed_is_told_apart() {
        let hasher = Hasher::new(&[7; 32]);
        assert_ne!(hasher.hash(b"a").to_hex(), hasher.check());
        assert!(
            !hasher
                .hash(b"a")
                .to_hex()
                .starts_with(&hasher.pseudonym("a"))
        );
        assert_ne!(hasher.hash(b"a"), hasher.hash(b"b"));
        let hash = hasher.hash(b"a");
        assert_eq!(KeyHash::from_hex(&hash.to_hex()), Some(hash));
        assert_eq!(KeyHash::from_hex("00"), None);
    }
}
