//! One request to one node, as the gateway seals it.

use attestation::{Ineligible, Padding};
use bytes::Bytes;

use super::{
    Shared,
    hardware::Hardware,
    node::{Node, Verified},
    nodes::Served,
    record::Record,
};
use crate::{
    ids::RequestId,
    openai::Endpoint,
    seal::ReceiptScope,
    sealer::{self, Ask, Bounds, ExchangeError, OHTTP, Reply, Way},
};

/// What is asked.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) id: RequestId,
    pub(super) endpoint: Endpoint,
    pub(super) stream: bool,
    /// What nodes know the caller by.
    pub(super) caller: &'a str,
    /// The caller's body.
    pub(super) content: &'a Bytes,
    /// Whether it may only be sealed to a post-quantum key.
    pub(super) requires_pq: bool,
    /// What the evidence of the node has to show.
    pub(super) hardware: Hardware,
    /// How lengths are hidden at least.
    pub(super) padding: Padding,
    /// The digest in hex of the policy that a node must have passed, where its sender agreed to one.
    pub(super) policy: Option<&'a str>,
    /// What the node's receipt is to say.
    pub(super) receipt: ReceiptScope,
}

impl Shared {
    /// Asks one node, and says which of its keys was sealed to.
    ///
    /// # Errors
    /// [`ExchangeError`] says whether another try is allowed.
    pub(super) async fn exchange(
        &self,
        job: &Job<'_>,
        served: &Served,
        node: &Node,
        verified: &Verified,
        record: &mut Record,
    ) -> Result<(Reply, u8), ExchangeError> {
        let now = self.clock.now();
        if verified.has_ended(now) {
            return Err(Ineligible::AppraisalExpired.into());
        }
        let key = if job.requires_pq {
            verified.node.post_quantum_key(now)?
        } else {
            verified.node.sealing_key(now)?
        };
        record.suite = Some(key.suite().as_str());
        let padding = job.padding.max(verified.node.least_padding());
        record.padding = Some(padding);
        let ask = Ask {
            id: job.id,
            endpoint: job.endpoint,
            stream: job.stream,
            caller: Some(job.caller),
            content: job.content,
            statement: &verified.statement,
            model: served.node_name.as_deref(),
            credential: node.credential.as_ref(),
            padding,
            receipt: job.receipt,
        };
        let way = Way {
            channel: &verified.channel,
            path: OHTTP,
            authorization: None,
            is_believed: verified.authenticated_channel || self.retry_unauthenticated,
        };
        let bounds = Bounds {
            first_byte: self.timeouts.first_byte,
            idle: self.timeouts.idle,
            reply_bytes: self.limits.reply_bytes,
        };
        let reply = sealer::exchange(&ask, &key, now, &way, &bounds).await?;
        Ok((reply, key.key_id()))
    }
}
