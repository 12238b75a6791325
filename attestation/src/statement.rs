//! What a node says of itself: its keys, models and software (`docs/wire.md`, "Statement").
//!
//! A parsed statement is a claim and no more. It becomes worth something when evidence vouches for
//! its digest, and then it is read through [`crate::VerifiedNode`].

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::digest::{InvalidHex, StatementDigest, from_hex};
use crate::json::{self, JsonError, Members};

mod public_key;

pub use public_key::{PublicKey, X_WING_KEY_LEN};

/// Longest statement, in bytes.
pub const MAX_STATEMENT: usize = 64 * 1024;
/// Most models in a statement.
pub const MAX_MODELS: usize = 256;
/// Longest node id, in bytes.
pub const MAX_NODE_ID: usize = 64;

const VERSION: u64 = 1;

/// A node's statement, parsed and well formed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Statement {
    digest: StatementDigest,
    node_id: String,
    keys: Vec<ClaimedKey>,
    receipt_key: [u8; 32],
    tls_spki_sha256: Option<[u8; 32]>,
    models: Vec<String>,
    engine: EngineLocation,
    config_sha256: [u8; 32],
    software: Software,
}

/// A key as a node claims it. Only [`crate::verify`] makes a key that can be sealed to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClaimedKey {
    /// The id in OHTTP's key configuration; unique in its statement.
    pub key_id: u8,
    /// What the key is for.
    pub suite: Suite,
    /// The raw public key, one that its suite can seal to.
    pub public_key: PublicKey,
    /// First second of the key's life, Unix time.
    pub not_before: u64,
    /// First second after the key's life, Unix time; later than `not_before`.
    pub not_after: u64,
}

/// The suites this version knows (`docs/wire.md`, "Suites"); keys of others are left out.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
pub enum Suite {
    /// DHKEM(X25519, HKDF-SHA256).
    #[serde(rename = "x25519")]
    X25519,
    /// X-Wing: X25519 together with ML-KEM-768.
    #[serde(rename = "x-wing")]
    XWing,
    /// The same KEM, for [`Dialect::Ehbp`] alone.
    #[serde(rename = "ehbp-x25519")]
    EhbpX25519,
    /// X25519, for [`Dialect::Seed`] alone.
    #[serde(rename = "seed-x25519")]
    SeedX25519,
}

impl Suite {
    const ALL: [Self; 4] = [
        Self::X25519,
        Self::XWing,
        Self::EhbpX25519,
        Self::SeedX25519,
    ];

    /// The suite's name in a statement.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X25519 => "x25519",
            Self::XWing => "x-wing",
            Self::EhbpX25519 => "ehbp-x25519",
            Self::SeedX25519 => "seed-x25519",
        }
    }

    /// Whether what is sealed under it today stays closed to a quantum computer of tomorrow.
    pub fn is_post_quantum(self) -> bool {
        match self {
            Self::XWing => true,
            Self::X25519 | Self::EhbpX25519 | Self::SeedX25519 => false,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.as_str() == name)
    }
}

/// A way of sealing that clients already speak (`docs/wire.md`, "Two further dialects"). Each has keys
/// of its own, and nothing of this project seals with them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Encrypted HTTP bodies.
    Ehbp,
    /// The seed API's confidential endpoints.
    Seed,
}

impl Dialect {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ehbp, Self::Seed];

    /// The word in policies and configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ehbp => "ehbp",
            Self::Seed => "seed",
        }
    }

    /// The suite of its keys.
    pub fn suite(self) -> Suite {
        match self {
            Self::Ehbp => Suite::EhbpX25519,
            Self::Seed => Suite::SeedX25519,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the engine runs, as seen from the TEE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EngineLocation {
    /// On the same machine, over loopback or a Unix socket.
    Local,
    /// Elsewhere: prompts leave the TEE on their way to it.
    Remote,
    /// Behind a gateway, on nodes that it verified, each before a prompt was sealed to it, under the
    /// policy that `config_sha256` covers.
    Attested,
}

impl EngineLocation {
    /// The word in a statement.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Attested => "attested",
        }
    }
}

/// What the node runs, as it says.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Software {
    /// The program's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from; may be empty.
    pub commit: String,
}

/// Why bytes are no statement.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// Longer than [`MAX_STATEMENT`].
    #[error("statement of {len} bytes exceeds the limit of {MAX_STATEMENT}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not the JSON that a statement is.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Another version than 1.
    #[error("statement version {0} is unknown")]
    Version(u64),
    /// The node id has another form than `[a-z0-9-]{1,64}`.
    #[error("`node_id` is not 1 to {MAX_NODE_ID} of a-z, 0-9 and -")]
    NodeId,
    /// Two keys with one id.
    #[error("key id {0} appears twice")]
    DuplicateKeyId(u8),
    /// An id above 255.
    #[error("key id {0} exceeds 255")]
    KeyId(u64),
    /// A life that is empty.
    #[error("key {0} ends before it begins")]
    KeyLife(u8),
    /// An X25519 key, or the X25519 half of an X-Wing key, that makes every shared secret zero.
    #[error("key {0} is an X25519 point of low order")]
    LowOrderKey(u8),
    /// An X-Wing key whose other half is no ML-KEM-768 key (FIPS 203 section 7.2).
    #[error("key {0} has a coefficient that ML-KEM-768 does not have")]
    MlKemKey(u8),
    /// Text that is not canonical base64 of the length it must have.
    #[error("`{member}` is not canonical base64 of {len} bytes")]
    Base64 {
        /// The member's name.
        member: &'static str,
        /// The bytes that it must have.
        len: usize,
    },
    /// Text that is no lower-case hex.
    #[error("`{member}` is {source}")]
    Hex {
        /// The member's name.
        member: &'static str,
        /// What was wrong.
        source: InvalidHex,
    },
    /// More than [`MAX_MODELS`].
    #[error("{0} models exceed the limit of {MAX_MODELS}")]
    TooManyModels(usize),
    /// Text with other characters than visible ASCII.
    #[error("`{0}` is not visible ASCII")]
    NotVisibleAscii(&'static str),
    /// None of `local`, `remote` and `attested`.
    #[error("`engine` is none of `local`, `remote` and `attested`")]
    Engine,
}

impl Statement {
    /// Reads a statement.
    ///
    /// # Errors
    /// If it is too long, no strict JSON, of another version, or a member breaks its rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        if bytes.len() > MAX_STATEMENT {
            return Err(StatementError::TooLong { len: bytes.len() });
        }
        let mut members = json::object(bytes)?;
        let version = members.unsigned("version")?;
        if version != VERSION {
            return Err(StatementError::Version(version));
        }
        Ok(Self {
            digest: StatementDigest::of(bytes),
            node_id: node_id(members.string("node_id")?)?,
            keys: keys(members.array("keys")?)?,
            receipt_key: base64("receipt_key", &members.string("receipt_key")?)?,
            tls_spki_sha256: match members.optional("tls_spki_sha256") {
                Some(value) => Some(hex_32(
                    "tls_spki_sha256",
                    value.into_string("tls_spki_sha256")?,
                )?),
                None => None,
            },
            models: models(members.array("models")?)?,
            engine: match members.string("engine")?.as_str() {
                "local" => EngineLocation::Local,
                "remote" => EngineLocation::Remote,
                "attested" => EngineLocation::Attested,
                _ => return Err(StatementError::Engine),
            },
            config_sha256: hex_32("config_sha256", members.string("config_sha256")?)?,
            software: software(members.members("software")?)?,
        })
    }

    /// SHA-256 of the bytes that were parsed.
    pub fn digest(&self) -> StatementDigest {
        self.digest
    }

    /// The node's name for itself.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// The keys of known suites, in the statement's order.
    pub fn keys(&self) -> &[ClaimedKey] {
        &self.keys
    }

    /// The Ed25519 key that signs receipts.
    pub fn receipt_key(&self) -> &[u8; 32] {
        &self.receipt_key
    }

    /// SHA-256 of the TLS key that the node itself ends connections with, if it does.
    pub fn tls_spki_sha256(&self) -> Option<&[u8; 32]> {
        self.tls_spki_sha256.as_ref()
    }

    /// The models that it serves.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// Where its engine runs.
    pub fn engine(&self) -> EngineLocation {
        self.engine
    }

    /// The digest of its effective configuration, without secrets.
    pub fn config_sha256(&self) -> &[u8; 32] {
        &self.config_sha256
    }

    /// What it runs.
    pub fn software(&self) -> &Software {
        &self.software
    }
}

/// A statement that is still being written, on the node's side.
#[derive(Clone, Debug)]
pub struct Draft {
    /// `[a-z0-9-]{1,64}`.
    pub node_id: String,
    /// The keys that the node opens with, newest first.
    pub keys: Vec<ClaimedKey>,
    /// The Ed25519 key that signs receipts.
    pub receipt_key: [u8; 32],
    /// SHA-256 of the node's own TLS key, where it ends TLS itself.
    pub tls_spki_sha256: Option<[u8; 32]>,
    /// The models served.
    pub models: Vec<String>,
    /// Where the engine runs.
    pub engine: EngineLocation,
    /// The digest of the effective configuration.
    pub config_sha256: [u8; 32],
    /// What the node runs.
    pub software: Software,
}

impl Draft {
    /// Writes the statement; the bytes are what its digest is taken over.
    ///
    /// # Errors
    /// If a verifier would not read it back.
    pub fn to_json(&self) -> Result<Vec<u8>, StatementError> {
        let keys: Vec<_> = self.keys.iter().map(KeyOut::from).collect();
        let out = StatementOut {
            version: VERSION,
            node_id: &self.node_id,
            keys,
            receipt_key: STANDARD.encode(self.receipt_key),
            tls_spki_sha256: self.tls_spki_sha256.map(hex::encode),
            models: &self.models,
            engine: self.engine.as_str(),
            config_sha256: hex::encode(self.config_sha256),
            software: &self.software,
        };
        let bytes = serde_json::to_vec(&out).map_err(JsonError::Syntax)?;
        Statement::parse(&bytes)?;
        Ok(bytes)
    }
}

#[derive(Serialize)]
struct StatementOut<'a> {
    version: u64,
    node_id: &'a str,
    keys: Vec<KeyOut>,
    receipt_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_spki_sha256: Option<String>,
    models: &'a [String],
    engine: &'static str,
    config_sha256: String,
    software: &'a Software,
}

#[derive(Serialize)]
struct KeyOut {
    key_id: u8,
    suite: &'static str,
    public_key: String,
    not_before: u64,
    not_after: u64,
}

impl From<&ClaimedKey> for KeyOut {
    fn from(key: &ClaimedKey) -> Self {
        Self {
            key_id: key.key_id,
            suite: key.suite.as_str(),
            public_key: STANDARD.encode(key.public_key.as_bytes()),
            not_before: key.not_before,
            not_after: key.not_after,
        }
    }
}

/// Whether a node can have this id: 1 to 64 of a-z, 0-9 and -.
#[must_use]
pub fn is_node_id(text: &str) -> bool {
    let legal = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=MAX_NODE_ID).contains(&text.len()) && text.bytes().all(legal)
}

fn node_id(text: String) -> Result<String, StatementError> {
    let ok = is_node_id(&text);
    ok.then_some(text).ok_or(StatementError::NodeId)
}

fn keys(items: Vec<json::Json>) -> Result<Vec<ClaimedKey>, StatementError> {
    let mut ids = BTreeSet::new();
    let mut keys = Vec::new();
    for item in items {
        let mut members = item.into_members("keys")?;
        let id = members.unsigned("key_id")?;
        let key_id = u8::try_from(id).map_err(|_| StatementError::KeyId(id))?;
        if !ids.insert(key_id) {
            return Err(StatementError::DuplicateKeyId(key_id));
        }
        // Other suites have keys of other shapes, so nothing more of them is read.
        if let Some(suite) = Suite::from_name(&members.string("suite")?) {
            keys.push(key(key_id, suite, members)?);
        }
    }
    Ok(keys)
}

fn key(key_id: u8, suite: Suite, mut members: Members) -> Result<ClaimedKey, StatementError> {
    let key = ClaimedKey {
        key_id,
        suite,
        public_key: PublicKey::read(key_id, suite, &members.string("public_key")?)?,
        not_before: members.unsigned("not_before")?,
        not_after: members.unsigned("not_after")?,
    };
    if key.not_after <= key.not_before {
        return Err(StatementError::KeyLife(key_id));
    }
    Ok(key)
}

fn models(items: Vec<json::Json>) -> Result<Vec<String>, StatementError> {
    if items.len() > MAX_MODELS {
        return Err(StatementError::TooManyModels(items.len()));
    }
    let model = |item: json::Json| {
        let text = item.into_string("models")?;
        if text.is_empty() {
            return Err(StatementError::NotVisibleAscii("models"));
        }
        visible("models", text)
    };
    items.into_iter().map(model).collect()
}

fn software(mut members: Members) -> Result<Software, StatementError> {
    let mut text = |member| visible(member, members.string(member)?);
    Ok(Software {
        name: text("name")?,
        version: text("version")?,
        commit: text("commit")?,
    })
}

fn visible(member: &'static str, text: String) -> Result<String, StatementError> {
    if text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text)
    } else {
        Err(StatementError::NotVisibleAscii(member))
    }
}

fn base64<const N: usize>(member: &'static str, text: &str) -> Result<[u8; N], StatementError> {
    STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(StatementError::Base64 { member, len: N })
}

fn hex_32(member: &'static str, text: String) -> Result<[u8; 32], StatementError> {
    from_hex(&text).map_err(|source| StatementError::Hex { member, source })
}

#[cfg(test)]
mod tests;
