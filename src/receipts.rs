//! The file in which a receipt travels with all that it rests on: evidence, policy, bundle and the
//! time that they were judged at (docs/wire.md, "Receipts").
//!
//! There is one text for what a file says, and a digest over it, so that no byte of it can be another
//! by accident. That proves nothing of who made it: what does is the evidence and the receipt in it.
//! No IO, and nothing is judged here.

use std::io;

use attestation::{Bundle, Policy, PolicyError, bundle::BundleError};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// Most bytes of everything in a file together, before they are encoded.
pub const MAX_CONTENTS: usize = 32 * 1024 * 1024;
/// Longest file, in bytes.
pub const MAX_FILE: usize = 48 * 1024 * 1024;

/// What such a file begins with.
const KIND: &str = "receipt-1";

/// Why bytes are no such file.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptFileError {
    /// It is too long.
    #[error("larger than {MAX_FILE} bytes")]
    TooLong,
    /// It is none, or not the one text of what it says.
    #[error("not a receipt's file, byte for byte as a gateway gives it")]
    Form,
    /// It was changed.
    #[error("its content has another digest: expected {expected}, seen {seen}")]
    Digest {
        /// What it says itself.
        expected: String,
        /// What its content has.
        seen: String,
    },
}

/// A receipt, and what it rests on.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptFile {
    /// The request's id.
    pub request_id: String,
    /// The receipt.
    pub receipt: String,
    /// What proves prompt and answer.
    pub salts: Option<String>,
    /// The node's id.
    pub node: String,
    /// The node's answer, as it came.
    #[serde(with = "Base64")]
    pub evidence: Vec<u8>,
    /// SHA-256 of it, in hex.
    pub evidence_sha256: String,
    /// What it was asked with, in hex.
    pub nonce: String,
    /// When it was asked for (RFC 3339): evidence is as fresh as it was then.
    pub asked_at: String,
    /// When it was judged last, which is later where the policy changed since.
    pub appraised_at: String,
    /// The policy that it was judged by.
    pub policy: PolicyFolder,
    /// Its digest, in hex.
    pub policy_sha256: String,
    /// The bundle that was at hand.
    pub bundle: Option<BundleFolder>,
    /// Its digest, in hex.
    pub bundle_sha256: Option<String>,
}

/// A policy as it was read.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFolder {
    /// Its text.
    pub text: String,
    /// The files that it names, by their names in it.
    #[serde(with = "Named")]
    pub files: Vec<(String, Vec<u8>)>,
}

/// A bundle as it was read.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BundleFolder {
    /// The manifest.
    #[serde(with = "Base64")]
    pub manifest: Vec<u8>,
    /// The signature over it.
    #[serde(with = "Base64")]
    pub signature: Vec<u8>,
    /// The files that it names, by their paths.
    #[serde(with = "Named")]
    pub files: Vec<(String, Vec<u8>)>,
}

/// The text of a file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Outer<'a> {
    sealgate: String,
    #[serde(borrow)]
    content: &'a RawValue,
    sha256: String,
}

impl ReceiptFile {
    /// The file.
    ///
    /// # Errors
    /// [`ReceiptFileError`] if it would be too long.
    pub fn to_json(&self) -> Result<Vec<u8>, ReceiptFileError> {
        let content = serde_json::value::to_raw_value(self).map_err(|_| ReceiptFileError::Form)?;
        let outer = Outer {
            sealgate: KIND.to_owned(),
            sha256: digest(content.get().as_bytes()),
            content: &content,
        };
        let file = serde_json::to_vec(&outer).map_err(|_| ReceiptFileError::Form)?;
        if file.len() > MAX_FILE {
            return Err(ReceiptFileError::TooLong);
        }
        Ok(file)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ReceiptFileError`] unless it is byte for byte what [`Self::to_json`] gives.
    pub fn from_json(file: &[u8]) -> Result<Self, ReceiptFileError> {
        if file.len() > MAX_FILE {
            return Err(ReceiptFileError::TooLong);
        }
        let outer: Outer<'_> = serde_json::from_slice(file).map_err(|_| ReceiptFileError::Form)?;
        if outer.sealgate != KIND {
            return Err(ReceiptFileError::Form);
        }
        let content = outer.content.get();
        let seen = digest(content.as_bytes());
        if seen != outer.sha256 {
            return Err(ReceiptFileError::Digest {
                expected: outer.sha256,
                seen,
            });
        }
        let read: Self = serde_json::from_str(content).map_err(|_| ReceiptFileError::Form)?;
        if read.to_json()? == file {
            Ok(read)
        } else {
            Err(ReceiptFileError::Form)
        }
    }
}

impl PolicyFolder {
    /// Reads the policy.
    ///
    /// # Errors
    /// [`PolicyError`] if it is none, or names a file that is not here.
    pub fn read(&self) -> Result<Policy, PolicyError> {
        Policy::from_toml(&self.text, &mut |name| find(&self.files, name))
    }
}

impl BundleFolder {
    /// Reads the bundle, if a signer that `policy` names signed it.
    ///
    /// # Errors
    /// [`BundleError`] if it is none, or not believed.
    pub fn read(&self, policy: &Policy) -> Result<Bundle, BundleError> {
        let signers = policy.bundle_signers();
        let mut read_file = |path: &str| find(&self.files, path);
        Bundle::load(&self.manifest, &self.signature, signers, &mut read_file)
    }
}

fn find(files: &[(String, Vec<u8>)], name: &str) -> io::Result<Vec<u8>> {
    let found = files.iter().find(|(known, _)| known == name);
    let bytes = found.map(|(_, bytes)| bytes.clone());
    bytes.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Bytes as base64.
struct Base64;

impl Base64 {
    fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text);
        bytes.map_err(|_| D::Error::custom("not base64"))
    }
}

/// Files by their names, as a list: an object would leave their order and doubles open.
struct Named;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NamedFile {
    name: String,
    #[serde(with = "Base64")]
    bytes: Vec<u8>,
}

impl Named {
    fn serialize<S: Serializer>(
        files: &[(String, Vec<u8>)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(files.iter().map(|(name, bytes)| NamedFile {
            name: name.clone(),
            bytes: bytes.clone(),
        }))
    }

    fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, Vec<u8>)>, D::Error> {
        let files = Vec::<NamedFile>::deserialize(deserializer)?;
        Ok(files.into_iter().map(|it| (it.name, it.bytes)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> ReceiptFile {
        let files = vec![("a \"name\"".to_owned(), vec![0, 255])];
        ReceiptFile {
            request_id: "00".repeat(16),
            receipt: "a.b.c".to_owned(),
            salts: None,
            node: "n".to_owned(),
            evidence: b"{}".to_vec(),
            evidence_sha256: digest(b"{}"),
            nonce: "00".repeat(32),
            asked_at: "2026-06-01T00:00:00Z".to_owned(),
            appraised_at: "2026-06-01T00:00:00Z".to_owned(),
            policy: PolicyFolder {
                text: "version = 1\n".to_owned(),
                files: files.clone(),
            },
            policy_sha256: String::new(),
            bundle: Some(BundleFolder {
                manifest: b"m".to_vec(),
                signature: Vec::new(),
                files,
            }),
            bundle_sha256: Some(String::new()),
        }
    }

    #[test]
    fn a_file_has_one_text_and_no_byte_of_it_can_be_another() {
        let text = file().to_json().unwrap();
        assert_eq!(ReceiptFile::from_json(&text).unwrap(), file());
        for at in 0..text.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = text.clone();
                changed[at] ^= flip;
                assert!(ReceiptFile::from_json(&changed).is_err(), "{at} {flip}");
            }
        }
        for more in ["\n", " ", "{}"] {
            let longer = [&text, more.as_bytes()].concat();
            let refused = ReceiptFile::from_json(&longer);
            assert!(matches!(refused, Err(ReceiptFileError::Form)), "{more:?}");
        }
    }

    #[test]
    fn other_texts_of_the_same_are_refused_whatever_their_digest() {
        let good = serde_json::to_string(&file()).unwrap();
        let cases = [
            ("a blank", good.replacen(':', ": ", 1)),
            ("an unknown member", good.replacen('{', r#"{"a":1,"#, 1)),
            ("a member twice", good.replacen('{', r#"{"salts":null,"#, 1)),
            ("a member less", good.replacen(r#""salts":null,"#, "", 1)),
            ("an escape", good.replacen("a.b.c", r"\u0061.b.c", 1)),
            ("no object", "[]".to_owned()),
        ];
        let wrapped = |content: &str| {
            let sha256 = digest(content.as_bytes());
            format!(r#"{{"sealgate":"{KIND}","content":{content},"sha256":"{sha256}"}}"#)
        };
        assert!(ReceiptFile::from_json(wrapped(&good).as_bytes()).is_ok());
        for (name, content) in cases {
            assert_ne!(content, good, "{name}");
            let refused = ReceiptFile::from_json(wrapped(&content).as_bytes());
            assert!(matches!(refused, Err(ReceiptFileError::Form)), "{name}");
        }
        let other = wrapped(&good).replace(KIND, "receipt-2");
        assert!(ReceiptFile::from_json(other.as_bytes()).is_err());
    }
}
