//! Whether a receipt is true of what the gateway sent and got.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use super::KeptReceipt;
use crate::{
    clock::unix_seconds,
    gateway::{admit::BodyRoom, node::Verified},
    ids::RequestId,
    seal::{
        Commitment, Commitments, Committer, InvalidSalts, Receipt, ReceiptError, Salt, Salts,
        Trailers,
    },
    sealer::{Grows, Passing},
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
    /// Where the receipt is to prove contents.
    pub(super) contents: Option<Contents>,
}

/// What a receipt's proof of contents is held against.
#[derive(Debug)]
pub(super) struct Contents {
    /// The salts that stood in the reply's head, as text.
    pub(super) early: Option<String>,
    pub(super) prompt: Prompt,
}

/// The body that was sealed.
#[derive(Debug)]
pub(super) enum Prompt {
    /// What stands for it under the salts that are known.
    Committed(Commitment),
    /// Kept until the salts come with the end.
    Kept { body: Bytes, _room: BodyRoom },
    /// There was no room to keep it, or what came as its salt is none.
    Gone,
}

impl Prompt {
    /// Of which the salts are still to come.
    pub(super) fn kept(body: &Bytes, mut room: BodyRoom) -> Self {
        match room.grow_to(body.len()) {
            Ok(()) => Self::Kept {
                body: body.clone(),
                _room: room,
            },
            Err(_) => Self::Gone,
        }
    }

    fn commitment(&self, salt: &Salt) -> Option<Commitment> {
        match self {
            Self::Committed(commitment) => Some(*commitment),
            Self::Kept { body, .. } => Some(salt.commit(body)),
            Self::Gone => None,
        }
    }
}

/// Room for what is kept of one reply.
#[derive(Debug)]
pub(super) struct ReplyRoom {
    pub(super) room: BodyRoom,
    pub(super) most: usize,
}

impl Grows for ReplyRoom {
    fn grows_to(&mut self, bytes: usize) -> bool {
        bytes <= self.most && self.room.grow_to(bytes).is_ok()
    }
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
    /// A stream's, as it was taken in.
    Passed(Passing),
}

impl Response {
    fn commitment(&self, salt: &Salt) -> Option<Commitment> {
        match self {
            Self::Passed(passed) => passed.commitment(salt),
            Self::Parts(parts) => {
                let mut committer = Committer::of_bytes(salt);
                parts.iter().for_each(|part| committer.update(part));
                Some(committer.commitment())
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
    #[error("its salts came with the end alone, and there was no room to keep what they are for")]
    Unchecked,
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
            Self::Unchecked => "unchecked",
            Self::NotKept => "not_kept",
        }
    }

    /// Whether it is the node's.
    pub(in crate::gateway) fn is_of_node(&self) -> bool {
        !matches!(self, Self::Unchecked | Self::NotKept)
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
        if let Some(contents) = &self.contents {
            contents.check(&receipt, replied)?;
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
                .filter(|_| self.contents.is_some()),
            statement: self.verified.statement.clone(),
            evidence: evidence.digest.clone(),
            nonce: evidence.nonce,
            policy: rules.policy_digest.clone(),
            bundle: rules.bundle_digest.clone(),
            asked_at: self.verified.node.verified_at(),
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
}

impl Contents {
    fn check(&self, receipt: &Receipt, replied: &Replied) -> Result<(), ReceiptFault> {
        let text = replied.trailers.receipt_salts.as_deref();
        let text = text.ok_or(ReceiptFault::NoContent)?;
        if self.early.as_deref().is_some_and(|early| early != text) {
            return Err(ReceiptFault::Member("salts"));
        }
        let salts: Salts = text.parse()?;
        let Commitments { request, response } =
            receipt.content.as_ref().ok_or(ReceiptFault::NoContent)?;
        let sent = self.prompt.commitment(&salts.request);
        if sent.ok_or(ReceiptFault::Unchecked)? != *request {
            return Err(ReceiptFault::Member("request"));
        }
        let got = replied.response.commitment(&salts.response);
        if got.ok_or(ReceiptFault::Unchecked)? != *response {
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
