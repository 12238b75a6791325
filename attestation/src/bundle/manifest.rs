//! The manifest of a bundle: which files, from where, fetched when, valid until when.

use std::time::SystemTime;

use serde::Serialize;

use crate::bundle::{MANIFEST, SIGNATURE};
use crate::digest::{InvalidHex, from_hex};
use crate::json::{self, Json, JsonError, Members};
use crate::time::{from_rfc3339, to_rfc3339};

/// Longest manifest, in bytes.
pub const MAX_MANIFEST: usize = 1024 * 1024;
/// Most files of one bundle.
const MAX_ITEMS: usize = 1024;
/// Longest path, in bytes.
const MAX_PATH: usize = 255;
/// Longest source, in bytes.
const MAX_SOURCE: usize = 1024;

const VERSION: u64 = 1;

/// What a bundle holds, as its signer says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// When it was made; it is not used before.
    pub created: SystemTime,
    /// When all of it ends, whatever the files' own dates.
    pub valid_until: SystemTime,
    /// The files.
    pub items: Vec<BundleItem>,
}

/// One file of a bundle.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BundleItem {
    /// Where it lies, from the bundle's folder.
    pub path: String,
    /// What it is.
    pub kind: ItemKind,
    /// Its digest.
    pub sha256: [u8; 32],
    /// Where it came from: an address, or the path of a file.
    pub source: String,
    /// When it was fetched, or read from that file.
    pub fetched_at: SystemTime,
    /// From when on it is not used.
    pub valid_until: SystemTime,
}

/// What a file of a bundle is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ItemKind {
    /// A revocation list of AMD's, DER.
    AmdCrl,
    /// The certificate of an AMD chip's key, DER.
    AmdCertificate,
    /// Intel's collateral for a platform, JSON.
    TdxCollateral,
    /// An OCSP response, DER.
    Ocsp,
    /// Golden measurements of an NVIDIA device, JSON.
    GpuGoldenMeasurements,
    /// The manifest of NVIDIA's that golden measurements were taken from, XML.
    GpuRim,
}

/// Why a signed text is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`MAX_MANIFEST`].
    #[error("manifest of {len} bytes exceeds the limit of {MAX_MANIFEST}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not the JSON that a manifest is.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Another version than 1.
    #[error("manifest version {0} is unknown")]
    Version(u64),
    /// A date in another form.
    #[error("`{0}` is not a time such as 2026-06-01T00:00:00Z")]
    Time(&'static str),
    /// A manifest that ends before it begins.
    #[error("`valid_until` is not after `created`")]
    Ended,
    /// More files than there may be.
    #[error("{0} items exceed the limit of {MAX_ITEMS}")]
    TooManyItems(usize),
    /// A path that could lead out of the folder, or to the manifest itself.
    #[error("{0:?} is not a plain path below the bundle's folder")]
    Path(String),
    /// One path twice.
    #[error("`{0}` is listed twice")]
    PathTwice(String),
    /// A kind that is not known.
    #[error("{0:?} is no kind of item")]
    Kind(String),
    /// A digest that is none.
    #[error("`sha256` is {0}")]
    Digest(#[from] InvalidHex),
    /// A source that is too long.
    #[error("a source of {0} bytes exceeds the limit of {MAX_SOURCE}")]
    Source(usize),
}

impl Manifest {
    /// Reads what [`Manifest::to_json`] wrote; nothing about its signature.
    ///
    /// # Errors
    /// If it is too long, no strict JSON, or a member breaks its rule.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLong { len: bytes.len() });
        }
        let mut members = json::object(bytes)?;
        let version = members.unsigned("version")?;
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        let created = time(&mut members, "created")?;
        let valid_until = time(&mut members, "valid_until")?;
        if valid_until <= created {
            return Err(ManifestError::Ended);
        }
        let listed = members.array("items")?;
        if listed.len() > MAX_ITEMS {
            return Err(ManifestError::TooManyItems(listed.len()));
        }
        let mut items: Vec<BundleItem> = Vec::with_capacity(listed.len());
        for item in listed {
            let item = BundleItem::from_json(item)?;
            if items.iter().any(|other| other.path == item.path) {
                return Err(ManifestError::PathTwice(item.path));
            }
            items.push(item);
        }
        Ok(Self {
            created,
            valid_until,
            items,
        })
    }

    /// Writes it for signing. Times lose their fractions of a second.
    ///
    /// # Errors
    /// [`ManifestError`] if it could not be read again.
    pub fn to_json(&self) -> Result<Vec<u8>, ManifestError> {
        let out = Out {
            version: VERSION,
            created: to_rfc3339(self.created),
            valid_until: to_rfc3339(self.valid_until),
            items: self.items.iter().map(ItemOut::from).collect(),
        };
        let mut bytes = serde_json::to_vec_pretty(&out).map_err(JsonError::Syntax)?;
        bytes.push(b'\n');
        Self::from_json(&bytes)?;
        Ok(bytes)
    }

    /// Whether `now` is in its time; not whether each file's own has ended.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.created <= now && now < self.valid_until
    }
}

impl BundleItem {
    fn from_json(json: Json) -> Result<Self, ManifestError> {
        let mut members = json.into_members("items")?;
        let path = members.string("path")?;
        if !is_plain(&path) {
            return Err(ManifestError::Path(path));
        }
        let kind = members.string("kind")?;
        let source = members.string("source")?;
        if source.len() > MAX_SOURCE {
            return Err(ManifestError::Source(source.len()));
        }
        Ok(Self {
            path,
            kind: ItemKind::from_name(&kind).ok_or(ManifestError::Kind(kind))?,
            sha256: from_hex(&members.string("sha256")?)?,
            source,
            fetched_at: time(&mut members, "fetched_at")?,
            valid_until: time(&mut members, "valid_until")?,
        })
    }

    /// The words for a file that has ended.
    pub(super) fn ending(&self) -> String {
        format!("{} since {}", self.path, to_rfc3339(self.valid_until))
    }
}

/// Folders and a name, each of letters, digits, `.`, `_`, `-` and not beginning with a dot.
fn is_plain(path: &str) -> bool {
    let plain = |part: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(known)
    };
    path.len() <= MAX_PATH && path.split('/').all(plain) && path != MANIFEST && path != SIGNATURE
}

fn time(members: &mut Members, name: &'static str) -> Result<SystemTime, ManifestError> {
    from_rfc3339(&members.string(name)?).ok_or(ManifestError::Time(name))
}

impl ItemKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::AmdCrl,
        Self::AmdCertificate,
        Self::TdxCollateral,
        Self::Ocsp,
        Self::GpuGoldenMeasurements,
        Self::GpuRim,
    ];

    /// The name in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AmdCrl => "amd-crl",
            Self::AmdCertificate => "amd-certificate",
            Self::TdxCollateral => "tdx-collateral",
            Self::Ocsp => "ocsp",
            Self::GpuGoldenMeasurements => "gpu-golden-measurements",
            Self::GpuRim => "gpu-rim",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

#[derive(Serialize)]
struct Out<'a> {
    version: u64,
    created: String,
    valid_until: String,
    items: Vec<ItemOut<'a>>,
}

#[derive(Serialize)]
struct ItemOut<'a> {
    path: &'a str,
    kind: &'static str,
    sha256: String,
    source: &'a str,
    fetched_at: String,
    valid_until: String,
}

impl<'a> From<&'a BundleItem> for ItemOut<'a> {
    fn from(item: &'a BundleItem) -> Self {
        Self {
            path: &item.path,
            kind: item.kind.as_str(),
            sha256: hex::encode(item.sha256),
            source: &item.source,
            fetched_at: to_rfc3339(item.fetched_at),
            valid_until: to_rfc3339(item.valid_until),
        }
    }
}
