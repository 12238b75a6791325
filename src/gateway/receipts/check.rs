//! Whether a receipt is true of what the gateway sent and got.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use super::KeptReceipt;
use crate::{
    clock::unix_seconds,
    gateway::node::Verified,
    ids::RequestId,
    seal::{
        Commitments, ContentDigest, ContentHasher, InvalidSalts, Receipt, ReceiptError, Salts,
        Trailers,
    },
};

/// How far a receipt's time may be from that between a reply's begin and its end, in seconds: more than
/// a request's date may be.
const MAX_SKEW_S: u64 = 300;

/// What a receipt must say.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) id: RequestId,
    /// Whose request it is.
    pub(super) key: Arc<str>,
    pub(super) path: &'static str,
    /// The node's name of the model.
    pub(super) model: String,
    pub(super) key_id: u8,
    /// What was sealed to.
    pub(super) verified: Arc<Verified>,
    /// When the reply began.
    pub(super) began: SystemTime,
    /// The body that was sealed, where the receipt is to prove it.
    pub(super) request: Option<ContentDigest>,
}

/// What came.
#[derive(Debug)]
pub(super) struct Replied {
    pub(super) status: u16,
    pub(super) trailers: Trailers,
    pub(super) response: Response,
}

/// A reply's content.
#[derive(Debug)]
pub(super) enum Response {
    Parts(Vec<Bytes>),
    /// Of a stream, where the receipt is to prove it.
    Digest(Option<ContentDigest>),
}

impl Response {
    fn digest(&self) -> Option<ContentDigest> {
        match self {
            Self::Digest(digest) => *digest,
            Self::Parts(parts) => {
                let mut hasher = ContentHasher::of_bytes();
                parts.iter().for_each(|part| hasher.update(part));
                Some(hasher.digest())
            }
        }
    }
}

/// Why a receipt is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::gateway) enum ReceiptFault {
    #[error("there is none")]
    Missing,
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error(transparent)]
    Salts(#[from] InvalidSalts),
    #[error("its {0} is another")]
    Member(&'static str),
    #[error("it was asked to prove contents, and does not")]
    NoContent,
    #[error("it is good, and there is no place for it")]
    NotKept,
}

impl ReceiptFault {
    /// A word for it, for metrics.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Missing | Self::NoContent => "missing",
            Self::Receipt(ReceiptError::Signature) => "signature",
            Self::Receipt(_) | Self::Salts(_) => "malformed",
            Self::Member(_) => "mismatch",
            Self::NotKept => "not_kept",
        }
    }
}

impl Expected {
    /// Checks all of a receipt.
    ///
    /// # Errors
    /// [`ReceiptFault`] for the first thing that is wrong.
    pub(super) fn check(
        &self,
        replied: &Replied,
        now: SystemTime,
    ) -> Result<KeptReceipt, ReceiptFault> {
        let trailers = &replied.trailers;
        let jws = trailers.receipt.as_deref().ok_or(ReceiptFault::Missing)?;
        let receipt = Receipt::verify(jws, self.verified.node.receipt_key())?;
        self.compare(&receipt, replied, now)?;
        if let Some(request) = &self.request {
            self.check_content(&receipt, request, replied)?;
        }
        let (evidence, rules) = (&self.verified.evidence, &self.verified.rules);
        Ok(KeptReceipt {
            request_id: self.id,
            key: Arc::clone(&self.key),
            node: Arc::clone(&self.verified.id),
            jws: jws.to_owned(),
            salts: trailers
                .receipt_salts
                .clone()
                .filter(|_| self.request.is_some()),
            statement: self.verified.statement.clone(),
            evidence: evidence.digest.clone(),
            nonce: evidence.nonce,
            policy: rules.policy_digest.clone(),
            bundle: rules.bundle_digest.clone(),
            appraised_at: self.verified.judged_at,
            at: now,
        })
    }

    fn compare(
        &self,
        receipt: &Receipt,
        replied: &Replied,
        now: SystemTime,
    ) -> Result<(), ReceiptFault> {
        let members = [
            ("request_id", receipt.request_id == *self.id.as_bytes()),
            (
                "statement",
                receipt.statement == self.verified.node.statement_digest(),
            ),
            ("key_id", receipt.key_id == self.key_id),
            ("path", receipt.path == self.path),
            ("model", receipt.model == self.model),
            ("status", receipt.status == replied.status),
            ("usage", receipt.usage == replied.trailers.usage),
            ("iat", may_be_signed_at(receipt.iat, self.began, now)),
        ];
        match members.into_iter().find(|(_, is_same)| !is_same) {
            Some((name, _)) => Err(ReceiptFault::Member(name)),
            None => Ok(()),
        }
    }

    fn check_content(
        &self,
        receipt: &Receipt,
        request: &ContentDigest,
        replied: &Replied,
    ) -> Result<(), ReceiptFault> {
        let salts = replied.trailers.receipt_salts.as_deref();
        let salts: Salts = salts.ok_or(ReceiptFault::NoContent)?.parse()?;
        let Commitments {
            request: of_request,
            response: of_response,
        } = receipt.content.as_ref().ok_or(ReceiptFault::NoContent)?;
        if !of_request.is_of(&salts.request, request) {
            return Err(ReceiptFault::Member("request"));
        }
        let response = replied.response.digest().ok_or(ReceiptFault::NoContent)?;
        if !of_response.is_of(&salts.response, &response) {
            return Err(ReceiptFault::Member("response"));
        }
        Ok(())
    }
}

/// Whether a receipt of a reply that began then and ended now may be signed at `iat`. The end of a paced
/// stream is signed long after its first tick, and can be long before its last.
fn may_be_signed_at(iat: u64, began: SystemTime, ended: SystemTime) -> bool {
    let from = unix_seconds(began).saturating_sub(MAX_SKEW_S);
    let until = unix_seconds(ended).saturating_add(MAX_SKEW_S);
    (from..=until).contains(&iat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_unix_seconds;

    #[test]
    fn a_receipt_is_signed_while_its_reply_goes_on_but_for_what_clocks_differ() {
        let at = |seconds| from_unix_seconds(seconds).unwrap();
        for (iat, expected) in [
            (699, false),
            (700, true),
            (1000, true),
            (1500, true),
            (2300, true),
            (2301, false),
            (u64::MAX, false),
        ] {
            let seen = may_be_signed_at(iat, at(1000), at(2000));
            assert_eq!(seen, expected, "{iat}");
        }
    }
}
