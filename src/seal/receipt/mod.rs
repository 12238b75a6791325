//! Receipts: what a node signs of a reply (docs/wire.md, "Receipts").
//!
//! A receipt is a compact JWS (RFC 7515) with one header and one text for each payload; anything else
//! is refused before a signature counts. What it says of prompt and answer are commitments, which tell
//! nothing to who has not the [`Salts`]. Whether what it says is true of an exchange is for whoever had
//! that exchange to compare.

use std::{fmt, str::FromStr};

use attestation::StatementDigest;
use aws_lc_rs::{
    error::Unspecified,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

mod commitment;
mod payload;
#[cfg(test)]
mod tests;

pub use commitment::{Commitment, Commitments, Committer, EventLines, InvalidSalts, Salt, Salts};

/// Longest receipt, in bytes: the longest path and model's name leave half of it free.
pub const MAX_RECEIPT: usize = 4096;
/// Longest usage in one, in bytes: all counters at their highest have half as many.
const MAX_USAGE: usize = 1024;
/// Longest path and longest model's name, in bytes (as configurations have them).
const MAX_NAME: usize = 256;
/// The JOSE header, byte for byte.
const HEADER: &str = r#"{"alg":"Ed25519","typ":"sealgate-receipt+jwt"}"#;

/// Why something is no receipt of this key. No variant holds a byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// It is too long.
    #[error("a receipt of {len} bytes exceeds the limit of {max}")]
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// It has not three parts.
    #[error("not three parts with dots between")]
    Parts,
    /// Its header is another.
    #[error("another header")]
    Header,
    /// A part is no base64url, or not the one text of its bytes.
    #[error("a part is not base64url without padding")]
    Encoding,
    /// Another key signed it, or something else.
    #[error("the signature is not this key's")]
    Signature,
    /// Its payload is not well-formed, or not the one text of what it says.
    #[error("the payload is not well-formed")]
    Payload,
    /// A member is out of its range.
    #[error("{0} is out of range")]
    Member(&'static str),
}

/// What a receipt is asked to say: the value of `sealgate-receipt` in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceiptScope {
    /// There is to be none.
    #[default]
    None,
    /// What was used.
    Usage,
    /// What was used, and what proves prompt and answer.
    Content,
}

/// A text that is no [`ReceiptScope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a receipt is none, usage or content")]
pub struct UnknownScope;

impl ReceiptScope {
    /// As it travels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Usage => "usage",
            Self::Content => "content",
        }
    }
}

impl FromStr for ReceiptScope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let mut all = [Self::None, Self::Usage, Self::Content].into_iter();
        all.find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}

/// What a receipt says of one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The request's id.
    pub request_id: [u8; 16],
    /// The statement that the request was sealed under.
    pub statement: StatementDigest,
    /// The key that it was sealed to.
    pub key_id: u8,
    /// The path that was asked: visible ASCII.
    pub path: String,
    /// The node's name of the model: visible ASCII.
    pub model: String,
    /// The status under the seal.
    pub status: u16,
    /// The token counters, as the trailer has them: a JSON object without blanks. `None` if there are
    /// none.
    pub usage: Option<String>,
    /// When it was signed, in seconds since the Unix epoch.
    pub iat: u64,
    /// What proves prompt and answer, where that was asked for.
    pub content: Option<Commitments>,
}

impl Receipt {
    /// Reads a receipt that `receipt_key` signed.
    ///
    /// # Errors
    /// [`ReceiptError`] for the first thing that is wrong. Nothing is read of a payload before its
    /// signature was verified.
    pub fn verify(jws: &str, receipt_key: &[u8; 32]) -> Result<Self, ReceiptError> {
        if jws.len() > MAX_RECEIPT {
            return Err(ReceiptError::TooLong {
                len: jws.len(),
                max: MAX_RECEIPT,
            });
        }
        let (signed, signature) = jws.rsplit_once('.').ok_or(ReceiptError::Parts)?;
        let (header, payload) = signed.split_once('.').ok_or(ReceiptError::Parts)?;
        if payload.contains('.') {
            return Err(ReceiptError::Parts);
        }
        if decoded(header)? != HEADER.as_bytes() {
            return Err(ReceiptError::Header);
        }
        let (payload, signature) = (decoded(payload)?, decoded(signature)?);
        UnparsedPublicKey::new(&ED25519, receipt_key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|Unspecified| ReceiptError::Signature)?;
        payload::from_json(&payload)
    }
}

fn decoded(part: &str) -> Result<Vec<u8>, ReceiptError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| ReceiptError::Encoding)
}

/// The key that signs a node's receipts; its public half stands in the statement.
pub struct ReceiptKey(Ed25519KeyPair);

impl ReceiptKey {
    /// A fresh one.
    ///
    /// # Errors
    /// [`Unspecified`] if the system gives no randomness.
    pub fn generate() -> Result<Self, Unspecified> {
        Ed25519KeyPair::generate().map(Self)
    }

    /// Its public half, if the library gives it in the length that such keys have.
    #[must_use]
    pub fn public_key(&self) -> Option<[u8; 32]> {
        self.0.public_key().as_ref().try_into().ok()
    }

    /// Signs a receipt.
    ///
    /// # Errors
    /// [`ReceiptError`] if no reader would take it.
    pub fn sign(&self, receipt: &Receipt) -> Result<String, ReceiptError> {
        let jws = self.signed(HEADER, &payload::to_json(receipt)?)?;
        let (len, max) = (jws.len(), MAX_RECEIPT);
        if len > max {
            return Err(ReceiptError::TooLong { len, max });
        }
        Ok(jws)
    }

    fn signed(&self, header: &str, payload: &[u8]) -> Result<String, ReceiptError> {
        let mut jws = URL_SAFE_NO_PAD.encode(header);
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut jws);
        let signature = self.0.try_sign(jws.as_bytes());
        let signature = signature.map_err(|Unspecified| ReceiptError::Signature)?;
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
        Ok(jws)
    }

    /// Signs what may be no payload.
    #[cfg(fuzzing)]
    pub(in crate::seal) fn sign_payload(&self, payload: &str) -> String {
        self.signed(HEADER, payload.as_bytes()).unwrap_or_default()
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Self)
    }
}

impl fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiptKey(..)")
    }
}
