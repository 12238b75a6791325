//! A confidential request, read and not yet opened.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use serde::Deserialize;

use super::SeedError;
use crate::seal::{RequestLimits, nonce::NONCE_LEN, suite::TAG_LEN};

const KEY_LEN: usize = 32;
const SALT_LEN: usize = 16;
const HASH_LEN: usize = 32;

/// A confidential request whose every member has its form.
#[must_use]
pub struct SeedEnvelope {
    /// With its tag.
    pub(super) ciphertext: BytesMut,
    pub(super) nonce: [u8; NONCE_LEN],
    pub(super) salt: [u8; SALT_LEN],
    pub(super) client_key: [u8; KEY_LEN],
    pub(super) node_key: [u8; KEY_LEN],
    pub(super) body_hash: [u8; HASH_LEN],
    pub(super) model_name: String,
    pub(super) stream: bool,
}

/// The members as they are written. Others are passed over; one that comes twice is an error.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    ciphertext: Cow<'a, str>,
    #[serde(borrow)]
    nonce: Cow<'a, str>,
    #[serde(borrow)]
    salt: Cow<'a, str>,
    #[serde(borrow)]
    client_dh_public_key: Cow<'a, str>,
    #[serde(borrow)]
    node_dh_public_key: Cow<'a, str>,
    #[serde(borrow)]
    plaintext_body_hash: Cow<'a, str>,
    model_name: String,
    stream: Option<bool>,
    /// What the lock was on, and how much of it this is: the gateway's matter.
    #[serde(rename = "stack_small_id")]
    _stack_small_id: u64,
    #[serde(rename = "num_compute_units")]
    _num_compute_units: Option<u64>,
}

impl SeedEnvelope {
    /// Reads a body.
    ///
    /// # Errors
    /// [`SeedError`] if it is no JSON object of these members, or one of them has not its form.
    pub fn parse(body: &[u8], limits: RequestLimits) -> Result<Self, SeedError> {
        // An array of the members in their order would be read too.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(SeedError::Json);
        }
        let members: Members<'_> = serde_json::from_slice(body).map_err(|_| SeedError::Json)?;
        let max = limits.content_bytes;
        let ciphertext = members.ciphertext.as_bytes();
        let longest = base64::encoded_len(max.saturating_add(TAG_LEN), true);
        if longest.is_some_and(|longest| ciphertext.len() > longest) {
            return Err(SeedError::TooLarge { max });
        }
        let ciphertext = STANDARD
            .decode(ciphertext)
            .ok()
            .filter(|ciphertext| ciphertext.len() >= TAG_LEN)
            .ok_or(SeedError::Ciphertext)?;
        if ciphertext.len().saturating_sub(TAG_LEN) > max {
            return Err(SeedError::TooLarge { max });
        }
        Ok(Self {
            ciphertext: BytesMut::from(bytes::Bytes::from(ciphertext)),
            nonce: exact("nonce", &members.nonce)?,
            salt: exact("salt", &members.salt)?,
            client_key: exact("client_dh_public_key", &members.client_dh_public_key)?,
            node_key: exact("node_dh_public_key", &members.node_dh_public_key)?,
            body_hash: exact("plaintext_body_hash", &members.plaintext_body_hash)?,
            model_name: members.model_name,
            stream: members.stream.unwrap_or(false),
        })
    }
}

fn exact<const N: usize>(member: &'static str, text: &str) -> Result<[u8; N], SeedError> {
    let bytes = STANDARD.decode(text).ok();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(SeedError::Base64 { member, len: N })
}

impl fmt::Debug for SeedEnvelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeedEnvelope")
            .field("ciphertext_len", &self.ciphertext.len())
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}
